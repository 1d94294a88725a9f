"""The node's one HTTPS application: who calls shows the certificate of its identity on the ledger."""
