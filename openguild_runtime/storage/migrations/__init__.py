"""The schema's history: plain SQL, forward only, applied under an advisory lock (PROTOCOL 11.6).

All steps run in one transaction on one connection, so PgBouncer in transaction mode does no harm.
"""

from __future__ import annotations

import io
import uuid
from typing import TYPE_CHECKING

import asyncpg

from openguild_runtime.storage import fitness
from openguild_runtime.storage.fitness import Connection
from openguild_runtime.storage.migrations import schema
from openguild_runtime.storage.migrations.schema import Schema
from openguild_runtime.storage.migrations.script import config

if TYPE_CHECKING:  # alembic and SQLAlchemy take a third of a second to import: done where they are used
    from sqlalchemy import Connection as SyncConnection

__all__ = ["Schema", "current", "expected", "render_sql", "renew_epochs", "serves", "upgrade"]

LOCK_KEY = 0x6F70656E6775696C  # "openguil" as a bigint: nobody else's advisory lock by accident
CONNECT_LIMIT_SECS = 10.0
MAX_RACES = 3  # with later releases that migrate at the same time

# In the order in which everybody locks logs. Random for each row: nobody who restores twice can meet one again.
NEW_EPOCHS = """
UPDATE logs AS l SET epoch = 2 + trunc(random() * 9007199254740990)::bigint
FROM (SELECT log_id FROM logs ORDER BY log_id FOR NO KEY UPDATE) AS locked
WHERE l.log_id = locked.log_id
"""
RENEWED = "UPDATE log_history SET renewals = renewals + 1, lineage = NULL"  # the next replica records what it finds


async def upgrade(database_url: str, revision: str = "head") -> Schema:
    """Bring the schema to `revision` (the newest step, unless a test wants an older one) where it is not there yet.

    Returns the schema as it is then. One of a later release that serves this one is left as it is: that is a rollback.
    Waits for whoever is migrating now. Raises DatabaseUnfit, and what asyncpg and SQLAlchemy raise; nothing is changed then.
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
            continue  # a later release has migrated meanwhile
        except Exception as failure:
            unfit = schema.explained(failure)
            if unfit is None:
                raise
            raise unfit from failure
    return await _read(database_url)


async def _read(database_url: str) -> Schema:
    connection = await asyncpg.connect(database_url, timeout=CONNECT_LIMIT_SECS, statement_cache_size=0)
    try:
        await fitness.look(connection)
        return await schema.read(connection)
    finally:
        await connection.close()


async def _apply(database_url: str, revision: str) -> None:
    from sqlalchemy import pool
    from sqlalchemy.ext.asyncio import create_async_engine

    async def connect() -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(database_url, timeout=CONNECT_LIMIT_SECS, statement_cache_size=0)

    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,  # asyncpg itself reads the URL: SQLAlchemy does not know libpq's options
        poolclass=pool.NullPool,
        isolation_level="READ COMMITTED",  # each statement sees what others committed while this one waited for the lock
        connect_args={"prepared_statement_cache_size": 0, "prepared_statement_name_func": _statement_name},
    )
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_upgrade, revision)
    finally:
        await engine.dispose()


async def renew_epochs(database_url: str) -> None:
    """After a restore: what clients have read of any channel is another log from now on (`deploy/restore.sh` does the same).

    Replicas that run hear of it and end their streams. Raises DatabaseUnfit and what asyncpg raises; nothing is changed then.
    """
    connection = await asyncpg.connect(database_url, timeout=CONNECT_LIMIT_SECS, statement_cache_size=0)
    try:
        async with connection.transaction(isolation="read_committed"):
            await connection.execute("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0")
            await connection.execute(RENEWED)
            await connection.execute(NEW_EPOCHS)
    except asyncpg.PostgresError as failure:
        unfit = schema.explained(failure)
        if unfit is None:
            raise
        raise unfit from failure
    finally:
        await connection.close()


def render_sql() -> str:
    """The whole history as one SQL script, for review and for `psql` (`migrate --sql`). No database is touched."""
    from alembic import command

    script = io.StringIO()
    command.upgrade(config(script), "head", sql=True)
    return script.getvalue()


def expected() -> str:
    """The revision this program was written for."""
    return schema.steps()[0]


async def current(connection: Connection) -> str | None:
    """The revision of the schema; None where no migration ever ran."""
    return (await schema.read(connection)).revision


def serves(revision: str | None) -> bool:
    """Whether this program can work with a schema of that revision.

    One it has never heard of is newer: by the expand-and-contract rule replicas of the release before go on serving.
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
