"""What each session of the pool is told at its start, whatever its role or its database says."""

from __future__ import annotations


def session_settings(timeout_secs: float, *, pooled: bool) -> dict[str, str]:
    """`pooled`: through a pooler, which shares sessions and refuses what is none of its business to set.

    Not set: `default_transaction_read_only`, by which an operator or a host whose disk is full stops writes on purpose, and
    `search_path`, by which an operator says where the tables are.
    """
    if pooled:
        return {"application_name": "openguild"}
    millis = str(int(timeout_secs * 1000))
    return {
        "application_name": "openguild",
        "statement_timeout": millis,
        # A process that stands still within a transaction holds its locks no longer than a statement may take.
        "idle_in_transaction_session_timeout": millis,
        "jit": "off",  # short queries: compiling costs more than it saves
        "default_transaction_isolation": "read committed",  # stricter ones make commits to one channel fail each other
        "lock_timeout": "0",  # statement_timeout bounds it, and appends set their own
    }
