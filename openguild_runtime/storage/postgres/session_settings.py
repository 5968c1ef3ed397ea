"""The settings of each session of the pool, which override those of the role and the database."""

from __future__ import annotations

from openguild_runtime.storage.fitness import PROGRAM

MAX_NAME_BYTES = 63  # of PostgreSQL's identifiers


def session_settings(timeout_secs: float, *, pooled: bool, server_name: str | None = None) -> dict[str, str]:
    """Return the settings. `pooled`: a pooler shares sessions and refuses most settings.

    `server_name`: told in `application_name`, by which replicas of another name are noticed.

    Not set: `default_transaction_read_only`, with which operators and hosts stop writes on purpose, and `search_path`,
    with which an operator selects the schema.
    """
    name = {"application_name": f"{PROGRAM} {server_name or ''}".strip()[:MAX_NAME_BYTES]}
    if pooled:
        return name
    millis = str(int(timeout_secs * 1000))
    return name | {
        "statement_timeout": millis,
        # A stalled process holds the locks of its transaction no longer than a statement may take.
        "idle_in_transaction_session_timeout": millis,
        "jit": "off",  # short queries: compiling costs more than it saves
        "default_transaction_isolation": "read committed",  # stricter levels make concurrent commits to one channel fail
        "lock_timeout": "0",  # statement_timeout bounds it, and appends set their own
    }
