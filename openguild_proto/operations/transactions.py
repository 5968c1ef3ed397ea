"""The routes of the first implementation between servers: transactions, channels, guilds (PROTOCOL 13.2)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from openguild_proto.canonical.encode import CanonicalError
from openguild_proto.canonical.event import CanonicalEvent, canonical_bytes, event_hash, event_id, wire_bytes
from openguild_proto.canonical.signing import SIGNATURE_BYTES, verify
from openguild_proto.effects.base import Operation, StorageUnavailable
from openguild_proto.effects.channels import ReadEvents
from openguild_proto.effects.federation import FindReadable, ListGuildHomes, Standing
from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.federation.policy import judge
from openguild_proto.http.message import Request, Response
from openguild_proto.limits import DEFAULT_PAGE_EVENTS, MAX_BODY_BYTES
from openguild_proto.mirror_records import RemoteUser
from openguild_proto.operations.call import Call
from openguild_proto.operations.owner_claims import cost_problem
from openguild_proto.operations.paging import count_within_bytes
from openguild_proto.operations.parameters import EVENT_LIMIT, SINCE
from openguild_proto.operations.proposals import take_proposal
from openguild_proto.operations.route import in_guild, route
from openguild_proto.operations.servers import keys_of, known_peer, require_unrestricted
from openguild_proto.policy.permissions import Permission
from openguild_proto.records import GuildAccess, StoredEvent
from openguild_proto.schemas.between_servers import Proposal
from openguild_proto.schemas.decode import parse_uuid
from openguild_proto.schemas.messages import ListedEvent
from openguild_proto.timestamps import from_millis

MAX_PDUS = 200  # ours: as a delivery


class Transaction(msgspec.Struct, frozen=True, gc=False):
    """Events of one server."""

    origin: Annotated[str, Meta(max_length=255)]
    pdus: Annotated[list[dict[str, Any]], Meta(max_length=MAX_PDUS)] = []


class RejectedEvent(msgspec.Struct, frozen=True, gc=False):
    """An event that was not taken, and why."""

    event_id: str
    reason: str


class TransactionAnswer(msgspec.Struct, frozen=True, gc=False):
    """The result for each event."""

    origin: str
    accepted: list[str]
    rejected: list[RejectedEvent]
    disabled: bool  # always false: federation is on


class ChannelEvents(msgspec.Struct, frozen=True, gc=False):
    """A page of a channel's log, for another server."""

    origin: str
    channel_id: str
    events: list[ListedEvent]


class GuildContext(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The other servers with members in a guild, and whether the operator trusts them."""

    guild_id: str
    remote_servers: list[str]
    trust_level: Literal["trusted", "limited", "untrusted"]
    updated_at: str


def _transaction_off(request: Request, params: Mapping[str, str], here: str) -> dict[str, object]:
    """Return the members of the first implementation's response if federation is off."""
    del params, here
    try:
        origin = msgspec.json.decode(request.body, type=Transaction).origin
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        origin = ""
    return {"origin": origin, "accepted": [], "rejected": [], "disabled": True}


def _events_off(request: Request, params: Mapping[str, str], here: str) -> dict[str, object]:
    del request
    return {"origin": here, "channel_id": params.get("channel_id", ""), "events": []}


@route(
    "POST", "/federation/transactions", "Send events of users of another server",
    {202: TransactionAnswer, 207: TransactionAnswer, 400: TransactionAnswer},
    auth="server", client=False, body=Transaction, max_body_bytes=MAX_BODY_BYTES, when_off=_transaction_off,
)  # fmt: skip
def receive_transaction(call: Call[Transaction, None]) -> Operation[Response]:
    """Process each event as a proposal (PROTOCOL 16.6). 202: none was rejected; 207: some were; 400: all."""
    body = call.body
    events = [_parsed(place, pdu) for place, pdu in enumerate(body.pdus)]
    accepted: list[str] = []
    rejected: list[RejectedEvent] = []
    for event in events:
        reason = yield from _take(call, event)
        if reason is None:
            accepted.append(event.event_id)
        else:
            rejected.append(RejectedEvent(event.event_id, reason))
    status = 202 if not rejected else 207 if accepted else 400
    return Response.json(TransactionAnswer(body.origin, accepted, rejected, disabled=False), status=status)


def _parsed(place: int, pdu: dict[str, Any]) -> CanonicalEvent:
    """Return the event, if verifying it takes a bounded time. Raises Refusal 400."""
    try:
        event = msgspec.convert(pdu, CanonicalEvent)
        problem = cost_problem(event)
    except msgspec.ValidationError as fault:
        problem = str(fault)
    if problem is not None:
        raise Refusal(ErrorCode.VALIDATION, details=(FieldProblem(f"pdus.{place}", problem),))
    return event


def _take(call: Call[Transaction, None], event: CanonicalEvent) -> Operation[str | None]:
    """Take one event; return why it is rejected, or None."""
    origin, server = call.body.origin, call.server.server
    if origin != server:
        return f"received event from untrusted origin '{origin}'"
    if event.origin_server != origin:
        return f"event origin '{event.origin_server}' mismatched transaction origin '{origin}'"
    try:
        canonical = canonical_bytes(event, strict=False)
    except CanonicalError as fault:
        return f"delivery failed: {fault}"
    digest = event_hash(canonical)
    computed = event_id(digest)
    if computed != event.event_id:
        return f"event id mismatch (expected {computed}, got {event.event_id})"
    keys = yield from keys_of(call.ctx, server, event.origin_ts)
    problem = _signature_problem(event, digest, keys[server], f"ed25519:{call.server.signed.key_id}")
    if problem is not None:
        return problem
    if parse_uuid(event.room_id) != event.room_id:
        return f"delivery failed: invalid room id '{event.room_id}'"
    wire = wire_bytes(canonical, computed, event.signatures)
    proposal = Proposal(_author(event), wire.decode(), nonce=computed)
    try:
        yield from take_proposal(call.ctx, call.server, proposal, event.room_id)
    except Refusal as refusal:
        return f"delivery failed: {_told(refusal)}"
    except StorageUnavailable:
        return "delivery failed: storage error: the database cannot be reached"
    return None


def _signature_problem(event: CanonicalEvent, digest: bytes, keys: dict[str, bytes], expected: str) -> str | None:
    signed = event.signatures.get(event.origin_server, {})
    known = {name: text for name, text in signed.items() if name in keys}
    if not known:
        return f"missing signature '{expected}' for origin '{event.origin_server}'"
    for name, text in known.items():
        try:
            signature = base64.b64decode(text, validate=True)
        except ValueError:
            signature = b""
        if len(signature) != SIGNATURE_BYTES:
            return "signature encoding invalid"
        if verify(keys[name], digest, signature):
            return None
    return "signature verification failed"


def _author(event: CanonicalEvent) -> RemoteUser:
    author = event.content.get("author") if isinstance(event.content, dict) else None
    named = author if isinstance(author, dict) else {}
    shown = named.get("display_name")
    return RemoteUser(event.sender, str(named.get("username", "")), shown if isinstance(shown, str) else None)


def _told(refusal: Refusal) -> str:
    if refusal.code is ErrorCode.NOT_FOUND:  # or the sender may not see it
        return "channel not found"
    return refusal.details[0].message if refusal.details else refusal.message


@route(
    "GET", "/federation/channels/{channel_id}/events", "Read a channel's log, for a server whose users may read it",
    {200: ChannelEvents}, auth="server", client=False, query=(SINCE, EVENT_LIMIT), when_off=_events_off,
)  # fmt: skip
def list_for_server(call: Call[None, None], channel_id: str) -> Operation[Response]:
    """Read a page. It is empty for a channel that no user of the server may read, and for one that does not exist."""
    page: tuple[StoredEvent, ...] = ()
    guild_id = yield from FindReadable(server=call.server.server, channel_id=channel_id)
    if guild_id is not None:
        require_unrestricted(call.ctx, call.server, guild_id, reads=True)
        limit = call.query.get("limit", DEFAULT_PAGE_EVENTS)
        page = (yield from ReadEvents(log_id=channel_id, limit=limit, after=call.query.get("since"))) or ()
        page = page[: count_within_bytes([event.wire for event in page])]
    lines = [ListedEvent(event.sequence, event.log_id, msgspec.Raw(event.wire)) for event in page]
    return Response.json(ChannelEvents(call.ctx.service.settings.server_name, channel_id, lines))


@route(
    "GET", "/federation/guilds/{guild_id}/context", "List the other servers that have members in a guild", {200: GuildContext},
    rights=in_guild(Permission.READ),
)  # fmt: skip
def show_context(call: Call[None, GuildAccess], guild_id: str) -> Operation[Response]:
    """Show the servers. The trust is that of the least trusted one: `limited` is quarantine, `untrusted` is denied."""
    ctx, origin = call.ctx, call.access.guild.origin
    servers = set((yield from ListGuildHomes(guild_id=guild_id, reader_id=call.claims.user_id)))
    if origin is not None:
        servers.add(origin)
    found = set()
    for server in sorted(servers):
        peer = yield from known_peer(ctx, server)
        found.add(judge(ctx.service.settings.federation, server, peer, guild_id).standing)
    trust: Literal["trusted", "limited", "untrusted"] = "trusted"
    if Standing.DENY in found:
        trust = "untrusted"
    elif Standing.QUARANTINE in found:
        trust = "limited"
    return Response.json(GuildContext(guild_id, sorted(servers), trust, from_millis(ctx.wall_ms)))
