"""Users and sessions."""

from __future__ import annotations

from openguild_proto.effects.base import StorageEffect
from openguild_proto.limits import MAX_DEVICES_PER_USER, MAX_PAGE_LINES
from openguild_proto.policy.account_deletion import AccountDeletion
from openguild_proto.records import (
    Author,
    DeviceRecord,
    GuildRecord,
    RefreshFamily,
    ReusedRefresh,
    RotatedRefresh,
    SessionRecord,
    UserProfile,
    UserRecord,
)


class InsertUser(StorageEffect[bool], frozen=True):
    """Create an account. False: the name is taken. `username_key`: the case-folded NFKC name, unique."""

    user_id: str
    username: str
    username_key: str
    password_hash: str
    now_ms: int


class SetDisplayName(StorageEffect[UserRecord], frozen=True):
    """Give the author another display name; None: none. Returns the account. Raises Refusal 401."""

    author: Author
    display_name: str | None
    now_ms: int


class FindUser(StorageEffect[UserRecord | None], frozen=True):
    """Find an account by its id, also one of another server; None: there is none."""

    user_id: str


class FindUserByName(StorageEffect[UserRecord | None], frozen=True):
    """Find the account of a name; None: there is none. `username_key`: the case-folded NFKC name."""

    username_key: str


class FindUsernames(StorageEffect[dict[str, str]], frozen=True):
    """Find the usernames of these accounts, by user id; ids without an account are left out."""

    user_ids: tuple[str, ...]


class DescribeUser(StorageEffect[UserProfile | None], frozen=True):
    """Read the profile for /users/me; None: no such account. `limit`: of the channels, by joining time."""

    divides_by = "user"
    turns_of = "user_id"

    user_id: str
    limit: int = MAX_PAGE_LINES


class ChangePassword(StorageEffect[bool], frozen=True):
    """Replace the author's password, and end all their sessions but those of the author's own family, in one transaction.

    False: `checked_hash`, which the current password was verified with, is no longer the stored hash. Raises Refusal 401.
    """

    author: Author
    checked_hash: str
    password_hash: str
    now_ms: int


class SetPassword(StorageEffect[int | None], frozen=True):
    """Replace the password of a user of this server, and end all their sessions, in one transaction: an operator's command.

    Returns how many devices had a session; None: there is no such user of this server.
    """

    user_id: str
    password_hash: str
    now_ms: int


class ListOwnedAlone(StorageEffect[tuple[GuildRecord, ...]], frozen=True):
    """List the guilds whose only owner is the user, oldest first, at most `limit`. `with_mirrored`: also those of other servers."""

    user_id: str
    limit: int
    with_mirrored: bool = True


class DeleteAccount(StorageEffect[AccountDeletion], frozen=True):
    """Delete the author's account with all that is theirs alone, and end all their sessions, in one transaction.

    Events of others' logs stay, such as their messages. `checked_hash`: what the current password was verified with. Raises
    Refusal 401.
    """

    author: Author
    checked_hash: str
    now_ms: int


class OpenSession(StorageEffect[bool], frozen=True):
    """Log in: create a family for (user, device), and revoke the device's former family in the same transaction.

    False: `checked_hash`, which the password was verified with, is no longer the stored hash, or the account is deleted. `limit`:
    active families of the user, this one included; beyond it those seen longest ago are revoked.
    """

    session_id: str
    family_id: str
    user_id: str
    checked_hash: str
    refresh_hash: bytes  # 32 bytes; the token itself is never stored (PROTOCOL 4.6.1)
    refresh_secret: bytes  # 32 bytes, from which the family's further tokens are derived
    device_id: str
    device_name: str | None
    user_agent: str | None
    ip_address: str | None
    now_ms: int
    access_expires_ms: int
    refresh_expires_ms: int
    limit: int = MAX_DEVICES_PER_USER


class FindSession(StorageEffect[SessionRecord | None], frozen=True):
    """Find a session, active or revoked; None: there is none."""

    session_id: str


class FindRefreshFamily(StorageEffect[RefreshFamily | None], frozen=True):
    """Find the active family of a token, current or not; None: there is none."""

    refresh_hash: bytes
    now_ms: int


class RotateRefresh(StorageEffect[RotatedRefresh | ReusedRefresh | None], frozen=True):
    """Exchange a refresh token for a new one, atomically (PROTOCOL 4.6.2).

    The current token of a family rotates to `new_refresh_hash`, its successor. The previous token may be repeated within
    `grace_ms` of its rotation: each repeat gets a session of its own and the same successor (sessions/refresh.py). Any
    other known token revokes its family (PROTOCOL 4.6.5). None: unknown, revoked or expired.
    """

    refresh_hash: bytes
    new_refresh_hash: bytes
    new_session_id: str
    now_ms: int
    grace_ms: int
    access_expires_ms: int
    refresh_expires_ms: int


class RevokeRefresh(StorageEffect[bool], frozen=True):
    """Revoke the family of a token. False: there is no active one."""

    refresh_hash: bytes
    now_ms: int


class ListDevices(StorageEffect[tuple[DeviceRecord, ...]], frozen=True):
    """List the user's devices with an active family, latest seen first, at most `limit`."""

    turns_of = "user_id"

    user_id: str
    now_ms: int
    limit: int = MAX_DEVICES_PER_USER


class ListSessionAddresses(StorageEffect[tuple[str, ...]], frozen=True):
    """List the addresses that the user's active families were opened from, without repeats, latest seen first, at most `limit`."""

    user_id: str
    now_ms: int
    limit: int = MAX_DEVICES_PER_USER


class RevokeDevice(StorageEffect[bool], frozen=True):
    """Revoke the active family of the author's device. False: it has none."""

    author: Author
    device_id: str
    now_ms: int
