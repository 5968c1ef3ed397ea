"""Sends a request to another server: finds its address, checks the policy and the answer's signature (PROTOCOL 16.2.5, 16.3)."""

from __future__ import annotations

import msgspec

from openguild_proto.effects.base import Operation
from openguild_proto.effects.federation import (
    AskPeer,
    Discover,
    Exchange,
    Exchanged,
    FindPeer,
    NoteContact,
    Peer,
    PeerAnswer,
    PeerUnavailable,
    Standing,
)
from openguild_proto.federation.discovery import ServerAddress, address_of
from openguild_proto.federation.faults import Fault, SignatureFault
from openguild_proto.federation.keys import with_pinned
from openguild_proto.federation.peers import CONTACT_MS, REFRESH_MS, KnownPeers
from openguild_proto.federation.policy import FederationPolicy, Mode, judge
from openguild_proto.federation.signatures import verify_answer

MAX_WAIT_SECS = 3_600.0  # ours: maximum accepted Retry-After of another server

UNREACHED = frozenset({"address", "connect", "tls"})  # the request did not arrive: the server may have a new address
_UNSIGNED = {  # of answers to requests that were not taken
    401: "refused",
    403: "denied_there",
    429: "overloaded",
    501: "off_there",
    503: "overloaded",
}


def ask_peer(
    asked: AskPeer, policy: FederationPolicy, known: KnownPeers, now: float, now_ms: int
) -> Operation[PeerAnswer]:
    """Send the request and return an answer with a valid signature. Raises PeerUnavailable.

    `now`: monotonic seconds. `now_ms`: UTC milliseconds.
    """
    server = asked.server
    if policy.mode is Mode.OFF:
        raise PeerUnavailable(server, "off")
    if not known.has(server, now):
        known.put(server, (yield from FindPeer(server=server)), now)
    peer = known.get(server) or Peer(server)
    verdict = judge(policy, server, peer)
    if server == policy.server_name or verdict.standing is Standing.DENY:
        raise PeerUnavailable(server, "denied", verdict.reason)
    address = address_of(policy, peer)
    stale = now_ms - peer.checked_ms >= REFRESH_MS
    if (address is None or stale) and known.may_try(server, now):
        peer = yield from _discovered(server, peer, known, now, required=address is None)
        address = address_of(policy, peer)
    if address is None:
        raise PeerUnavailable(server, "discovery", "it was tried a moment ago")
    try:
        answer = yield from _exchange(asked, address)
    except PeerUnavailable as failure:
        if failure.reason not in UNREACHED or server in policy.addresses or not known.may_try(server, now):
            raise
        peer = yield from _discovered(server, peer, known, now, required=False)
        moved = address_of(policy, peer)
        if moved is None or moved == address:
            raise
        answer = yield from _exchange(asked, moved)
    fault = _fault(policy, peer, answer, now_ms)
    # without a signature another server answers at its address
    if fault is Fault.MISSING and server not in policy.addresses and known.may_try(server, now):
        peer = yield from _discovered(server, peer, known, now, required=False)
        moved = address_of(policy, peer)
        if moved is not None and moved != address and answer.status in _UNSIGNED:
            answer = yield from _exchange(asked, moved)
            fault = _fault(policy, peer, answer, now_ms)
    elif fault in {Fault.UNKNOWN_KEY, Fault.EXPIRED_KEY} and known.may_try(server, now):
        peer = yield from _discovered(server, peer, known, now, required=False)
        fault = _fault(policy, peer, answer, now_ms)
    if fault is not None:
        raise _unsigned(server, answer, fault)
    if now_ms - peer.contacted_ms >= CONTACT_MS:
        yield from NoteContact(server=server, contacted_ms=now_ms)
        known.put(server, msgspec.structs.replace(peer, contacted_ms=now_ms), now)
    return PeerAnswer(answer.status, answer.body)


def _exchange(asked: AskPeer, address: ServerAddress) -> Operation[Exchanged]:
    return (
        yield from Exchange(
            server=asked.server,
            base_url=address.base_url,
            authority=address.authority,
            method=asked.method,
            target=asked.target,
            body=asked.body,
            timeout_secs=asked.timeout_secs,
            max_bytes=asked.max_bytes,
        )
    )


def _discovered(server: str, peer: Peer, known: KnownPeers, now: float, *, required: bool) -> Operation[Peer]:
    try:
        with known.trying(server):
            peer = yield from Discover(server=server)
    except PeerUnavailable:
        if required:
            raise
        return peer  # the stored row is valid until its keys are too old
    known.put(server, peer, now)
    return peer


def _fault(policy: FederationPolicy, peer: Peer, answer: Exchanged, now_ms: int) -> Fault | None:
    keys = with_pinned(peer.keys, policy.pinned.get(peer.server, ()))
    try:
        verify_answer(peer.server, answer.status, answer.headers, answer.body, answer.signature, keys, now_ms)
    except SignatureFault as fault:
        return fault.reason
    return None


def _unsigned(server: str, answer: Exchanged, fault: Fault) -> PeerUnavailable:
    """Return the failure for an unsigned answer. Its content is only a hint about the delay."""
    reason = _UNSIGNED.get(answer.status, "unsigned") if fault is Fault.MISSING else "unsigned"
    wait_text = next((value for name, value in answer.headers if name == "retry-after"), "")
    wait_secs = min(float(wait_text), MAX_WAIT_SECS) if wait_text.isascii() and wait_text.isdigit() else None
    return PeerUnavailable(
        server,
        reason,
        f"status {answer.status}, signature {fault.value}",
        sent=answer.status not in _UNSIGNED,
        wait_secs=wait_secs,
    )
