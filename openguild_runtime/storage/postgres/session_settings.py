"""The settings of each session of the pool, which override those of the role and the database."""

from __future__ import annotations


def session_settings(timeout_secs: float, *, pooled: bool) -> dict[str, str]:
    """Return the settings. `pooled`: a pooler shares sessions and refuses most settings.

    Not set: `default_transaction_read_only`, with which operators and hosts stop writes on purpose, and `search_path`,
    with which an operator selects the schema.
    """
    if pooled:
        return {"application_name": "openguild"}
    millis = str(int(timeout_secs * 1000))
    return {
        "application_name": "openguild",
        "statement_timeout": millis,
        # A stalled process holds the locks of its transaction no longer than a statement may take.
        "idle_in_transaction_session_timeout": millis,
        "jit": "off",  # short queries: compiling costs more than it saves
        "default_transaction_isolation": "read committed",  # stricter levels make concurrent commits to one channel fail
        "lock_timeout": "0",  # statement_timeout bounds it, and appends set their own
    }
