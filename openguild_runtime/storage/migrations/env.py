"""Run by alembic, on the connection from `migrations.upgrade` or as a script for `migrate --sql`."""

from alembic import context

from openguild_runtime.storage.migrations import LOCK_KEY
from openguild_runtime.storage.migrations.timeouts import NO_TIMEOUTS

if context.is_offline_mode():
    context.configure(dialect_name="postgresql", literal_binds=True)
else:
    context.configure(connection=context.config.attributes["connection"])

with context.begin_transaction():
    context.execute(NO_TIMEOUTS)  # steps may set their own
    # Held until the end of the transaction: one of several starting replicas migrates while the others wait.
    context.execute(f"SELECT pg_advisory_xact_lock({LOCK_KEY})")
    context.run_migrations()
