"""Effects on guilds, members and invites. Each change is an event in the guild's log and in the logs of the users concerned.

`reason`: given by the author; it is in the event (PROTOCOL 6.9). `once`: a repeat returns the result of the first request.
"""

from __future__ import annotations

from openguild_proto.effects.base import StorageEffect
from openguild_proto.policy.repeats import IdempotencyKey
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
    """Create a guild with the author as its owner. `limit`: guilds that they may own."""

    author: Author
    guild_id: str
    name: str
    now_ms: int
    limit: int = GuildSettings.max_owned_per_user
    once: IdempotencyKey | None = None


class ListGuilds(StorageEffect[tuple[GuildRecord, ...]], frozen=True):
    """List the guilds of a user, or all guilds, by creation and id (PROTOCOL 3.5).

    `after`: the cursor of the last entry of the previous page.
    """

    divides_by = "user"
    turns_of = "user_id"

    user_id: str | None  # None: all guilds of the server
    limit: int | None = None
    after: PageCursor | None = None


class FindGuildAccess(StorageEffect[GuildAccess | None], frozen=True):
    """Find a guild with the user's roles. None: no such guild."""

    divides_by = "log"
    turns_of = "user_id"

    guild_id: str
    user_id: str


class RenameGuild(StorageEffect[GuildRecord], frozen=True):
    """Rename the guild, and return it."""

    author: Author
    guild_id: str
    name: str
    now_ms: int
    reason: str | None = None


class DeleteGuild(StorageEffect[None], frozen=True):
    """Delete the guild with its channels, members and invites."""

    author: Author
    guild_id: str


class ListMembers(StorageEffect[tuple[MemberRecord, ...]], frozen=True):
    """List the members of a guild, by join time and user id. `after`: the cursor of the last entry of the previous page."""

    turns_of = "reader_id"

    guild_id: str
    limit: int | None = None
    after: PageCursor | None = None
    reader_id: str | None = None


class FindMember(StorageEffect[MemberRecord | None], frozen=True):
    """Find the user's membership of the guild. None: not a member."""

    turns_of = "reader_id"

    guild_id: str
    user_id: str
    reader_id: str | None = None


class SetMemberRole(StorageEffect[MemberChange], frozen=True):
    """Change a member's role.

    A demotion also ends the member's higher roles in channels of the guild and, if the new role lacks CREATE_INVITES, their
    invites. `limit`: for the role `owner`, the number of guilds that they may own, including this one.
    """

    author: Author
    guild_id: str
    user_id: str
    role: str
    now_ms: int
    reason: str | None = None
    limit: int = GuildSettings.max_owned_per_user


class RemoveMember(StorageEffect[MemberChange], frozen=True):
    """Remove a member. Members may remove themselves without a permission.

    Also ends their roles in the guild's channels, and the invites that they created, with which they could rejoin.
    """

    author: Author
    guild_id: str
    user_id: str
    now_ms: int
    reason: str | None = None


class InsertInvite(StorageEffect[InviteRecord | LimitReached], frozen=True):
    """Create an invite. `limit`: valid invites of the guild.

    Used-up and expired invites are kept for the response 410, at most the newest `limit`.
    """

    author: Author
    code: str
    guild_id: str
    max_uses: int | None
    expires_at_ms: int | None
    now_ms: int
    limit: int = GuildSettings.max_invites_per_guild
    once: IdempotencyKey | None = None


class ListInvites(StorageEffect[tuple[InviteRecord, ...]], frozen=True):
    """List the invites of a guild, valid or not, by creation and code.

    `after`: the cursor of the last entry of the previous page.
    """

    turns_of = "reader_id"

    guild_id: str
    limit: int | None = None
    after: PageCursor | None = None
    reader_id: str | None = None


class FindInvite(StorageEffect[InviteRecord | None], frozen=True):
    """Find an invite, even if used up or expired: the operation responds with 410. None: no such invite."""

    turns_of = "reader_id"

    code: str
    counted: int = 0  # count members of its guild up to this number, for `member_count`
    reader_id: str | None = None


class AcceptInvite(StorageEffect[MemberRecord | LimitReached | None], frozen=True):
    """Join with `role` and count one use. An existing member keeps their role, and no use is counted.

    All existing messages count as read. None: the invite is deleted, used up or expired at `now_ms`, checked with its row
    locked. Raises Refusal 403 for a banned user. `limit`: guilds that the user may be a member of, including this one.
    """

    author: Author
    code: str
    role: str
    now_ms: int
    limit: int = GuildSettings.max_joined_per_user
    once: IdempotencyKey | None = None


class DeleteInvite(StorageEffect[None], frozen=True):
    """Delete an invite. Its creator may, and members with MANAGE_MEMBERS."""

    author: Author
    code: str
    now_ms: int
    reason: str | None = None
