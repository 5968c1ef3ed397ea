"""The schema's history: plain SQL, forward only, applied under an advisory lock (D-39, playbook "migrations reviewed").

All steps run in one transaction on one connection, so PgBouncer in transaction mode does no harm.
"""

from __future__ import annotations

import functools
import io
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

if TYPE_CHECKING:  # alembic and SQLAlchemy take a third of a second to import: done where they are used
    from alembic.config import Config
    from asyncpg.pool import PoolConnectionProxy
    from sqlalchemy import Connection

LOCK_KEY = 0x6F70656E6775696C  # "openguil" as a bigint: nobody else's advisory lock by accident
CONNECT_LIMIT_SECS = 10.0

# In the order in which everybody locks channels. Random for each row: nobody who restores twice can meet one again.
NEW_EPOCHS = """
UPDATE channels AS c SET epoch = 2 + trunc(random() * 9007199254740990)::bigint
FROM (SELECT channel_id FROM channels ORDER BY channel_id FOR NO KEY UPDATE) AS locked
WHERE c.channel_id = locked.channel_id
"""


async def upgrade(database_url: str, revision: str = "head") -> None:
    """Bring the schema to `revision` (the newest step, unless a test wants an older one) where it is not there yet.

    Waits for whoever is migrating now. Raises what asyncpg and SQLAlchemy raise; the transaction is then rolled back.
    """

    from sqlalchemy import pool
    from sqlalchemy.ext.asyncio import create_async_engine

    async def connect() -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(database_url, timeout=CONNECT_LIMIT_SECS, statement_cache_size=0)

    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,  # asyncpg itself reads the URL: SQLAlchemy does not know libpq's options
        poolclass=pool.NullPool,
        connect_args={"prepared_statement_cache_size": 0, "prepared_statement_name_func": _statement_name},
    )
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_upgrade, revision)
    finally:
        await engine.dispose()


async def renew_epochs(database_url: str) -> None:
    """After a restore: what clients have read of any channel is another log from now on (`deploy/restore.sh` does the same).

    Raises what asyncpg raises; nothing is changed then.
    """
    connection = await asyncpg.connect(database_url, timeout=CONNECT_LIMIT_SECS, statement_cache_size=0)
    try:
        await connection.execute(NEW_EPOCHS)
    finally:
        await connection.close()


def render_sql() -> str:
    """The whole history as one SQL script, for review and for `psql` (`migrate --sql`). No database is touched."""
    from alembic import command

    script = io.StringIO()
    command.upgrade(_config(script), "head", sql=True)
    return script.getvalue()


@functools.cache
def expected() -> str:
    """The revision this program was written for."""
    from alembic.script import ScriptDirectory

    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise LookupError("the migrations are missing from this installation")
    return head


async def current(
    connection: asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record],
) -> str | None:
    """The revision of the schema; None where no migration ever ran."""
    try:
        revision: str | None = await connection.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError:
        return None
    return revision


def serves(revision: str | None) -> bool:
    """Whether this program can work with a schema of that revision.

    One it has never heard of is newer: by the expand-and-contract rule replicas of the release before go on serving.
    """
    return revision is not None and (revision == expected() or revision not in _known())


@functools.cache
def _known() -> frozenset[str]:
    from alembic.script import ScriptDirectory

    return frozenset(step.revision for step in ScriptDirectory.from_config(_config()).walk_revisions())


def _config(output: io.StringIO | None = None) -> Config:
    from alembic.config import Config

    config = Config(output_buffer=output)
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _upgrade(connection: Connection, revision: str) -> None:
    from alembic import command

    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _statement_name() -> str:
    return f"migrate_{uuid.uuid4().hex}"
