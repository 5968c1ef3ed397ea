"""What an operation may ask of the outside: one frozen Struct per effect, its result type in the class header.

An operation is a generator: `stored = yield from AppendEvent(...)` is typed, because `Effect[T].__iter__` returns T.
Whoever drives the operation performs the yielded effect and sends the result back, or throws one of the
two exceptions below. Storage effects are atomic: all of it is stored, or none.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec

from openguild_proto.records import (
    ChannelAccess,
    ChannelRecord,
    DeviceRecord,
    GuildAccess,
    GuildRecord,
    InviteRecord,
    MemberChange,
    MemberRecord,
    ReadState,
    ReusedRefresh,
    RotatedRefresh,
    SessionRecord,
    StoredEvent,
    UserProfile,
    UserRecord,
)

T = TypeVar("T")


class StorageUnavailable(Exception):
    """Thrown into an operation whose effect could not reach the store; its fate may be unknown. Answered with 503."""


class Overloaded(Exception):
    """Thrown into an operation whose effect was refused at a full queue; nothing was done. Answered with 503."""


class Effect(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """Base of every effect; `T` is the type of its result."""

    def __iter__(self) -> Generator[Effect[Any], Any, T]:
        result: T = yield self
        return result


Operation: TypeAlias = Generator[Effect[Any], Any, T]
"""An operation that ends with a T."""


class StorageEffect(Effect[T], Generic[T], frozen=True):
    """Performed by the store (storage/postgres.py, storage/memory.py)."""


# --- users ---------------------------------------------------------------------------------------


class InsertUser(StorageEffect[bool], frozen=True):
    """False: the name is taken. `username_key` is the case-folded NFKC name, unique."""

    user_id: str
    username: str
    username_key: str
    password_hash: str
    now_ms: int


class FindUserByName(StorageEffect[UserRecord | None], frozen=True):
    username_key: str


class DescribeUser(StorageEffect[UserProfile | None], frozen=True):
    user_id: str


# --- sessions ------------------------------------------------------------------------------------


class OpenSession(StorageEffect[None], frozen=True):
    """A login: a new family for (user, device); the device's former family is revoked in the same transaction."""

    session_id: str
    family_id: str
    user_id: str
    refresh_hash: bytes  # 32 bytes; the token itself is never stored (D-25)
    device_id: str
    device_name: str | None
    user_agent: str | None
    ip_address: str | None
    now_ms: int
    access_expires_ms: int
    refresh_expires_ms: int


class FindSession(StorageEffect[SessionRecord | None], frozen=True):
    session_id: str


class RotateRefresh(StorageEffect[RotatedRefresh | ReusedRefresh | None], frozen=True):
    """Exchange a refresh token for a new one, atomically (D-26).

    The current token of a family rotates. The token before it is accepted once more within `grace_ms` of its
    rotation (a lost answer). Any other known token revokes its family (D-27). None: unknown, revoked or expired.
    """

    refresh_hash: bytes
    new_refresh_hash: bytes
    new_session_id: str
    now_ms: int
    grace_ms: int
    access_expires_ms: int
    refresh_expires_ms: int


class RevokeRefresh(StorageEffect[bool], frozen=True):
    """End the family that owns this token. False: there is none alive."""

    refresh_hash: bytes
    now_ms: int


class ListDevices(StorageEffect[tuple[DeviceRecord, ...]], frozen=True):
    """The user's devices with a living family, latest seen first."""

    user_id: str
    now_ms: int


class RevokeDevice(StorageEffect[bool], frozen=True):
    user_id: str
    device_id: str
    now_ms: int


# --- guilds, members, invites ----------------------------------------------------------------------


class InsertGuild(StorageEffect[GuildRecord], frozen=True):
    """The owner's membership is stored with the guild (CONTRACT A1)."""

    guild_id: str
    name: str
    owner_id: str
    now_ms: int


class ListGuilds(StorageEffect[tuple[GuildRecord, ...]], frozen=True):
    """Guilds of the user, or all, oldest first; `after` is the guild id of the last one of the page before (D-61)."""

    user_id: str | None  # None: all guilds of the server
    limit: int | None = None
    after: str | None = None


class FindGuildAccess(StorageEffect[GuildAccess | None], frozen=True):
    """None: no such guild. Whether the user is a member stands in the record."""

    guild_id: str
    user_id: str


class RenameGuild(StorageEffect[GuildRecord | None], frozen=True):
    guild_id: str
    name: str


class DeleteGuild(StorageEffect[bool], frozen=True):
    guild_id: str


class ListMembers(StorageEffect[tuple[MemberRecord, ...]], frozen=True):
    """By joined_at, then user id; `after` is the user id of the last one of the page before."""

    guild_id: str
    limit: int | None = None
    after: str | None = None


class FindMember(StorageEffect[MemberRecord | None], frozen=True):
    guild_id: str
    user_id: str


class SetMemberRole(StorageEffect[MemberChange], frozen=True):
    """Compare and set: CONFLICT when the member's role is no longer `expected_role`."""

    guild_id: str
    user_id: str
    role: str
    expected_role: str


class RemoveMember(StorageEffect[MemberChange], frozen=True):
    guild_id: str
    user_id: str
    expected_role: str


class InsertInvite(StorageEffect[InviteRecord | None], frozen=True):
    """None: the guild is gone."""

    code: str
    guild_id: str
    created_by: str
    max_uses: int | None
    expires_at_ms: int | None
    now_ms: int


class FindInvite(StorageEffect[InviteRecord | None], frozen=True):
    """Used-up and expired invites are found too: the operation decides (410)."""

    code: str


class AcceptInvite(StorageEffect[MemberRecord | None], frozen=True):
    """Join with `role`, counting one use; a member already keeps his role and no use is counted.

    None: the invite is gone, used up or expired at `now_ms`, decided under its row's lock.
    """

    code: str
    user_id: str
    role: str
    now_ms: int


class DeleteInvite(StorageEffect[bool], frozen=True):
    code: str


# --- channels --------------------------------------------------------------------------------------


class InsertChannel(StorageEffect[ChannelRecord | None], frozen=True):
    """None: the guild is gone. The creator gets the channel role `moderator` (CONTRACT 6)."""

    channel_id: str
    guild_id: str
    name: str
    created_by: str
    now_ms: int


class ListChannels(StorageEffect[tuple[ChannelRecord, ...]], frozen=True):
    """Oldest first; `after` is the channel id of the last one of the page before."""

    guild_id: str
    limit: int | None = None
    after: str | None = None


class FindChannelAccess(StorageEffect[ChannelAccess | None], frozen=True):
    """None: no such channel."""

    channel_id: str
    user_id: str


class RenameChannel(StorageEffect[ChannelRecord | None], frozen=True):
    channel_id: str
    name: str


class DeleteChannel(StorageEffect[bool], frozen=True):
    channel_id: str


# --- messages --------------------------------------------------------------------------------------


class Appended(msgspec.Struct, frozen=True, gc=False):
    """The event is durable. `repeated`: an earlier post with this nonce; nothing was stored or sent now."""

    event: StoredEvent
    repeated: bool = False


class AppendFailure(msgspec.Struct, frozen=True, gc=False):
    """Nothing was stored. `kind`: "no_channel" or "nonce_reused"."""

    kind: str


class AppendEvent(StorageEffect[Appended | AppendFailure], frozen=True):
    """Give the event the channel's next sequence and store it, in one transaction (CONTRACT A4, A5)."""

    channel_id: str
    sender_id: str
    event_id: str
    event_type: str
    canonical: bytes  # the hashed bytes (CONTRACT 10), kept beside jsonb (A15)
    wire: bytes  # the event as clients see it
    nonce: str | None
    fingerprint: bytes  # 32 bytes over what a repeat must share with the first post
    now_ms: int


class ReadEvents(StorageEffect[tuple[StoredEvent, ...] | None], frozen=True):
    """A page of the log, always returned oldest first. None: no such channel.

    `after`: the first `limit` events with sequence > after. `before`: the last `limit` with sequence < before.
    Neither: the newest `limit`. Both at once is the caller's mistake.
    """

    channel_id: str
    limit: int
    after: int | None = None
    before: int | None = None


class MarkRead(StorageEffect[ReadState | None], frozen=True):
    """Raise the reader's position to `sequence` (None: newest), clamped to 0..newest; it never falls.

    Returns what is stored afterwards (D-14). None: no such channel.
    """

    channel_id: str
    user_id: str
    sequence: int | None
    now_ms: int


class ListUnread(StorageEffect[tuple[ReadState, ...]], frozen=True):
    """One line per channel of the user's guilds (and channels with an explicit role), by channel creation."""

    user_id: str


# --- roles by the command line -----------------------------------------------------------------------


class GrantServerRole(StorageEffect[None], frozen=True):
    user_id: str
    role: str
    now_ms: int


class RevokeServerRole(StorageEffect[bool], frozen=True):
    """False: the user did not have it."""

    user_id: str
    role: str


class GrantGuildRole(StorageEffect[bool], frozen=True):
    """Sets the role and makes the membership where there is none. False: no such guild."""

    guild_id: str
    user_id: str
    role: str
    now_ms: int


class GrantChannelRole(StorageEffect[bool], frozen=True):
    """Sets the role and makes the channel membership where there is none. False: no such channel."""

    channel_id: str
    user_id: str
    role: str
    now_ms: int


# --- not storage -------------------------------------------------------------------------------------


class HashPassword(Effect[str], frozen=True):
    """Argon2id v19, m=19456 KiB, t=2, p=1, PHC string (CONTRACT 5.1), in a bounded worker thread."""

    password: str


class VerifyPassword(Effect[bool], frozen=True):
    """`password_hash` None: verify against a fixed dummy and answer False, at the same cost (D-21)."""

    password_hash: str | None
    password: str


class ComponentState(msgspec.Struct, frozen=True, gc=False):
    """One probed part. `details` never holds a host name or driver text (D-59)."""

    name: str  # database, nats, migrations, drain
    status: str  # configured, pending, error
    details: str


class Readiness(msgspec.Struct, frozen=True, gc=False):
    """CONTRACT A10."""

    status: str  # ready, degraded, unavailable, draining
    uptime_seconds: int
    components: tuple[ComponentState, ...]


class CheckReadiness(Effect[Readiness], frozen=True):
    """Cached for a second and limited to 500 ms by the runtime."""


class RenderMetrics(Effect[bytes | None], frozen=True):
    """Prometheus text 0.0.4. None: metrics are off or on a listener of their own."""


class AnnounceRead(Effect[None], frozen=True):
    """Tell the reader's other devices, best effort (D-14): notification kind `channel_read`."""

    user_id: str
    state: ReadState
