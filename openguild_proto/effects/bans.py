"""Effects on the bans of a guild (PROTOCOL 5.5). Each change is an event in the guild's log.

`reason`: given by the author; it is in the event (PROTOCOL 6.9).
"""

from __future__ import annotations

from openguild_proto.effects.base import StorageEffect
from openguild_proto.mirror_records import GuildBan
from openguild_proto.records import Author, LimitReached, PageCursor
from openguild_proto.settings.sections import GuildSettings


class BanUser(StorageEffect[GuildBan | LimitReached], frozen=True):
    """Ban a user from a guild of this server. Removes members as RemoveMember does.

    Returns the ban, unchanged if the user was already banned. The user may be unknown here. `limit`: bans of the guild.
    """

    author: Author
    guild_id: str
    user_id: str
    now_ms: int
    reason: str | None = None
    limit: int = GuildSettings.max_bans_per_guild


class UnbanUser(StorageEffect[bool], frozen=True):
    """End a ban. False: no such ban."""

    author: Author
    guild_id: str
    user_id: str
    now_ms: int
    reason: str | None = None


class FindBan(StorageEffect[GuildBan | None], frozen=True):
    """Find the ban of a user. None: not banned."""

    turns_of = "reader_id"

    guild_id: str
    user_id: str
    reader_id: str | None = None


class ListBans(StorageEffect[tuple[GuildBan, ...]], frozen=True):
    """List the bans of a guild, by time and user id. `after`: the cursor of the last entry of the previous page."""

    turns_of = "reader_id"

    guild_id: str
    limit: int | None = None
    after: PageCursor | None = None
    reader_id: str | None = None
