"""Authenticates other servers by the signatures of their requests, signs the answers, and counts budgets (PROTOCOL 16.2, 16.4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from openguild_proto.canonical.verify import ServerKeys
from openguild_proto.effects.base import Operation
from openguild_proto.effects.federation import (
    Discover,
    FindPeer,
    ListOwnKeys,
    NoteContact,
    Peer,
    PeerUnavailable,
    PublishedKey,
    RememberNonce,
    Standing,
)
from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.federation.faults import Fault, SignatureFault
from openguild_proto.federation.keys import event_keys, with_pinned
from openguild_proto.federation.peers import CONTACT_MS, REFRESH_MS
from openguild_proto.federation.policy import Mode, Verdict, judge
from openguild_proto.federation.signatures import (
    WINDOW_SECS,
    Claim,
    Signed,
    check_request_claim,
    read_claim,
    sign_answer,
    verify_request,
)
from openguild_proto.http.message import PeerSeen, Request, Response
from openguild_proto.operations.context import Context, Limit
from openguild_proto.policy.addresses import limit_key
from openguild_proto.policy.ratelimit import SlidingWindow

SILENT_MS = 180_000  # PROTOCOL 16.5.10: owners have contact each minute
NONCE_MARGIN_SECS = 600  # ours: for differing clocks of replicas, and a clock that is set back
UNREAD_KEYS = frozenset({Fault.UNKNOWN_KEY, Fault.EXPIRED_KEY})


class PeerCaller(NamedTuple):
    """The authenticated calling server. `peer`: its stored row, which adds to the configuration."""

    server: str
    signed: Signed
    peer: Peer | None
    verdict: Verdict


def verified_server(ctx: Context, request: Request) -> Operation[PeerCaller]:
    """Return the server that signed `request`. It may be denied, see `require_admitted`. Raises Refusal 401, 403, 429, 501."""
    service = ctx.service
    policy = service.settings.federation
    if policy.mode is Mode.OFF or service.signer is None:
        raise Refusal(ErrorCode.NOT_IMPLEMENTED)
    try:
        claim = read_claim(request.headers)
        check_request_claim(claim, ctx.wall_ms)
        if claim.server == policy.server_name:
            raise SignatureFault(Fault.UNKNOWN_SERVER)
        signed, peer = yield from _verified(ctx, request, claim)
        verdict = judge(policy, claim.server, peer)
        is_heard = verdict.standing is not Standing.DENY and service.peer_requests.peek(claim.server, ctx.now) is None
        if is_heard:  # else it is refused without a write to the store
            yield from _remember_nonce(ctx, claim)
    except SignatureFault as fault:
        raise _invalid(fault.reason) from None
    if is_heard and (peer is None or ctx.wall_ms - peer.contacted_ms >= CONTACT_MS):
        yield from NoteContact(server=claim.server, contacted_ms=ctx.wall_ms)
        peer = msgspec.structs.replace(peer or Peer(claim.server), contacted_ms=ctx.wall_ms)
        service.peers.put(claim.server, peer, ctx.now)
    return PeerCaller(claim.server, signed, peer, verdict)


def _remember_nonce(ctx: Context, claim: Claim) -> Operation[None]:
    until_ms = (claim.created + WINDOW_SECS + NONCE_MARGIN_SECS) * 1_000
    if not (yield from RememberNonce(server=claim.server, nonce=claim.nonce, now_ms=ctx.wall_ms, until_ms=until_ms)):
        raise SignatureFault(Fault.REPLAYED)


def _invalid(reason: Fault) -> Refusal:
    return Refusal(
        ErrorCode.SIGNATURE_INVALID,
        details=(FieldProblem("signature", reason.value),),
        reason=f"signature_{reason.value}",
    )


def _verified(ctx: Context, request: Request, claim: Claim) -> Operation[tuple[Signed, Peer | None]]:
    """Verify with the known keys, otherwise with those that the server publishes now."""
    policy, known = ctx.service.settings.federation, ctx.service.peers
    pinned = policy.pinned.get(claim.server, ())
    peer = yield from known_peer(ctx, claim.server)
    verdict = judge(policy, claim.server, peer)
    keys = with_pinned(peer.keys if peer is not None else (), pinned)
    stale = ctx.wall_ms - (peer.checked_ms if peer is not None else 0) >= REFRESH_MS
    if verdict.standing is not Standing.DENY and stale and known.may_try(claim.server, ctx.now):
        fetched = yield from _discovered(ctx, request, claim.server, peer, required=not keys)
        if fetched is not None:
            peer, keys = fetched, with_pinned(fetched.keys, pinned)
    try:
        return verify_request(claim, request, policy.authorities, keys, ctx.wall_ms), peer
    except SignatureFault as fault:
        if fault.reason not in UNREAD_KEYS:
            raise
        if verdict.standing is Standing.DENY:  # a denied server's keys are not fetched
            raise denied(verdict) from None
        if not known.may_try(claim.server, ctx.now):
            raise SignatureFault(fault.reason if keys else Fault.UNKNOWN_SERVER) from None
        fetched = yield from _discovered(ctx, request, claim.server, peer, required=not keys)
        if fetched is None:
            raise
        return verify_request(
            claim, request, policy.authorities, with_pinned(fetched.keys, pinned), ctx.wall_ms
        ), fetched


def _discovered(
    ctx: Context, request: Request, server: str, peer: Peer | None, *, required: bool
) -> Operation[Peer | None]:
    """Read the keys of a server. Return None if that fails and they are not `required`. Raises SignatureFault, Refusal 429.

    Unknown servers share a limit, and those from one address another, because anybody may claim any name.
    """
    known = ctx.service.peers
    if (peer is None or not peer.contacted_ms) and not known.is_trying(server):
        address = limit_key(request.client_address)
        spend(ctx, ctx.service.address_discoveries, address)
        spend(ctx, ctx.service.peer_discoveries, "")
    try:
        with known.trying(server):
            peer = yield from Discover(server=server)
    except PeerUnavailable:
        if required:
            raise SignatureFault(Fault.UNKNOWN_SERVER) from None
        return None
    known.put(server, peer, ctx.now)
    return peer


def known_peer(ctx: Context, server: str) -> Operation[Peer | None]:
    """Return the row of a server, at most a second old."""
    known = ctx.service.peers
    if not known.has(server, ctx.now):
        known.put(server, (yield from FindPeer(server=server)), ctx.now)
    return known.get(server)


class EventKeys:
    """The keys of servers, each for the events of its time (PROTOCOL 16.1.6)."""

    def __init__(self, keys: Mapping[str, Iterable[PublishedKey]], own: ServerKeys) -> None:
        self._keys = {server: tuple(of_server) for server, of_server in keys.items()}
        self._own = own  # of this server: what it holds itself verifies at any time

    def with_past(self, server: str, past: Iterable[PublishedKey]) -> EventKeys:
        """Return these keys and the former keys of this server, which is `server`."""
        return EventKeys({**self._keys, server: tuple(past)}, self._own)

    def at(self, at_ms: int) -> ServerKeys:
        """Return the keys that verify events of this time."""
        keys = {server: event_keys(of_server, at_ms) for server, of_server in self._keys.items()}
        return {**keys, **{server: {**keys.get(server, {}), **held} for server, held in self._own.items()}}


def keys_for_events(ctx: Context, *owners: str) -> Operation[EventKeys]:
    """Return the keys that verify events of the logs of `owners`: theirs, and those of this server, whose users post there."""
    keys: dict[str, tuple[PublishedKey, ...]] = {}
    for owner in owners:
        peer = yield from known_peer(ctx, owner)
        pinned = ctx.service.settings.federation.pinned.get(owner, ())
        keys[owner] = with_pinned(peer.keys if peer is not None else (), pinned)
    return EventKeys(keys, (yield from keys_of(ctx, ctx.service.settings.federation.server_name)))


def keys_of(ctx: Context, server: str, at_ms: int | None = None) -> Operation[dict[str, dict[str, bytes]]]:
    """Return the keys that verify everything that the server has signed until now, for `verify_event`; none if it is unknown.

    `at_ms`: only those that verify an event of that time.
    """
    if server == ctx.service.settings.federation.server_name:
        own = {f"ed25519:{signer.key_id}": signer.public for signer in ctx.service.signers}
        return {server: own}
    peer = yield from known_peer(ctx, server)
    pinned = ctx.service.settings.federation.pinned.get(server, ())
    keys = with_pinned(peer.keys if peer is not None else (), pinned)
    if at_ms is not None:
        return {server: event_keys(keys, at_ms)}
    return {server: {f"ed25519:{key.key_id}": key.public_key for key in keys}}


def with_own_past(ctx: Context, keys: EventKeys) -> Operation[EventKeys]:
    """Return the keys, including replaced keys of this server."""
    return keys.with_past(ctx.service.settings.federation.server_name, (yield from ListOwnKeys()))


def read_keys_again(ctx: Context, server: str) -> Operation[bool]:
    """Read the keys of a server that has signed events with unknown keys. False: they were just read, or cannot be read."""
    known = ctx.service.peers
    if not known.may_try(server, ctx.now):
        return False
    try:
        with known.trying(server):
            peer = yield from Discover(server=server)
    except PeerUnavailable:
        return False
    known.put(server, peer, ctx.now)
    return True


def is_silent(ctx: Context, server: str) -> Operation[bool]:
    """Return whether a server has been silent for longer than a running server can be (PROTOCOL 16.5.10)."""
    peer = yield from known_peer(ctx, server)
    return peer is None or ctx.wall_ms - peer.contacted_ms > SILENT_MS


# --- policy ------------------------------------------------------------------------------------------


def require_admitted(ctx: Context, caller: PeerCaller, request: Request) -> None:
    """Check that the server is not denied, and count the request. Raises Refusal 403, 429."""
    if caller.verdict.standing is Standing.DENY:
        raise denied(caller.verdict)
    spend(ctx, ctx.service.peer_requests, caller.server)
    if request.body:
        _count_bytes(ctx, caller.server, len(request.body))


def _count_bytes(ctx: Context, server: str, nbytes: int) -> None:
    """Count whole megabytes, adding up small bodies. Raises Refusal 429 while the budget is used up."""
    budget = ctx.service.peer_megabytes
    wait_secs = budget.peek(server, ctx.now)
    if wait_secs is not None:
        raise Limit.SERVERS.refusal(wait_secs)
    full = ctx.service.peers.count_bytes(server, nbytes)
    if full:
        spend(ctx, budget, server, full)


def verdict_in(ctx: Context, caller: PeerCaller, guild_id: str | None) -> Verdict:
    """Return the policy for the server in that guild."""
    return judge(ctx.service.settings.federation, caller.server, caller.peer, guild_id)


def require_unrestricted(ctx: Context, caller: PeerCaller, guild_id: str | None = None, *, reads: bool = False) -> None:
    """Check that this server accepts new data from the server, in that guild. `reads`: it sends none. Raises Refusal 403."""
    verdict = verdict_in(ctx, caller, guild_id)
    if verdict.standing is Standing.DENY or (verdict.standing is Standing.QUARANTINE and not reads):
        raise denied(verdict)


def require_dealings(ctx: Context, server: str, guild_id: str | None) -> Operation[None]:
    """Check that this server federates with the owner of a guild, in that guild. Raises Refusal 403.

    Nothing is checked if federation is off: a request to the owner is then refused anyway.
    """
    policy = ctx.service.settings.federation
    if policy.is_on:
        verdict = judge(policy, server, (yield from known_peer(ctx, server)), guild_id)
        if verdict.standing is Standing.DENY:
            raise denied(verdict)


def denied(verdict: Verdict) -> Refusal:
    """Return the error 403 with the operator's reason."""
    code = ErrorCode.SERVER_QUARANTINED if verdict.standing is Standing.QUARANTINE else ErrorCode.SERVER_DENIED
    return Refusal(code, f"{code.spec.message}: {verdict.reason}" if verdict.reason else None)


def spend(ctx: Context, budget: SlidingWindow, server: str, count: int = 1) -> None:
    """Count `count` against a budget of the server. Raises Refusal 429."""
    wait_secs = budget.hit(server, ctx.now, count)
    if wait_secs is not None:
        raise Limit.SERVERS.refusal(wait_secs)


def signed_answer(ctx: Context, caller: PeerCaller, answer: Response) -> Response:
    """Return `answer` with the signature of this server (PROTOCOL 16.2.5)."""
    signer = ctx.service.signer
    if signer is None:
        return answer
    signature = sign_answer(answer.status, answer.body, caller.signed, signer=signer, created=ctx.wall_ms // 1_000)
    seen = PeerSeen(caller.server, caller.signed.created - ctx.wall_ms / 1_000)
    return msgspec.structs.replace(answer, headers=answer.headers + signature, peer=seen)
