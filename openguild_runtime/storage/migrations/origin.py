"""Tells whether a database was created with this release's first step, which was edited before 0.1.0 without a new number.

The first step stores its fingerprint as the comment of the table of versions, which backups keep.
"""

from __future__ import annotations

import re
from enum import Enum

from openguild_runtime.storage.fitness import Connection
from openguild_runtime.storage.migrations.fingerprint import fingerprint

READ = "SELECT obj_description(to_regclass('alembic_version'), 'pg_class')"
COMMENT = re.compile(r"first step ([0-9a-f]{16})")
ADVICE = "no upgrade is promised before 0.1.0 (docs/operations.md, Migrations)"


class Origin(Enum):
    """The first step with which a database was created. The value is a text for the operator."""

    THIS = ""
    ANOTHER = f"the schema was made by a development version with another first step: create a new database; {ADVICE}"
    UNKNOWN = f"the schema does not tell which version made it; if one before this, create a new database: {ADVICE}"


async def read_origin(connection: Connection) -> Origin:
    """Return the first step with which a migrated database was created. Raises asyncpg's exceptions."""
    from openguild_runtime.storage.migrations.versions import v0001_first_schema  # alembic is slow to import

    found = COMMENT.fullmatch(await connection.fetchval(READ) or "")
    if found is None:
        return Origin.UNKNOWN
    return Origin.THIS if found[1] == fingerprint(v0001_first_schema.statements()) else Origin.ANOTHER
