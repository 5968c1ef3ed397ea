"""Run by alembic: on the connection that `migrations.upgrade` hands over, or as a script for `migrate --sql`."""

from alembic import context

from openguild_runtime.storage.migrations import LOCK_KEY

if context.is_offline_mode():
    context.configure(dialect_name="postgresql", literal_binds=True)
else:
    context.configure(connection=context.config.attributes["connection"])

with context.begin_transaction():
    # Held to the end of the transaction: of several replicas that start at once, one migrates and the others wait.
    context.execute(f"SELECT pg_advisory_xact_lock({LOCK_KEY})")
    context.run_migrations()
