"""Users and sessions."""

from __future__ import annotations

from openguild_proto.effects.base import StorageEffect
from openguild_proto.limits import MAX_DEVICES_PER_USER, MAX_PAGE_LINES
from openguild_proto.records import (
    Author,
    DeviceRecord,
    RefreshFamily,
    ReusedRefresh,
    RotatedRefresh,
    SessionRecord,
    UserProfile,
    UserRecord,
)


class InsertUser(StorageEffect[bool], frozen=True):
    """False: the name is taken. `username_key` is the case-folded NFKC name, unique."""

    user_id: str
    username: str
    username_key: str
    password_hash: str
    now_ms: int


class FindUserByName(StorageEffect[UserRecord | None], frozen=True):
    """The account of this name; None: there is none. `username_key` is the case-folded NFKC name."""

    username_key: str


class DescribeUser(StorageEffect[UserProfile | None], frozen=True):
    """What /users/me shows; None: no such account. `limit`: channels that are told, those they have had for longest."""

    user_id: str
    limit: int = MAX_PAGE_LINES


class OpenSession(StorageEffect[None], frozen=True):
    """A login: a new family for (user, device); the device's former family is revoked in the same transaction.

    `limit`: the user's living families, this one included. Of more, those seen longest ago are revoked too.
    """

    session_id: str
    family_id: str
    user_id: str
    refresh_hash: bytes  # 32 bytes; the token itself is never stored (PROTOCOL 4.6.1)
    refresh_secret: bytes  # 32 bytes: what the family's further tokens are derived from
    device_id: str
    device_name: str | None
    user_agent: str | None
    ip_address: str | None
    now_ms: int
    access_expires_ms: int
    refresh_expires_ms: int
    limit: int = MAX_DEVICES_PER_USER


class FindSession(StorageEffect[SessionRecord | None], frozen=True):
    """The session, live or revoked; None: no such session."""

    session_id: str


class FindRefreshFamily(StorageEffect[RefreshFamily | None], frozen=True):
    """The living family that the token belongs to, current or not; None: there is none."""

    refresh_hash: bytes
    now_ms: int


class RotateRefresh(StorageEffect[RotatedRefresh | ReusedRefresh | None], frozen=True):
    """Exchange a refresh token for a new one, atomically (PROTOCOL 4.6.2).

    The current token of a family rotates to `new_refresh_hash`, its successor. The token before it is answered again
    within `grace_ms` of its rotation, each time with a session of its own and the same successor (sessions/refresh).
    Any other known token revokes its family (PROTOCOL 4.6.5). None: unknown, revoked or expired.
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
    """The user's devices with a living family, latest seen first, at most `limit`."""

    user_id: str
    now_ms: int
    limit: int = MAX_DEVICES_PER_USER


class ListSessionAddresses(StorageEffect[tuple[str, ...]], frozen=True):
    """The client addresses that the user's living families were opened from, each once, at most `limit`, latest seen first."""

    user_id: str
    now_ms: int
    limit: int = MAX_DEVICES_PER_USER


class RevokeDevice(StorageEffect[bool], frozen=True):
    """End the living family of the author's device. False: it has none."""

    author: Author
    device_id: str
    now_ms: int
