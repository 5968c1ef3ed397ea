"""What a database must be before anything is stored in it: what is wrong here does not heal by waiting."""

from __future__ import annotations

from typing import Any, TypeAlias

import asyncpg
import msgspec
from asyncpg.pool import PoolConnectionProxy

LEAST_VERSION = 14  # `date_bin`; also the oldest that the PostgreSQL project maintained when this was written

# A string, because only its stub lets asyncpg's connection be subscripted.
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"

LOOK = """
SELECT current_setting('server_version_num')::integer / 10000 AS version, current_setting('server_encoding') AS encoding,
    current_setting('default_transaction_isolation') AS isolation, current_setting('synchronous_commit') AS synchronous_commit
"""


class DatabaseUnfit(Exception):
    """This program cannot work with that database. One line for the operator, with the mend; never holds a secret."""


class Fitness(msgspec.Struct, frozen=True, gc=False):
    """Settings of the server, as this session sees them."""

    version: int  # major
    encoding: str
    isolation: str = "read committed"
    synchronous_commit: str = "on"

    @property
    def problem(self) -> str | None:
        """Why nothing can be stored there, and the mend."""
        if self.version < LEAST_VERSION:
            return (
                f"the database is PostgreSQL {self.version}: {LEAST_VERSION} or newer is needed. "
                "Upgrade it, or name another in database_url"
            )
        if self.encoding != "UTF8":
            return (
                f"the database's encoding is {self.encoding}, which cannot hold every message: UTF8 is needed. Create another "
                "(CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0), move what is stored, and name it in database_url"
            )
        return None


async def look(connection: Connection) -> Fitness:
    """Raises DatabaseUnfit, and what asyncpg raises."""
    row: Any = await connection.fetchrow(LOOK)
    fitness = Fitness(row["version"], row["encoding"], row["isolation"], row["synchronous_commit"])
    if fitness.problem is not None:
        raise DatabaseUnfit(fitness.problem)
    return fitness
