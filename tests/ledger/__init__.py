"""The ledger: its contract on every host, the identities, the embedded log."""
