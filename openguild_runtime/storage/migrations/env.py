"""Run by alembic, on the connection from `migrations.upgrade` or as a script for `migrate --sql`."""

from alembic import context

from openguild_runtime.storage.migrations import LOCK_KEY

if context.is_offline_mode():
    context.configure(dialect_name="postgresql", literal_binds=True)
else:
    context.configure(connection=context.config.attributes["connection"])

# Timeouts of the role or the database are for ordinary queries. A step may set its own.
NO_TIMEOUTS = ("SET LOCAL statement_timeout = 0", "SET LOCAL lock_timeout = 0")

with context.begin_transaction():
    for setting in NO_TIMEOUTS:
        context.execute(setting)
    # Held to the end of the transaction: one of several starting replicas migrates, the others wait.
    context.execute(f"SELECT pg_advisory_xact_lock({LOCK_KEY})")
    context.run_migrations()
