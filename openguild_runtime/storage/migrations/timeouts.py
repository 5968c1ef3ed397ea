"""Time limits of a role or a database, which must not apply to migrations."""

from __future__ import annotations

NO_TIMEOUTS = """
SELECT set_config(name, '0', true) FROM pg_settings
WHERE name IN ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')
"""
"""Disables the limits for the transaction. PostgreSQL has the last one from version 17 on."""
