"""Checks the requirements on a database that waiting cannot fulfil: version and encoding."""

from __future__ import annotations

from typing import Any, TypeAlias

import asyncpg
import msgspec
from asyncpg.pool import PoolConnectionProxy

MIN_VERSION = 14  # for `date_bin`

# A string, because asyncpg's connection is generic only in its stub.
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"

SETTINGS = """
SELECT current_setting('server_version_num')::integer / 10000 AS version, current_setting('server_encoding') AS encoding,
    current_setting('default_transaction_isolation') AS isolation, current_setting('synchronous_commit') AS synchronous_commit
"""


PROGRAM = "openguild"
# The server names of running replicas, which are part of their sessions' application_name.
OTHER_NAMES = f"""
SELECT DISTINCT substr(application_name, {len(PROGRAM) + 2}) AS name FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE '{PROGRAM} %'
    AND application_name <> current_setting('application_name')
ORDER BY 1 LIMIT 3
"""  # noqa: S608 - a constant


class DatabaseUnfit(Exception):
    """The database does not meet the requirements. The text is one line for the operator with the remedy and no secrets."""


class Fitness(msgspec.Struct, frozen=True, gc=False):
    """Settings of the database server in this session."""

    version: int  # major
    encoding: str
    isolation: str = "read committed"
    synchronous_commit: str = "on"

    @property
    def problem(self) -> str | None:
        """Why the database cannot be used, with the remedy, or None if it can."""
        if self.version < MIN_VERSION:
            return (
                f"the database is PostgreSQL {self.version}: {MIN_VERSION} or newer is needed. "
                "Upgrade it, or set database_url to another"
            )
        if self.encoding != "UTF8":
            return (
                f"the database's encoding is {self.encoding}, which cannot hold every message: UTF8 is needed. Create another "
                "(CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0), move what is stored, and name it in database_url"
            )
        return None


async def read_fitness(connection: Connection) -> Fitness:
    """Read and check the settings. Raises DatabaseUnfit and asyncpg's exceptions."""
    row: Any = await connection.fetchrow(SETTINGS)
    fitness = Fitness(row["version"], row["encoding"], row["isolation"], row["synchronous_commit"])
    if fitness.problem is not None:
        raise DatabaseUnfit(fitness.problem)
    return fitness


async def require_one_name(connection: Connection, server_name: str) -> None:
    """Raise DatabaseUnfit if replicas with another server name use this database.

    They would not receive each other's events, and events would carry the name of a server that does not exist.
    """
    others = [row["name"] for row in await connection.fetch(OTHER_NAMES)]
    if others:
        raise DatabaseUnfit(
            f"server_name: this replica is {server_name!r}, and those that serve from this database now are {', '.join(others)}: "
            "give all of one database the same name, or end the others first"
        )
