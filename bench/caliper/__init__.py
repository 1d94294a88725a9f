"""The contract under Hyperledger Caliper: `python -m bench.caliper` (`make caliper`)."""
