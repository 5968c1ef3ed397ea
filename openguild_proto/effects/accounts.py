"""Effects on users and sessions."""

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
    """Create an account. False: the name is taken. `username_key`: the case-folded NFKC name, which is unique."""

    user_id: str
    username: str
    username_key: str
    password_hash: str
    now_ms: int


class SetDisplayName(StorageEffect[UserRecord], frozen=True):
    """Set the author's display name, or remove it (None). Returns the account. Raises Refusal 401."""

    author: Author
    display_name: str | None
    now_ms: int


class FindUser(StorageEffect[UserRecord | None], frozen=True):
    """Find an account by its id, of this or another server. None: no such account."""

    user_id: str


class FindUserByName(StorageEffect[UserRecord | None], frozen=True):
    """Find an account by name. None: no such account. `username_key`: the case-folded NFKC name."""

    username_key: str


class FindUsernames(StorageEffect[dict[str, str]], frozen=True):
    """Find the usernames of these accounts, by user id. Ids without an account are omitted."""

    user_ids: tuple[str, ...]


class DescribeUser(StorageEffect[UserProfile | None], frozen=True):
    """Read the profile for /users/me. None: no such account. `limit`: of the channels, by join time."""

    divides_by = "user"
    turns_of = "user_id"

    user_id: str
    limit: int = MAX_PAGE_LINES


class ChangePassword(StorageEffect[bool], frozen=True):
    """Replace the author's password and end all their sessions outside the author's own family, in one transaction.

    False: the stored hash is no longer `checked_hash`, against which the current password was verified. Raises Refusal 401.
    """

    author: Author
    checked_hash: str
    password_hash: str
    now_ms: int


class SetPassword(StorageEffect[int | None], frozen=True):
    """Replace the password of a user of this server and end all their sessions, in one transaction. An operator's command.

    Returns the number of devices that had a session. None: this server has no such user.
    """

    user_id: str
    password_hash: str
    now_ms: int


class ListOwnedAlone(StorageEffect[tuple[GuildRecord, ...]], frozen=True):
    """List the guilds whose only owner is the user, oldest first, at most `limit`. `with_mirrored`: include mirrored guilds."""

    user_id: str
    limit: int
    with_mirrored: bool = True


class DeleteAccount(StorageEffect[AccountDeletion], frozen=True):
    """Delete the author's account with everything that only they use, and end all their sessions, in one transaction.

    Events in shared logs stay, such as their messages. `checked_hash`: the hash against which the current password was
    verified. Raises Refusal 401.
    """

    author: Author
    checked_hash: str
    now_ms: int


class OpenSession(StorageEffect[bool], frozen=True):
    """Log in: create a family for (user, device), and revoke the device's previous family in the same transaction.

    False: the stored hash is no longer `checked_hash`, against which the password was verified, or the account is deleted.
    `limit`: active families of the user, including this one; the least recently seen ones beyond it are revoked.
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
    """Find a session, active or revoked. None: no such session."""

    session_id: str


class FindRefreshFamily(StorageEffect[RefreshFamily | None], frozen=True):
    """Find the active family of a token, even if a newer token has replaced it. None: no active family."""

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
    """Revoke the active family of a token. False: there is none."""

    refresh_hash: bytes
    now_ms: int


class ListDevices(StorageEffect[tuple[DeviceRecord, ...]], frozen=True):
    """List the user's devices with an active family, most recently seen first, at most `limit`."""

    turns_of = "user_id"

    user_id: str
    now_ms: int
    limit: int = MAX_DEVICES_PER_USER


class ListSessionAddresses(StorageEffect[tuple[str, ...]], frozen=True):
    """List the distinct addresses from which the user's active families were opened, most recently seen first, at most `limit`."""

    user_id: str
    now_ms: int
    limit: int = MAX_DEVICES_PER_USER


class RevokeDevice(StorageEffect[bool], frozen=True):
    """Revoke the active family of the author's device. False: there is none."""

    author: Author
    device_id: str
    now_ms: int
