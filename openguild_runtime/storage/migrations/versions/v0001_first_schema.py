"""The first schema: accounts, sessions, guilds, channels, logs with messages, read positions, the control log."""

from alembic import op

from openguild_runtime.storage.migrations.first import (
    LOOKUPS,
    access,
    appends,
    changes,
    logs,
    mentions,
    reading,
    tables,
)

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = (
    tables.ACCOUNTS,
    tables.GUILDS,
    logs.CHANNELS,
    logs.LOGS,
    logs.EVENT_PARTITIONS,
    logs.STATES,
    mentions.MENTIONS,
    tables.CONTROL,
    tables.HISTORY,
    tables.ATTEMPTS,
)
FUNCTIONS = (
    appends.APPEND,
    changes.JUDGE,
    changes.CHANGE,
    changes.WRITE,
    access.ACCESS,
    access.CHANGE_ACCESS,
    reading.EVENTS,
    reading.MESSAGE_PAGE,
    reading.MESSAGES,
    reading.MARK_READ,
)


def upgrade() -> None:
    for part in TABLES:
        for statement in part.split(";\n"):
            if statement.strip():
                op.execute(statement.strip())
    op.execute(tables.COUNT.strip())
    for function in FUNCTIONS:
        op.execute(f"{function.strip()} {LOOKUPS}")
