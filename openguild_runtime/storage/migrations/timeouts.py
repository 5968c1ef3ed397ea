"""Time limits that a role or a database sets, which are for ordinary queries: a step may take as long as it takes."""

from __future__ import annotations

NO_TIMEOUTS = """
SELECT set_config(name, '0', true) FROM pg_settings
WHERE name IN ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')
"""
"""End them for the transaction. PostgreSQL knows the last one from version 17 on."""
