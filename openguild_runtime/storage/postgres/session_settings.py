"""The settings of each session of the pool, which override those of the role and the database."""

from __future__ import annotations

from openguild_runtime.storage.fitness import PROGRAM

MAX_NAME_BYTES = 63  # PostgreSQL's limit for identifiers


def session_settings(timeout_secs: float, *, pooled: bool, server_name: str | None = None) -> dict[str, str]:
    """Return the settings; behind a pooler (`pooled`), which refuses most settings, only `application_name`.

    `application_name` includes `server_name`, by which replicas with another name are detected.
    `default_transaction_read_only`, by which operators and hosts stop writes on purpose, is not set, nor is `search_path`, by
    which operators select the schema.
    """
    name = {"application_name": f"{PROGRAM} {server_name or ''}".strip()[:MAX_NAME_BYTES]}
    if pooled:
        return name
    millis = str(int(timeout_secs * 1000))
    return name | {
        "statement_timeout": millis,
        # A stalled process must not hold the locks of its transaction for longer than a statement may take.
        "idle_in_transaction_session_timeout": millis,
        "jit": "off",  # compiling costs more than it saves for short queries
        "default_transaction_isolation": "read committed",  # stricter levels make concurrent commits to one channel fail
        "lock_timeout": "0",  # statement_timeout bounds it, and appends set their own
    }
