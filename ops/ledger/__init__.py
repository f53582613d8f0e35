"""The ledger: receipts as a database, in SQLite or PostgreSQL. A projection of ``backbone.deliveries``: it can be
deleted, and is rebuilt by reading that topic from its beginning."""
