"""The ledger's schema, step by step (Alembic). Run by ``ops.ledger.database``, never by hand."""
