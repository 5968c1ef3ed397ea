"""Reads the version of a database's schema, and decides whether this release works with it."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from openguild_runtime.storage.fitness import Connection, DatabaseUnfit
from openguild_runtime.storage.migrations.origin import Origin

OUTDATED = "its schema is not current: run `openguild-server migrate`"
STEPS = Path(__file__).parent / "versions"
STEP_FILE = re.compile(r"v(\d{4})_\w+\.py")
REVISION = re.compile(r"(\d{4,9})\w{0,60}")  # a step's number, perhaps with a name after it

# Only used if the search path has no table of versions.
ELSEWHERE = """
SELECT n.nspname AS schema, n.nspname = ANY (current_schemas(false)) AS on_path FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relname = 'log_events' AND c.relkind IN ('r', 'p') ORDER BY on_path DESC, n.nspname LIMIT 1
"""


class Schema(msgspec.Struct, frozen=True, gc=False):
    """The version of a database's schema, and the steps of this release to compare it with."""

    expected: str  # the newest step of this release
    known: frozenset[str]  # all of its steps
    revisions: tuple[str, ...] = ()  # rows of the table of versions; one, unless changed manually
    serves_from: str | None = None  # for a later schema: the newest step of the oldest release that works with it
    home: str | None = None  # without a version: the PostgreSQL schema that has the tables
    on_path: bool = False  # whether `home` is in the search path
    origin: Origin = Origin.THIS  # read only by `migrate`

    @property
    def revision(self) -> str | None:
        """The step of the schema, or None if no migration was applied or the step is ambiguous."""
        return self.revisions[0] if len(self.revisions) == 1 else None

    @property
    def is_later(self) -> bool:
        """Whether a later release has migrated the schema."""
        found = REVISION.fullmatch(self.revision or "")
        return found is not None and int(found[1]) > int(self.expected)

    @property
    def serves(self) -> bool:
        """Whether this release works with the schema: with its own, and with later ones that only expanded it."""
        return self.revision == self.expected or (self.is_later and (self.serves_from or "") <= self.expected)

    @property
    def fault(self) -> str | None:
        """A problem that a migration does not fix, with its remedy, or None."""
        if len(self.revisions) > 1:
            rows = ", ".join(repr(text) for text in self.revisions)
            return (
                f"alembic_version has {len(self.revisions)} rows ({rows}), so the step of the schema is unknown: "
                "delete all but the one of the newest step that was applied"
            )
        if self.revision is None:
            return self._misplaced()
        if self.is_later:
            if self.serves:
                return None
            return (
                f"the schema is of a later release ({self.revision}) that took away what this one ({self.expected}) uses: "
                f"run a release whose newest step is {self.serves_from} or later"
            )
        if self.revision not in self.known:
            return (
                f"alembic_version holds {self.revision!r}, which is no step of OpenGuild: database_url names another program's "
                f"database, or the row was changed by hand (this release's newest step is {self.expected})"
            )
        return None

    def _misplaced(self) -> str | None:
        if self.home is None:
            return None  # an empty database
        if not self.on_path:
            return (
                f"OpenGuild's tables are in the PostgreSQL schema {self.home!r}, where search_path does not lead: "
                f"ALTER ROLE ... SET search_path = {self.home}"
            )
        return (
            f"OpenGuild's tables are there, in the PostgreSQL schema {self.home!r}, but alembic_version does not say at which "
            "step they are: restore a whole backup, or insert the number of the newest step that was applied"
        )

    @property
    def problem(self) -> str | None:
        """Why this release does not work with the schema, or None if it does."""
        if self.serves:
            return None
        return self.fault or OUTDATED


async def read(connection: Connection) -> Schema:
    """Read the version of the schema. Raises asyncpg's exceptions."""
    expected, known = steps()
    found: Any = await _rows(connection, "SELECT version_num FROM alembic_version ORDER BY 1 LIMIT 5", "version_num")
    schema = Schema(expected, known, revisions=tuple(found))
    if not found:
        row = await connection.fetchrow(ELSEWHERE)
        if row is not None:
            return msgspec.structs.replace(schema, home=row["schema"], on_path=row["on_path"])
    elif schema.is_later:
        serves_from = await _rows(connection, "SELECT serves_from FROM schema_serves", "serves_from")
        return msgspec.structs.replace(schema, serves_from=max(serves_from, default=None))
    return schema


async def _rows(connection: Connection, query: str, column: str) -> list[str]:
    """Return the values of a column, or no values if the table does not exist."""
    try:
        return [row[column] for row in await connection.fetch(query)]
    except asyncpg.UndefinedTableError:
        return []


@functools.cache
def steps() -> tuple[str, frozenset[str]]:
    """Return the newest step of this release, and all steps.

    They are read from file names, because importing alembic and SQLAlchemy would slow down each start.
    """
    known = frozenset(found[1] for path in STEPS.iterdir() if (found := STEP_FILE.fullmatch(path.name)))
    if not known:
        raise LookupError("the migrations are missing from this installation")
    return max(known), known


def explained(failure: BaseException) -> DatabaseUnfit | None:
    """Return the cause of a failed migration with its remedy, or None if the failure explains itself."""
    cause: BaseException | None = failure
    while cause is not None and not isinstance(cause, asyncpg.PostgresError):
        cause = getattr(cause, "orig", None) or cause.__cause__
    if cause is None:
        return None
    said = str(cause).partition("\n")[0]
    for kind, mend in MENDS:
        if isinstance(cause, kind):
            return DatabaseUnfit(f"nothing was changed: {said}; {mend}")
    return None


MENDS: tuple[tuple[type[asyncpg.PostgresError], str], ...] = (
    (
        asyncpg.InsufficientPrivilegeError,
        "migrate as the role that owns the tables, or let this one: GRANT USAGE, CREATE ON SCHEMA public TO <role>",
    ),
    (
        asyncpg.ReadOnlySQLTransactionError,
        "it is read-only, a standby or by default_transaction_read_only: name the primary in database_url",
    ),
    (
        asyncpg.InvalidSchemaNameError,
        "create the schema that search_path names, or ALTER ROLE ... SET search_path = public",
    ),
    (
        asyncpg.DuplicateTableError,
        "an object with that name exists: database_url names another program's database, or a step was applied by hand "
        "(then insert its number into alembic_version)",
    ),
    (asyncpg.DuplicateObjectError, "a step was applied by hand: insert its number into alembic_version"),
    (asyncpg.DuplicateFunctionError, "a step was applied by hand: insert its number into alembic_version"),
    (
        asyncpg.LockNotAvailableError,
        "another session, such as a backup, has locked the table: try again when it is done",
    ),
    (
        asyncpg.QueryCanceledError,
        "a time limit of the database ended it: try again, or raise statement_timeout of this role",
    ),
    (asyncpg.DeadlockDetectedError, "try again"),
    (asyncpg.UndefinedTableError, "tables are missing that an earlier step made: restore a whole backup"),
)
