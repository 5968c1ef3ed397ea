"""What successors of refresh tokens are derived from. Expands only: the release before does not look.

A table of its own: a new column would break the prepared `SELECT *` of that release's replicas while they serve.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE refresh_secrets (
    family_id uuid PRIMARY KEY REFERENCES refresh_families ON DELETE CASCADE,
    secret    bytea NOT NULL
);
COMMENT ON TABLE refresh_secrets IS 'one for each family opened from 0004 on; without the token it is worth nothing';
"""


def upgrade() -> None:
    for statement in TABLE.split(";\n"):
        if statement.strip():
            op.execute(statement.strip())
