"""What Alembic executes around the steps. The connection is ours: it holds the lock and the transaction."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
context.run_migrations()
