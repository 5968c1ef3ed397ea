"""Effects between servers: the known data of a peer, the nonces that it has used, and requests to it (PROTOCOL 16)."""

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
    not_after: int  # moves on while the key is in use
    revoked_at: int | None = None


class Standing(Enum):
    """The operator's decision about a server, everywhere or in one guild."""

    ALLOW = "allow"  # in the mode `pinned`, too
    DENY = "deny"  # all its requests are refused, and no request is sent to it
    QUARANTINE = "quarantine"  # its data stay; nothing new is accepted from it: no post, no join, no invite


class Ruling(msgspec.Struct, frozen=True, gc=False):
    """A decision of the operator. `reason` is shown to the users concerned."""

    standing: Standing
    reason: str = ""
    guild_id: str | None = None  # None: for everything


class Peer(msgspec.Struct, frozen=True, gc=False):
    """Another server as this one knows it. Times are UTC milliseconds."""

    server: str
    base_url: str | None = None  # None: not discovered yet
    keys: tuple[PublishedKey, ...] = ()  # all keys that it has ever had
    checked_ms: int = 0  # when its base_url and keys were read
    contacted_ms: int = 0  # when it last sent something with a valid signature
    rulings: tuple[Ruling, ...] = ()


class FindPeer(StorageEffect[Peer | None], frozen=True):
    """Find a server by its name. None: the server is unknown."""

    server: str


class StorePeer(StorageEffect[None], frozen=True):
    """Store a server's address and keys. Its earlier keys stay. Rulings and the time of contact do not change."""

    server: str
    base_url: str
    keys: tuple[PublishedKey, ...]
    checked_ms: int


class NoteContact(StorageEffect[None], frozen=True):
    """Note that a server sent something with a valid signature. An earlier time than the stored one changes nothing."""

    server: str
    contacted_ms: int


class ListPeers(StorageEffect[tuple[Peer, ...]], frozen=True):
    """List known servers, ordered by name: the first `limit` after `after`."""

    after: str
    limit: int


class RuleServer(StorageEffect[None], frozen=True):
    """Store the operator's decision about a server, in general or for one guild. `standing` None: delete the decision."""

    server: str
    guild_id: str | None
    standing: Standing | None
    reason: str
    now_ms: int


class FederatedGuild(msgspec.Struct, frozen=True, gc=False):
    """A guild with members on several servers. `name` None: it is deleted, and some server still has to purge it."""

    guild_id: str
    name: str | None
    origin: str | None  # its owner server; None: this one
    mirrored_by: tuple[str, ...]
    purging: tuple[str, ...]  # servers that must purge their mirrors and have not reported it yet


class ListFederatedGuilds(StorageEffect[tuple[FederatedGuild, ...]], frozen=True):
    """List the guilds that this server mirrors or other servers mirror, ordered by id: the first `limit`."""

    limit: int


class ListGuildHomes(StorageEffect[tuple[str, ...]], frozen=True):
    """List the other servers that have members in a guild, ordered by name."""

    turns_of = "reader_id"

    guild_id: str
    reader_id: str | None = None


class FindReadable(StorageEffect[str | None], frozen=True):
    """Find the guild of a channel of this server. None: no user of `server` may read the channel."""

    server: str
    channel_id: str


class RememberNonce(StorageEffect[bool], frozen=True):
    """Remember the nonce of a request for all replicas. False: it was seen before."""

    server: str
    nonce: str
    now_ms: int
    until_ms: int  # UTC milliseconds; it may be forgotten then


class OwnKey(Enum):
    """The result of `RecordOwnKey`, for a key that this server wants to use."""

    IN_USE = "in use"
    REFUSED = "refused"  # its id was used for another key, or it is revoked
    TOO_MANY = "too many"  # this server has had `at_most` others


class RecordOwnKey(StorageEffect[OwnKey], frozen=True):
    """Record a key of this server as in use until `not_after`."""

    key_id: str
    public_key: bytes
    now_ms: int
    not_after: int
    at_most: int = MAX_OWN_KEYS


class RevokeOwnKey(StorageEffect[bool], frozen=True):
    """Revoke a key of this server. False: there is none of this id, or it is revoked already."""

    key_id: str
    revoked_at: int  # UTC milliseconds


class ListOwnKeys(StorageEffect[tuple[PublishedKey, ...]], frozen=True):
    """List all keys that this server ever had, the newest first."""


class PeerUnavailable(Exception):
    """Thrown into an operation: a server gave no answer that counts. `reason`: one of PEER_FAILURES.

    `sent`: the request may have been carried out. `detail`: more for the log. `wait_secs`: what the server asks for.
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
    "busy",  # too many requests to it, or in all, are under way
    "address",  # its name leads to an address that is not allowed, or to none
    "connect",  # nothing answers there, or not in time
    "tls",  # its certificate is not good
    "broken",  # the connection ended, or what came is not HTTP, or too large
    "timeout",  # no whole answer in time
    "discovery",  # its /.well-known/openguild is not good
    "keys",  # its keys document is not good
    "unsigned",  # the answer has no signature, or one that is not good
    "refused",  # it does not take our signature
    "denied_there",  # its operator denies this server
    "off_there",  # federation is off there
    "overloaded",  # it asks to wait
)
"""Why a server gave no answer that counts: labels of a metric, too (PROTOCOL 16.3.8)."""


class PeerAnswer(msgspec.Struct, frozen=True, gc=False):
    """An answer whose signature is good."""

    status: int
    body: bytes


class Discover(Effect[Peer], frozen=True):
    """Read where a server is reached and its keys, and store both. Raises PeerUnavailable."""

    server: str


class AskPeer(Effect[PeerAnswer], frozen=True):
    """Send a signed request, discovering the server first where needed. Raises PeerUnavailable.

    The request is signed when it is sent. The answer's signature, size and time are checked.
    """

    server: str
    method: str
    target: str  # path and query
    body: bytes = b""
    timeout_secs: float = PEER_ANSWER_SECS
    max_bytes: int = MAX_PEER_ANSWER_BYTES  # of the answer


class Fetched(msgspec.Struct, frozen=True, gc=False):
    """An answer to `Fetch`."""

    status: int
    location: str | None
    body: bytes


class Fetch(Effect[Fetched], frozen=True):
    """Send an unsigned GET to a server, without following redirects. Raises PeerUnavailable, also for a longer body."""

    server: str
    base_url: str
    authority: str
    target: str
    max_bytes: int
    timeout_secs: float


class Exchanged(msgspec.Struct, frozen=True, gc=False):
    """The raw answer to a signed request, not verified. `signature`: of the request."""

    status: int
    headers: tuple[tuple[str, str], ...]  # names in lower case
    body: bytes
    signature: bytes


class Exchange(Effect[Exchanged], frozen=True):
    """Sign a request and send it at once, on a connection that is kept. Raises PeerUnavailable."""

    server: str
    base_url: str
    authority: str
    method: str
    target: str
    body: bytes
    timeout_secs: float
    max_bytes: int = MAX_PEER_ANSWER_BYTES  # of the answer
