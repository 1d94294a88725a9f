"""The ledger port on Fabric: its parts alone, against a Gateway of the tests' own, and on a live network."""
