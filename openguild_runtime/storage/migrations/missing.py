"""Finds parts of a current schema that were dropped or renamed, and recreates those that hold no data.

Servers do not recreate indexes when they start, because that blocks writes to the table until the index is built.
"""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Iterable

import msgspec

from openguild_runtime.storage.fitness import Connection
from openguild_runtime.storage.migrations.schema import STEP_FILE, STEPS
from openguild_runtime.storage.migrations.timeouts import NO_TIMEOUTS

MADE = re.compile(r"CREATE (?:UNLOGGED |UNIQUE )?(TABLE|INDEX|FUNCTION) (\w+)(?: ON (\w+))?")
DROPPED = re.compile(r"DROP (TABLE|INDEX|FUNCTION) (?:IF EXISTS )?(\w+)")
LOCK_SECS = 5  # wait for writers of the table; new writers wait meanwhile

PRESENT = """
SELECT CASE WHEN relkind IN ('i', 'I') THEN 'INDEX' ELSE 'TABLE' END AS kind, relname::text AS name FROM pg_catalog.pg_class
WHERE relkind IN ('r', 'p', 'i', 'I') AND relname = ANY ($1::text[]) AND pg_table_is_visible(oid)
UNION ALL
SELECT 'FUNCTION', proname::text FROM pg_catalog.pg_proc WHERE proname = ANY ($1::text[]) AND pg_function_is_visible(oid)
"""

# Indexes left by a failed concurrent build, or being built: no query uses them, but every write maintains them.
INVALID = """
SELECT i.indexrelid::regclass::text AS name FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS t ON t.oid = i.indrelid
WHERE NOT i.indisvalid AND t.relname = ANY ($1::text[]) AND pg_table_is_visible(t.oid) ORDER BY 1
"""

CONSTRAINTS = {"p": "PRIMARY KEY", "u": "UNIQUE", "f": "REFERENCES", "c": "CHECK"}
HELD = """
SELECT t.relname::text AS table, c.contype::text AS kind, count(*) AS held FROM pg_catalog.pg_constraint AS c
JOIN pg_catalog.pg_class AS t ON t.oid = c.conrelid
WHERE t.relname = ANY ($1::text[]) AND pg_table_is_visible(t.oid) AND c.conparentid = 0 AND c.contype::text = ANY ($2::text[])
GROUP BY 1, 2
"""


class Missing(msgspec.Struct, frozen=True, gc=False):
    """Objects of the steps that do not exist: names of tables, and the statements of indexes and functions by `kind name`.

    `constraints` are listed as `kind of table`, `invalid` are the names of invalid indexes.
    """

    tables: tuple[str, ...] = ()
    rest: dict[str, str] = {}
    constraints: tuple[str, ...] = ()
    invalid: tuple[str, ...] = ()


def find_missing(statements: Iterable[str], present: Iterable[tuple[str, str]]) -> Missing:
    """Return the objects that `statements` create and do not drop, and that are not `present`. Omits indexes of missing tables."""
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


def find_constraints(statements: Iterable[str], held: Counter[tuple[str, str]]) -> tuple[str, ...]:
    """Return the constraints that the tables of `statements` lack. `held` counts those of each table and kind."""
    made = [(found[2], text) for text in statements if (found := MADE.match(text)) and found[1] == "TABLE"]
    return tuple(
        f"{keyword} of {table}"
        for table, text in made
        for kind, keyword in CONSTRAINTS.items()
        if len(re.findall(rf"\b{keyword}\b", text)) > held[table, kind]
    )


async def read_missing(connection: Connection) -> Missing:
    """Return what is missing in a schema with the newest step. Raises asyncpg's exceptions."""
    statements = _statements()
    names = [found[2] for statement in statements if (found := MADE.match(statement))]
    invalid = tuple(row["name"] for row in await connection.fetch(INVALID, names))
    present = [
        (row["kind"], row["name"]) for row in await connection.fetch(PRESENT, names) if row["name"] not in invalid
    ]
    missing = find_missing(statements, present)
    rows = await connection.fetch(HELD, names, list(CONSTRAINTS))
    held = Counter({(row["table"], row["kind"]): row["held"] for row in rows})
    there = [text for text in statements if (found := MADE.match(text)) and found[2] not in missing.tables]
    return msgspec.structs.replace(missing, invalid=invalid, constraints=find_constraints(there, held))


async def make_missing(connection: Connection, lock_key: int) -> Missing:
    """Drop invalid indexes and recreate missing indexes and functions, in one transaction. Return what was missing.

    Raises asyncpg's exceptions.
    """
    async with connection.transaction(isolation="read_committed"):
        await connection.execute(NO_TIMEOUTS)
        await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_SECS}s'")
        await connection.execute(f"SELECT pg_advisory_xact_lock({lock_key})")
        missing = await read_missing(connection)
        for index in missing.invalid:
            await connection.execute(f"DROP INDEX {index}")  # regclass has quoted it if necessary
        for statement in missing.rest.values():
            await connection.execute(statement)
    return missing


def _statements() -> list[str]:
    """Return the statements of all steps, in order. The steps are imported on use, because alembic is slow to import."""
    names = sorted(path.stem for path in STEPS.iterdir() if STEP_FILE.fullmatch(path.name))
    steps = [importlib.import_module(f"{__package__}.versions.{name}") for name in names]
    return [statement for step in steps for statement in step.statements()]
