"""What a current schema lacks because somebody dropped or renamed it, and makes anew what holds no data.

An index is not made by the way, at the start of a server: that stops the writes of its table until it is built.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from openguild_runtime.storage.fitness import Connection

MADE = re.compile(r"CREATE (?:UNLOGGED |UNIQUE )?(TABLE|INDEX|FUNCTION) (\w+)(?: ON (\w+))?")
DROPPED = re.compile(r"DROP (TABLE|INDEX|FUNCTION) (?:IF EXISTS )?(\w+)")
LOCK_SECS = 5  # for those who write to the table; meanwhile others wait behind this session

PRESENT = """
SELECT CASE WHEN relkind IN ('i', 'I') THEN 'INDEX' ELSE 'TABLE' END AS kind, relname::text AS name FROM pg_catalog.pg_class
WHERE relkind IN ('r', 'p', 'i', 'I') AND relname = ANY ($1::text[]) AND pg_table_is_visible(oid)
UNION ALL
SELECT 'FUNCTION', proname::text FROM pg_catalog.pg_proc WHERE proname = ANY ($1::text[]) AND pg_function_is_visible(oid)
"""


class Missing(msgspec.Struct, frozen=True, gc=False):
    """Objects that the steps made and that are not there: names of tables, and statements of the rest by `kind name`."""

    tables: tuple[str, ...] = ()
    rest: dict[str, str] = {}


def find_missing(statements: Iterable[str], present: Iterable[tuple[str, str]]) -> Missing:
    """Return what `statements` made, and did not drop again, that is not `present`. An index of a missing table is not named."""
    made: dict[tuple[str, str], tuple[str, str | None]] = {}
    for statement in statements:
        if dropped := DROPPED.match(statement):
            made.pop((dropped[1], dropped[2]), None)
        elif found := MADE.match(statement):
            made[found[1], found[2]] = statement, found[3]
    there = frozenset(present)
    tables = tuple(name for kind, name in made if kind == "TABLE" and (kind, name) not in there)
    rest = {
        f"{kind.lower()} {name}": statement
        for (kind, name), (statement, table) in made.items()
        if kind != "TABLE" and (kind, name) not in there and table not in tables
    }
    return Missing(tables, rest)


async def read_missing(connection: Connection) -> Missing:
    """Return what the schema lacks, which has the newest step. Raises what asyncpg raises."""
    statements = _statements()
    names = [found[2] for statement in statements if (found := MADE.match(statement))]
    present = await connection.fetch(PRESENT, names)
    return find_missing(statements, [(row["kind"], row["name"]) for row in present])


async def make_missing(connection: Connection, lock_key: int) -> Missing:
    """Make the indexes and functions anew, all or none, and return what was missing. Raises what asyncpg raises."""
    async with connection.transaction(isolation="read_committed"):
        await connection.execute(f"SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '{LOCK_SECS}s'")
        await connection.execute(f"SELECT pg_advisory_xact_lock({lock_key})")
        missing = await read_missing(connection)
        for statement in missing.rest.values():
            await connection.execute(statement)
    return missing


def _statements() -> list[str]:
    from openguild_runtime.storage.migrations.versions import v0001_first_schema  # alembic is slow to import

    return list(v0001_first_schema.statements())  # and those of later steps, when there are
