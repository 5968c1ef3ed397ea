"""Guilds, members and invites."""

from __future__ import annotations

from openguild_proto.effects.base import StorageEffect
from openguild_proto.records import (
    Author,
    GuildAccess,
    GuildRecord,
    InviteRecord,
    LimitReached,
    MemberChange,
    MemberRecord,
    PageCursor,
)
from openguild_proto.settings.sections import GuildSettings


class InsertGuild(StorageEffect[GuildRecord | LimitReached], frozen=True):
    """The author's membership as its owner is stored with the guild. `limit`: guilds that they may own."""

    author: Author
    guild_id: str
    name: str
    now_ms: int
    limit: int = GuildSettings.max_owned_per_user


class ListGuilds(StorageEffect[tuple[GuildRecord, ...]], frozen=True):
    """Guilds of the user, or all, by creation and id; `after` is the place of the last one of the page before (PROTOCOL 3.5)."""

    user_id: str | None  # None: all guilds of the server
    limit: int | None = None
    after: PageCursor | None = None


class FindGuildAccess(StorageEffect[GuildAccess | None], frozen=True):
    """None: no such guild. Whether the user is a member stands in the record."""

    guild_id: str
    user_id: str


class RenameGuild(StorageEffect[GuildRecord], frozen=True):
    """The guild under its new name."""

    author: Author
    guild_id: str
    name: str


class DeleteGuild(StorageEffect[None], frozen=True):
    """Delete the guild with its channels, members and invites, for good."""

    author: Author
    guild_id: str


class ListMembers(StorageEffect[tuple[MemberRecord, ...]], frozen=True):
    """By joined_at, then user id; `after` is the place of the last one of the page before."""

    guild_id: str
    limit: int | None = None
    after: PageCursor | None = None


class FindMember(StorageEffect[MemberRecord | None], frozen=True):
    """The user's membership of the guild; None: there is none."""

    guild_id: str
    user_id: str


class SetMemberRole(StorageEffect[MemberChange], frozen=True):
    """A demotion takes along what rested on the old role: roles in channels of the guild that are above the new one,
    and, with a role that may not create invites, the invites that the member created.

    `limit`: guilds that they may own, this one included, where the new role is `owner`.
    """

    author: Author
    guild_id: str
    user_id: str
    role: str
    limit: int = GuildSettings.max_owned_per_user


class RemoveMember(StorageEffect[MemberChange], frozen=True):
    """Somebody else, or the author themselves, who needs no permission for it. Their roles in the guild's channels end,
    and the invites that they created: they would let themselves in again."""

    author: Author
    guild_id: str
    user_id: str


class InsertInvite(StorageEffect[InviteRecord | LimitReached], frozen=True):
    """`limit`: living invites of the guild. Of the spent and expired ones, which only tell why they lead nowhere (410),
    the newest `limit` are kept.
    """

    author: Author
    code: str
    guild_id: str
    max_uses: int | None
    expires_at_ms: int | None
    now_ms: int
    limit: int = GuildSettings.max_invites_per_guild


class ListInvites(StorageEffect[tuple[InviteRecord, ...]], frozen=True):
    """By creation and code, those that lead nowhere any more too; `after` is the place of the last one of the page before."""

    guild_id: str
    limit: int | None = None
    after: PageCursor | None = None


class FindInvite(StorageEffect[InviteRecord | None], frozen=True):
    """Used-up and expired invites are found too: the operation decides (410)."""

    code: str


class AcceptInvite(StorageEffect[MemberRecord | LimitReached | None], frozen=True):
    """Join with `role`, counting one use; a member already keeps their role and no use is counted.

    Who joins has read everything so far, in the same transaction: what was said before is no news to them.
    None: the invite is gone, used up or expired at `now_ms`, decided under its row's lock. `limit`: guilds that they
    may be a member of, this one included.
    """

    author: Author
    code: str
    role: str
    now_ms: int
    limit: int = GuildSettings.max_joined_per_user


class DeleteInvite(StorageEffect[None], frozen=True):
    """Delete the invite: by its creator, or a member who manages members."""

    author: Author
    code: str
