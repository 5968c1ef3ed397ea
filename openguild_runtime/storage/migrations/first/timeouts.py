"""The table of time-outs, and what a role counts as meanwhile."""

from openguild_proto.policy.permissions import RANKS
from openguild_proto.policy.timeouts import TIMED_OUT_ROLE

TIMEOUTS = """
CREATE TABLE guild_timeouts (
    guild_id uuid NOT NULL REFERENCES guilds ON DELETE CASCADE,
    user_id  uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    ends_at  timestamptz NOT NULL,
    PRIMARY KEY (guild_id, user_id)
);
COMMENT ON TABLE guild_timeouts IS 'users whose roles in a guild count as viewer at most until then; they need not be members';
CREATE INDEX guild_timeouts_user ON guild_timeouts (user_id);
"""

_LOWER = ", ".join(f"'{role}'" for role, rank in RANKS.items() if rank <= RANKS[TIMED_OUT_ROLE])


def role_now(role: str, *, guild: str, user: str) -> str:
    """Return SQL for what the column `role` of a membership counts as at this moment."""
    timed_out = (
        f"SELECT FROM guild_timeouts AS t WHERE t.guild_id = {guild} AND t.user_id = {user} AND t.ends_at > now()"
    )
    return f"CASE WHEN {role} NOT IN ({_LOWER}) AND EXISTS ({timed_out}) THEN '{TIMED_OUT_ROLE}' ELSE {role} END"
