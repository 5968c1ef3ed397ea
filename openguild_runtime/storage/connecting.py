"""Connects to PostgreSQL, and distinguishes faults of the URL from those of the database."""

from __future__ import annotations

import os
from typing import Any

import asyncpg

from openguild_runtime.config.database_parameters import files_of, settings_of
from openguild_runtime.storage.database_tls import tls_context

# SQLSTATE classes of a setting refused at the start of a session: its value, its name, the syntax of `options`.
SETTING_CLASSES = ("22", "42")
NO_RIGHT = "42501"  # such as CONNECT
NOT_IN_A_SESSION = "55P02"  # a setting that only the whole server can have


class DatabaseUnusable(Exception):
    """The database cannot be used. `cause` is a name in observability/database_causes.py that the failure itself does not give."""

    def __init__(self, cause: str, *, parameter: str | None = None) -> None:
        super().__init__(cause)
        self.cause = cause
        self.parameter = parameter  # of the URL, if PostgreSQL refuses it


async def connect(url: str, **options: Any) -> asyncpg.Connection[asyncpg.Record]:
    """Open a session. Raises asyncpg's exceptions, and DatabaseUnusable for a setting or a file in the URL."""
    try:
        tls = await tls_context(url)
        return await asyncpg.connect(url, **options if tls is None else options | {"ssl": tls})
    except asyncpg.PostgresError as failure:
        if not _refuses_setting(failure.sqlstate or ""):
            raise
        said = str(failure)
        named = next((name for name in settings_of(url) if f'"{name}"' in said), None)
        raise DatabaseUnusable("setting", parameter=named) from failure
    except OSError as failure:
        if all(os.access(path, os.R_OK) for _, path in files_of(url)):
            raise
        raise DatabaseUnusable("url") from failure


def _refuses_setting(state: str) -> bool:
    return state == NOT_IN_A_SESSION or (state.startswith(SETTING_CLASSES) and state != NO_RIGHT)
