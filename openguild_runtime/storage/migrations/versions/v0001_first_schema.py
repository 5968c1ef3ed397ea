"""The first schema: accounts, sessions, guilds, channels, logs with messages, read positions, the control log."""

from collections.abc import Iterator

from alembic import op

from openguild_runtime.storage.migrations.fingerprint import leave_fingerprint
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
    timeouts,
)

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = (
    tables.ACCOUNTS,
    tables.GUILDS,
    timeouts.TIMEOUTS,
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


def statements() -> Iterator[str]:
    for part in TABLES:
        yield from (statement.strip() for statement in part.split(";\n") if statement.strip())
    yield tables.COUNT.strip()
    for function in FUNCTIONS:
        yield f"{function.strip()} {LOOKUPS}"
    yield f"{search.FIND.strip()} {search.FIND_SETTINGS}"


def upgrade() -> None:
    for statement in statements():
        op.execute(statement)
    op.execute(leave_fingerprint(statements()))
