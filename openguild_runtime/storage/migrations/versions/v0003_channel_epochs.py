"""Each channel's log has an epoch (PROTOCOL 7.2). Expands only: the release before does not look at it.

Channels that are there get a random one: a backup of the release before that is migrated again is another log each time.
PostgreSQL keeps a constant default beside the table, so no row is written. New channels begin with 1: their ids are new.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# Without it a long reader of the table, such as a backup, would delay this step and every post behind it.
LOCK_TIMEOUT = "SET LOCAL lock_timeout = '3s'"

ADD = """
DO $do$ BEGIN
    EXECUTE 'ALTER TABLE channels ADD COLUMN epoch bigint NOT NULL DEFAULT '
        || (2 + trunc(random() * 9007199254740990)::bigint);
END $do$
"""
DEFAULT = "ALTER TABLE channels ALTER COLUMN epoch SET DEFAULT 1"
COMMENT = """
COMMENT ON COLUMN channels.epoch IS 'which log the sequences count in: 1 to 2^53 - 1, another one after each restore'
"""


def upgrade() -> None:
    for statement in (LOCK_TIMEOUT, ADD, DEFAULT, COMMENT):
        op.execute(statement.strip())
