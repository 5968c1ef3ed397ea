"""Effects between servers: the known peers, the nonces that they have used, and requests to them (PROTOCOL 16)."""

from __future__ import annotations

from enum import Enum

import msgspec

from openguild_proto.effects.base import Effect, StorageEffect
from openguild_proto.limits import MAX_OWN_KEYS, MAX_PEER_ANSWER_BYTES, PEER_ANSWER_SECS


class PublishedKey(msgspec.Struct, frozen=True, gc=False):
    """A public key of a server. Times are UTC milliseconds."""

    key_id: str
    public_key: bytes  # 32 bytes
    not_before: int
    not_after: int  # extended while the key is in use
    revoked_at: int | None = None


class Standing(Enum):
    """The operator's decision about a server, everywhere or in one guild."""

    ALLOW = "allow"  # also in the mode `pinned`
    DENY = "deny"  # its requests are refused, and none are sent to it
    QUARANTINE = "quarantine"  # what it has stays, but no new posts, joins or invites are accepted from it


class Ruling(msgspec.Struct, frozen=True, gc=False):
    """A decision of the operator about a server. `reason` is shown to the users concerned."""

    standing: Standing
    reason: str = ""
    guild_id: str | None = None  # None: everywhere


class Peer(msgspec.Struct, frozen=True, gc=False):
    """Another server as this one knows it. Times are UTC milliseconds."""

    server: str
    base_url: str | None = None  # None: not discovered yet
    keys: tuple[PublishedKey, ...] = ()  # all that it ever had
    checked_ms: int = 0  # when its base_url and keys were read
    contacted_ms: int = 0  # of the last valid signature from it
    rulings: tuple[Ruling, ...] = ()


class FindPeer(StorageEffect[Peer | None], frozen=True):
    """Find a server by its name. None: unknown."""

    server: str


class StorePeer(StorageEffect[None], frozen=True):
    """Store a server's base URL and keys. Its earlier keys, its rulings and the time of contact stay."""

    server: str
    base_url: str
    keys: tuple[PublishedKey, ...]
    checked_ms: int


class NoteContact(StorageEffect[None], frozen=True):
    """Record a valid signature from a server. A time before the recorded one is ignored."""

    server: str
    contacted_ms: int


class ListPeers(StorageEffect[tuple[Peer, ...]], frozen=True):
    """List known servers by name, the first `limit` after `after`."""

    after: str
    limit: int


class RuleServer(StorageEffect[None], frozen=True):
    """Set the operator's decision about a server, everywhere or in one guild, or remove it (`standing` None)."""

    server: str
    guild_id: str | None
    standing: Standing | None
    reason: str
    now_ms: int


class FederatedGuild(msgspec.Struct, frozen=True, gc=False):
    """A guild with members on several servers. `name` None: it is deleted, but some server must still purge it."""

    guild_id: str
    name: str | None
    origin: str | None  # its owner server; None: this one
    mirrored_by: tuple[str, ...]
    purging: tuple[str, ...]  # servers that must delete their mirrors and have not confirmed it


class ListFederatedGuilds(StorageEffect[tuple[FederatedGuild, ...]], frozen=True):
    """List the guilds that this server mirrors or that others mirror, by id, the first `limit`."""

    limit: int


class ListGuildHomes(StorageEffect[tuple[str, ...]], frozen=True):
    """List the other servers that have members in a guild, by name."""

    turns_of = "reader_id"

    guild_id: str
    reader_id: str | None = None


class FindReadable(StorageEffect[str | None], frozen=True):
    """Find the guild of a channel of this server that some user of `server` may read. None: no user of it may."""

    server: str
    channel_id: str


class RememberNonce(StorageEffect[bool], frozen=True):
    """Store the nonce of a request for all replicas. False: it was used before."""

    server: str
    nonce: str
    now_ms: int
    until_ms: int  # UTC milliseconds; it may be deleted then


class OwnKey(Enum):
    """The result of `RecordOwnKey`, for a key that this server wants to use."""

    IN_USE = "in use"
    REFUSED = "refused"  # its id belongs to another key, or it is revoked
    TOO_MANY = "too many"  # this server has had `at_most` other keys


class RecordOwnKey(StorageEffect[OwnKey], frozen=True):
    """Record a key of this server as in use until `not_after`."""

    key_id: str
    public_key: bytes
    now_ms: int
    not_after: int
    at_most: int = MAX_OWN_KEYS


class RevokeOwnKey(StorageEffect[bool], frozen=True):
    """Revoke a key of this server. False: no such key, or it is already revoked."""

    key_id: str
    revoked_at: int  # UTC milliseconds


class ListOwnKeys(StorageEffect[tuple[PublishedKey, ...]], frozen=True):
    """List all keys that this server ever had, newest first."""


class PeerUnavailable(Exception):
    """Thrown into an operation: a server gave no valid response. `reason`: one of PEER_FAILURES.

    `sent`: the request may have been carried out. `detail`: for the log. `wait_secs`: the server's advice.
    """

    def __init__(
        self, server: str, reason: str, detail: str = "", *, sent: bool = False, wait_secs: float | None = None
    ) -> None:
        super().__init__(f"{server}: {reason}" + (f": {detail}" if detail else ""))
        self.server = server
        self.reason = reason
        self.detail = detail
        self.sent = sent
        self.wait_secs = wait_secs


PEER_FAILURES = (
    "off",  # federation is off here
    "denied",  # by the operator of this server
    "busy",  # too many concurrent requests to it, or in all
    "address",  # its name resolves to no address, or to one that is not allowed
    "connect",  # no connection, or not in time
    "tls",  # invalid certificate
    "broken",  # the connection broke, or the response is too large or not HTTP
    "timeout",  # no complete response in time
    "discovery",  # invalid /.well-known/openguild
    "keys",  # invalid keys document
    "unsigned",  # the response has no valid signature
    "refused",  # it does not accept our signature
    "denied_there",  # its operator denies this server
    "off_there",  # federation is off there
    "overloaded",  # it asks us to wait
)
"""Reasons for which a server gave no valid response, also labels of a metric (PROTOCOL 16.3.8)."""


class PeerAnswer(msgspec.Struct, frozen=True, gc=False):
    """A response with a valid signature."""

    status: int
    body: bytes


class Discover(Effect[Peer], frozen=True):
    """Read a server's base URL and keys, and store both. Raises PeerUnavailable."""

    server: str


class AskPeer(Effect[PeerAnswer], frozen=True):
    """Send a signed request, after discovering the server if necessary. Raises PeerUnavailable.

    The request is signed when it is sent. The response's signature, size and time are checked.
    """

    server: str
    method: str
    target: str  # path and query
    body: bytes = b""
    timeout_secs: float = PEER_ANSWER_SECS
    max_bytes: int = MAX_PEER_ANSWER_BYTES  # of the response


class Fetched(msgspec.Struct, frozen=True, gc=False):
    """The response to a `Fetch`."""

    status: int
    location: str | None
    body: bytes


class Fetch(Effect[Fetched], frozen=True):
    """Send an unsigned GET to a server, without following redirects. Raises PeerUnavailable, also for a body that is too long."""

    server: str
    base_url: str
    authority: str
    target: str
    max_bytes: int
    timeout_secs: float


class Exchanged(msgspec.Struct, frozen=True, gc=False):
    """The response to a signed request, not verified. `signature`: of the request."""

    status: int
    headers: tuple[tuple[str, str], ...]  # names in lower case
    body: bytes
    signature: bytes


class Exchange(Effect[Exchanged], frozen=True):
    """Sign a request and send it at once, on a keep-alive connection. Raises PeerUnavailable."""

    server: str
    base_url: str
    authority: str
    method: str
    target: str
    body: bytes
    timeout_secs: float
    max_bytes: int = MAX_PEER_ANSWER_BYTES  # of the response
