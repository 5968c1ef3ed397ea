"""Finds the address and the keys of a server, with bounds on everything (PROTOCOL 16.3)."""

from __future__ import annotations

from typing import Annotated, NamedTuple
from urllib.parse import urljoin, urlsplit

import msgspec
from msgspec import Meta

from openguild_proto.effects.base import Operation
from openguild_proto.effects.federation import Fetch, FindPeer, Peer, PeerUnavailable, StorePeer
from openguild_proto.federation.faults import KeysFault
from openguild_proto.federation.keys import MAX_DOCUMENT_BYTES, read_keys_document
from openguild_proto.federation.policy import VERSION, FederationPolicy
from openguild_proto.federation.server_names import NameFault, authority_of

WELL_KNOWN = "/.well-known/openguild"
KEYS = "/federation/v1/keys"
MAX_WELL_KNOWN_BYTES = 4_096  # ours: a URL and some versions
MAX_REDIRECTS = 3
FETCH_SECS = 5.0  # ours: per request
REDIRECTS = frozenset({301, 302, 303, 307, 308})


class ServerAddress(NamedTuple):
    """The address of a server: its base URL, and the authority for requests."""

    base_url: str
    authority: str


class _WellKnown(msgspec.Struct, frozen=True):
    base_url: Annotated[str, Meta(max_length=512)]
    versions: Annotated[list[Annotated[str, Meta(max_length=32)]], Meta(max_length=32)]


_decoder = msgspec.json.Decoder(_WellKnown)


def address_of(policy: FederationPolicy, peer: Peer) -> ServerAddress | None:
    """Return the address of a known server; None: it must be discovered.

    At a configured address, requests name the server itself, so that a proxy there can route them.
    """
    mapped = policy.addresses.get(peer.server)
    if mapped is not None:
        return ServerAddress(mapped, peer.server)
    return ServerAddress(peer.base_url, authority_of(peer.base_url)) if peer.base_url is not None else None


def discover(server: str, policy: FederationPolicy, now_ms: int) -> Operation[Peer]:
    """Read the address and the keys of `server`, store both and return its row. Raises PeerUnavailable."""
    known = (yield from FindPeer(server=server)) or Peer(server)
    mapped = policy.addresses.get(server)
    base_url = mapped if mapped is not None else (yield from _read_well_known(server))
    authority = server if mapped is not None else authority_of(base_url)
    fetched = yield from Fetch(
        server=server,
        base_url=base_url,
        authority=authority,
        target=KEYS,
        max_bytes=MAX_DOCUMENT_BYTES,
        timeout_secs=FETCH_SECS,
    )
    if fetched.status != 200:
        raise PeerUnavailable(server, "keys", f"status {fetched.status}")
    try:
        keys = read_keys_document(
            server, fetched.body, known=known.keys, pinned=policy.pinned.get(server, ()), now_ms=now_ms
        )
    except KeysFault as fault:
        raise PeerUnavailable(server, "keys", str(fault)) from None
    yield from StorePeer(server=server, base_url=base_url, keys=keys, checked_ms=now_ms)
    return msgspec.structs.replace(known, base_url=base_url, keys=keys, checked_ms=now_ms)


def _read_well_known(server: str) -> Operation[str]:
    """Return the base URL. A server without the document is reached at its own name."""
    base_url, target = f"https://{server}", WELL_KNOWN
    for _ in range(MAX_REDIRECTS + 1):
        fetched = yield from Fetch(
            server=server,
            base_url=base_url,
            authority=authority_of(base_url),
            target=target,
            max_bytes=MAX_WELL_KNOWN_BYTES,
            timeout_secs=FETCH_SECS,
        )
        if fetched.status == 404:
            return f"https://{server}"
        if fetched.status == 200:
            return _base_url(server, fetched.body)
        if fetched.status not in REDIRECTS or fetched.location is None:
            raise PeerUnavailable(server, "discovery", f"status {fetched.status}")
        base_url, target = _redirected(server, base_url + target, fetched.location)
    raise PeerUnavailable(server, "discovery", f"more than {MAX_REDIRECTS} redirects")


def _redirected(server: str, url: str, location: str) -> tuple[str, str]:
    try:
        parts = urlsplit(urljoin(url, location))
        base_url = f"{parts.scheme}://{parts.netloc}"
        authority_of(base_url)
    except (NameFault, ValueError):
        raise PeerUnavailable(server, "discovery", "redirected to an invalid server name") from None
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if parts.scheme != "https" or not (target.isascii() and target.isprintable() and " " not in target):
        raise PeerUnavailable(server, "discovery", "redirected to a URL that is not https")
    return base_url, target


def _base_url(server: str, body: bytes) -> str:
    try:
        found = _decoder.decode(body)
        authority_of(found.base_url)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, NameFault) as fault:
        raise PeerUnavailable(server, "discovery", f"the document is invalid: {fault}") from None
    if not found.base_url.startswith("https://"):
        raise PeerUnavailable(server, "discovery", "its base_url is not https")
    if VERSION not in found.versions:
        raise PeerUnavailable(server, "discovery", f"it does not support {VERSION}")
    return found.base_url.rstrip("/")
