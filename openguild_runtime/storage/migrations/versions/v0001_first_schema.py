"""The first schema: accounts, sessions, guilds, channels, logs with messages, read positions, the control log."""

from alembic import op

from openguild_runtime.storage.migrations.first import (
    LOOKUPS,
    access,
    appends,
    changes,
    federation,
    handovers,
    logs,
    mentions,
    mirrors,
    reading,
    search,
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
    search.TABLES,
    tables.CONTROL,
    tables.HISTORY,
    tables.ATTEMPTS,
    tables.KEYS,
    federation.PEERS,
    mirrors.OWNER,
    mirrors.MIRROR,
    handovers.HANDOVERS,
)
FUNCTIONS = (
    appends.APPEND,
    changes.JUDGE,
    changes.CHANGE,
    changes.WRITE,
    access.ACCESS,
    access.SEEN,
    reading.EVENTS,
    reading.MESSAGE_PAGE,
    reading.MESSAGES,
    reading.MARK_READ,
    search.HOLD,
    search.CLAIM,
    search.INDEX,
    search.FOLLOW,
    search.SCOPE,
    search.SCAN,
    search.PINS,
    search.SEARCH,
)


def upgrade() -> None:
    for part in TABLES:
        for statement in part.split(";\n"):
            if statement.strip():
                op.execute(statement.strip())
    op.execute(tables.COUNT.strip())
    for function in FUNCTIONS:
        op.execute(f"{function.strip()} {LOOKUPS}")
    op.execute(f"{search.FIND.strip()} {search.FIND_SETTINGS}")
