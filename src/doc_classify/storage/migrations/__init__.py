"""Alembic revisions of the ledger's tables, one ordered step each."""
