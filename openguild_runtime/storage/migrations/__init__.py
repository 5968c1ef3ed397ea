"""Migrates the schema: plain SQL, forward only, under an advisory lock (PROTOCOL 11.6).

All steps run in one transaction, so they work through PgBouncer in transaction mode.
"""

from __future__ import annotations

import io
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
import msgspec

from openguild_runtime.storage import fitness
from openguild_runtime.storage.connecting import connect
from openguild_runtime.storage.fitness import Connection
from openguild_runtime.storage.migrations import schema
from openguild_runtime.storage.migrations.missing import Missing, make_missing, read_missing
from openguild_runtime.storage.migrations.origin import Origin, read_origin
from openguild_runtime.storage.migrations.schema import Schema
from openguild_runtime.storage.migrations.script import config
from openguild_runtime.storage.migrations.timeouts import NO_TIMEOUTS

if TYPE_CHECKING:  # alembic and SQLAlchemy are slow to import, so functions import them
    from sqlalchemy import Connection as SyncConnection

__all__ = [
    "Missing",
    "Origin",
    "Schema",
    "current",
    "expected",
    "missing",
    "render_sql",
    "renew_epochs",
    "serves",
    "upgrade",
]

LOCK_KEY = 0x6F70656E6775696C  # "openguil" as a bigint, to be unique
CONNECT_LIMIT_SECS = 10.0
MAX_RACES = 3  # retries if other releases migrate at the same time

# Locks logs in the usual order. Mirrored logs keep the epoch of their origin.
# Epochs are random, so that two restores never result in the same one.
NEW_EPOCHS = """
UPDATE logs AS l SET epoch = 2 + trunc(random() * 9007199254740990)::bigint
FROM (
    SELECT log_id FROM logs WHERE NOT EXISTS (SELECT FROM federation_mirrors AS m WHERE m.log_id = logs.log_id)
    ORDER BY log_id FOR NO KEY UPDATE
) AS locked
WHERE l.log_id = locked.log_id
"""
# The next replica records the lineage.
RENEWED = "UPDATE log_history SET renewals = renewals + 1, lineage = NULL, database = gen_random_uuid()"


async def upgrade(database_url: str, revision: str = "head") -> Schema:
    """Migrate the schema to `revision` (the newest step, or an older one in tests), and return it.

    A later release's schema that this release can use is kept, for rollbacks. Waits for a running migration. Raises
    DatabaseUnfit and exceptions of asyncpg and SQLAlchemy; nothing is changed then.
    """
    from alembic.util import CommandError

    for _ in range(MAX_RACES):
        found = await _read(database_url)
        if found.fault is not None:
            raise fitness.DatabaseUnfit(found.fault)
        if found.is_later or found.revision == (found.expected if revision == "head" else revision):
            return found
        try:
            await _apply(database_url, revision)
        except CommandError:
            continue  # another release has migrated meanwhile
        except Exception as failure:
            unfit = schema.explained(failure)
            if unfit is None:
                raise
            raise unfit from failure
    return await _read(database_url)


async def _read(database_url: str) -> Schema:
    connection = await connect(database_url, timeout=CONNECT_LIMIT_SECS, statement_cache_size=0)
    try:
        await fitness.read_fitness(connection)
        found = await schema.read(connection)
        if found.revision not in found.known:
            return found
        return msgspec.structs.replace(found, origin=await read_origin(connection))
    finally:
        await connection.close()


async def _apply(database_url: str, revision: str) -> None:
    from sqlalchemy import pool
    from sqlalchemy.ext.asyncio import create_async_engine

    async def session() -> asyncpg.Connection[asyncpg.Record]:
        return await connect(database_url, timeout=CONNECT_LIMIT_SECS, statement_cache_size=0)

    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=session,  # asyncpg parses the URL, because SQLAlchemy does not support all options of libpq
        poolclass=pool.NullPool,
        isolation_level="READ COMMITTED",  # each statement sees what others committed while this waited for the lock
        connect_args={"prepared_statement_cache_size": 0, "prepared_statement_name_func": _statement_name},
    )
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_upgrade, revision)
    finally:
        await engine.dispose()


async def renew_epochs(database_url: str) -> None:
    """Set a new epoch for every channel after a restore, so that clients read the logs again (`deploy/restore.sh` calls this).

    Running replicas notice this and close their streams. Raises DatabaseUnfit and asyncpg's exceptions; nothing is changed
    then.
    """
    async with _session(database_url) as connection, connection.transaction(isolation="read_committed"):
        await connection.execute(NO_TIMEOUTS)
        await connection.execute(RENEWED)
        await connection.execute(NEW_EPOCHS)


async def missing(database_url: str, *, make: bool = False) -> Missing:
    """Return what is missing in a schema with the newest step. `make` recreates its indexes and functions.

    Raises DatabaseUnfit and asyncpg's exceptions; nothing is changed then.
    """
    async with _session(database_url) as connection:
        return await (make_missing(connection, LOCK_KEY) if make else read_missing(connection))


@asynccontextmanager
async def _session(database_url: str) -> AsyncIterator[Connection]:
    """Open a session. Raises DatabaseUnfit, also instead of exceptions of asyncpg that `schema.explained` covers."""
    connection = await connect(database_url, timeout=CONNECT_LIMIT_SECS, statement_cache_size=0)
    try:
        yield connection
    except asyncpg.PostgresError as failure:
        unfit = schema.explained(failure)
        if unfit is None:
            raise
        raise unfit from failure
    finally:
        await connection.close()


def render_sql() -> str:
    """Return all steps as one SQL script, for review and for `psql` (`migrate --sql`), without a database."""
    from alembic import command

    script = io.StringIO()
    command.upgrade(config(script), "head", sql=True)
    return script.getvalue()


def expected() -> str:
    """Return the newest revision of this release."""
    return schema.steps()[0]


async def current(connection: Connection) -> str | None:
    """Return the revision of the schema, or None if no migration was applied."""
    return (await schema.read(connection)).revision


def serves(revision: str | None) -> bool:
    """Return whether this release works with a schema of that revision.

    An unknown revision is newer. By the expand-and-contract rule, replicas of the previous release continue to serve.
    """
    newest, known = schema.steps()
    return Schema(newest, known, revisions=(revision,) if revision is not None else ()).serves


def _upgrade(connection: SyncConnection, revision: str) -> None:
    from alembic import command

    made = config()
    made.attributes["connection"] = connection
    command.upgrade(made, revision)


def _statement_name() -> str:
    return f"migrate_{uuid.uuid4().hex}"
