"""Connects to PostgreSQL, and tells faults of the URL from those of the database."""

from __future__ import annotations

import os
from typing import Any

import asyncpg

from openguild_runtime.config.database_parameters import files_of, settings_of
from openguild_runtime.storage.database_tls import tls_context

# Classes of SQLSTATEs that refuse a setting when a session begins: its value, its name, a syntax of `options`.
SETTING_CLASSES = ("22", "42")
NO_RIGHT = "42501"  # such as CONNECT
NOT_IN_A_SESSION = "55P02"  # a setting of the whole server


class Unusable(Exception):
    """The database cannot be used, for a cause that the failure below it does not tell (observability/database_causes.py)."""

    def __init__(self, cause: str, *, parameter: str | None = None) -> None:
        super().__init__(cause)
        self.cause = cause
        self.parameter = parameter  # of the URL, if PostgreSQL refuses it


async def connect(url: str, **options: Any) -> asyncpg.Connection[asyncpg.Record]:
    """Return a session. Raises what asyncpg raises, and Unusable for a setting or a file that the URL names."""
    try:
        tls = await tls_context(url)
        return await asyncpg.connect(url, **options if tls is None else options | {"ssl": tls})
    except asyncpg.PostgresError as failure:
        if not _refuses_setting(failure.sqlstate or ""):
            raise
        said = str(failure)
        named = next((name for name in settings_of(url) if f'"{name}"' in said), None)
        raise Unusable("setting", parameter=named) from failure
    except OSError as failure:
        if all(os.access(path, os.R_OK) for _, path in files_of(url)):
            raise
        raise Unusable("url") from failure


def _refuses_setting(state: str) -> bool:
    return state == NOT_IN_A_SESSION or (state.startswith(SETTING_CLASSES) and state != NO_RIGHT)
