"""The table of time-outs, and SQL for roles that respects them."""

from collections.abc import Iterable

from openguild_proto.policy.timeouts import CHANNEL_ROLES_KEPT, GUILD_ROLES_KEPT, TIMED_OUT_ROLE

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


def guild_role_now(role: str, *, guild: str, user: str) -> str:
    """Return SQL for the effective role of a membership: `role` of guild_memberships, or a lower one during a time-out."""
    return _role_now(role, GUILD_ROLES_KEPT, guild, user)


def channel_role_now(role: str, *, guild: str, user: str) -> str:
    """Return SQL for the effective role of a membership: `role` of channel_memberships, or a lower one during a time-out."""
    return _role_now(role, CHANNEL_ROLES_KEPT, guild, user)


def _role_now(role: str, kept: Iterable[str], guild: str, user: str) -> str:
    labels = ", ".join(f"'{label}'" for label in kept)
    timed_out = (
        f"SELECT FROM guild_timeouts AS t WHERE t.guild_id = {guild} AND t.user_id = {user} AND t.ends_at > now()"
    )
    return f"CASE WHEN {role} NOT IN ({labels}) AND EXISTS ({timed_out}) THEN '{TIMED_OUT_ROLE}' ELSE {role} END"
