"""Decisions on the bans of a guild, which both stores call in the transaction of the change (PROTOCOL 5.5)."""

from __future__ import annotations

from openguild_proto.mirror_records import GuildBan
from openguild_proto.policy.count_limits import check_count
from openguild_proto.policy.permissions import require_ban
from openguild_proto.records import LimitReached
from openguild_proto.settings.sections import MAX_GUILD_BANS


def decide_ban(
    ban: GuildBan, known: GuildBan | None, *, author_role: str, held: str | None, bans: int, limit: int
) -> GuildBan | LimitReached:
    """Return the ban that is in force afterwards: an existing one (`known`), or `ban`. Raises Refusal 403.

    `held`: the user's role in the guild; None for a non-member. `bans`: the number of the guild's bans, at most `limit`.
    """
    require_ban(author_role, held, own=ban.user_id == ban.banned_by)
    if known is not None:
        return known
    return check_count(bans, limit) or ban


def may_mirror_ban(bans: int) -> bool:
    """Return whether a mirror with this number of bans accepts one more. An honest owner never exceeds the limit."""
    return check_count(bans, MAX_GUILD_BANS) is None
