"""Guilds, members and invites."""

from __future__ import annotations

from openguild_proto.effects.base import StorageEffect
from openguild_proto.limits import MAX_GUILDS_JOINED, MAX_GUILDS_OWNED, MAX_INVITES_PER_GUILD
from openguild_proto.records import (
    GuildAccess,
    GuildRecord,
    InviteRecord,
    LimitReached,
    MemberChange,
    MemberRecord,
    Place,
)


class InsertGuild(StorageEffect[GuildRecord | LimitReached], frozen=True):
    """The owner's membership is stored with the guild (CONTRACT A1). `limit`: guilds that they may own."""

    guild_id: str
    name: str
    owner_id: str
    now_ms: int
    limit: int = MAX_GUILDS_OWNED


class ListGuilds(StorageEffect[tuple[GuildRecord, ...]], frozen=True):
    """Guilds of the user, or all, by creation and id; `after` is the place of the last one of the page before (D-61)."""

    user_id: str | None  # None: all guilds of the server
    limit: int | None = None
    after: Place | None = None


class FindGuildAccess(StorageEffect[GuildAccess | None], frozen=True):
    """None: no such guild. Whether the user is a member stands in the record."""

    guild_id: str
    user_id: str


class RenameGuild(StorageEffect[GuildRecord | None], frozen=True):
    """The guild under its new name; None: no such guild."""

    guild_id: str
    name: str


class DeleteGuild(StorageEffect[bool], frozen=True):
    """Delete the guild with its channels, members and invites, for good. False: no such guild."""

    guild_id: str


class ListMembers(StorageEffect[tuple[MemberRecord, ...]], frozen=True):
    """By joined_at, then user id; `after` is the place of the last one of the page before."""

    guild_id: str
    limit: int | None = None
    after: Place | None = None


class FindMember(StorageEffect[MemberRecord | None], frozen=True):
    """The user's membership of the guild; None: there is none."""

    guild_id: str
    user_id: str


class SetMemberRole(StorageEffect[MemberChange], frozen=True):
    """Compare and set: CONFLICT when the member's role is no longer `expected_role`.

    With a role that may not create invites, the invites that the member created end in the same transaction.
    `limit`: guilds that they may own, this one included, where the new role is `owner`.
    """

    guild_id: str
    user_id: str
    role: str
    expected_role: str
    limit: int = MAX_GUILDS_OWNED


class RemoveMember(StorageEffect[MemberChange], frozen=True):
    """The invites that the member created end with the membership: they would let themselves in again."""

    guild_id: str
    user_id: str
    expected_role: str


class InsertInvite(StorageEffect[InviteRecord | LimitReached | None], frozen=True):
    """None: the guild is gone, or its creator's role in it is no longer `member_role`.

    `limit`: living invites of the guild. Of the spent and expired ones, which only tell why they lead nowhere (410),
    the newest `limit` are kept.
    """

    code: str
    guild_id: str
    created_by: str
    member_role: str | None  # when access was decided; None: not a member, a server role decided
    max_uses: int | None
    expires_at_ms: int | None
    now_ms: int
    limit: int = MAX_INVITES_PER_GUILD


class ListInvites(StorageEffect[tuple[InviteRecord, ...]], frozen=True):
    """By creation and code, those that lead nowhere any more too; `after` is the place of the last one of the page before."""

    guild_id: str
    limit: int | None = None
    after: Place | None = None


class FindInvite(StorageEffect[InviteRecord | None], frozen=True):
    """Used-up and expired invites are found too: the operation decides (410)."""

    code: str


class AcceptInvite(StorageEffect[MemberRecord | LimitReached | None], frozen=True):
    """Join with `role`, counting one use; a member already keeps their role and no use is counted.

    Who joins has read everything so far, in the same transaction: what was said before he came is no news to him.
    None: the invite is gone, used up or expired at `now_ms`, decided under its row's lock. `limit`: guilds that they
    may be a member of, this one included.
    """

    code: str
    user_id: str
    role: str
    now_ms: int
    limit: int = MAX_GUILDS_JOINED


class DeleteInvite(StorageEffect[bool], frozen=True):
    """Delete the invite. False: no such invite."""

    code: str
