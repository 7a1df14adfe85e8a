"""The ledger: where files, documents, results and runs are kept."""
