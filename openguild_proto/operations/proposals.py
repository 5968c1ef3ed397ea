"""Events that users of other servers propose for channels of this server (PROTOCOL 16.6)."""

from __future__ import annotations

from base64 import b64decode

from openguild_proto.canonical.encode import CanonicalError, canonical_json
from openguild_proto.canonical.event import CanonicalEvent, canonical_bytes, event_hash, wire_bytes
from openguild_proto.canonical.signing import verify
from openguild_proto.canonical.verify import ServerKeys, UnverifiedEvent, Verified, verify_event
from openguild_proto.effects.base import Operation
from openguild_proto.effects.channels import AppendEvent, AppendFailure, FindChannelAccess, Unchanged
from openguild_proto.effects.mirrors import KnowRemoteUser
from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.http.message import Response
from openguild_proto.limits import (
    MAX_PROPOSAL_BODY_BYTES,
    MAX_PROPOSAL_SKEW_MS,
    MAX_PROPOSED_BYTES_BESIDE_TEXT,
    MAX_REASON_CHARS,
)
from openguild_proto.log.chains import receipt_at
from openguild_proto.mirror_records import RemoteUser
from openguild_proto.operations.call import Call
from openguild_proto.operations.context import Context, Limit
from openguild_proto.operations.idempotency import checked_nonce
from openguild_proto.operations.messages import checked_event_id, checked_text
from openguild_proto.operations.mirrored_events import read_event
from openguild_proto.operations.owner_changes import moved
from openguild_proto.operations.owner_claims import event_problem
from openguild_proto.operations.peer_guilds import checked_user
from openguild_proto.operations.posting import fingerprint_of
from openguild_proto.operations.route import route
from openguild_proto.operations.servers import PeerCaller, keys_of, require_unrestricted, spend
from openguild_proto.policy.emoji import checked_emoji
from openguild_proto.policy.mentions import allowed_mentions, find_mentions
from openguild_proto.policy.names import text_problem
from openguild_proto.policy.permissions import Permission, effective_role, require_channel
from openguild_proto.records import (
    Author,
    Change,
    ChannelAccess,
    ClearReactions,
    Edit,
    LogPosition,
    MessageState,
    React,
    Redact,
)
from openguild_proto.schemas.between_servers import Proposal, ProposalAnswer
from openguild_proto.schemas.event_effects import EventEffect, effect_of_event
from openguild_proto.schemas.events import (
    AnyContent,
    EditContent,
    MessageContent,
    PinContent,
    ReactionContent,
    ReactionsClearedContent,
    RedactionContent,
    UnknownContent,
    parse_content,
)

PROPOSED = (  # PROTOCOL 16.6.2
    MessageContent, EditContent, RedactionContent, ReactionContent, ReactionsClearedContent, PinContent,
)  # fmt: skip
ERRORS = (
    ErrorCode.NOT_FOUND, ErrorCode.FORBIDDEN, ErrorCode.NONCE_REUSED, ErrorCode.MESSAGE_REDACTED, ErrorCode.LIMIT_REACHED,
    ErrorCode.ID_TAKEN, ErrorCode.MESSAGE_RATE_LIMIT, ErrorCode.SERVER_QUARANTINED, ErrorCode.GUILD_MOVED, ErrorCode.GUILD_OFFLINE,
)  # fmt: skip


@route(
    "POST", "/federation/v1/logs/{log_id}/proposals", "Propose an event of a user of another server", {200: ProposalAnswer},
    auth="server", client=False, body=Proposal, max_body_bytes=MAX_PROPOSAL_BODY_BYTES, errors=ERRORS,
)  # fmt: skip
def propose_event(call: Call[Proposal, None], log_id: str) -> Operation[Response]:
    """Decide on the event like that of a local user, and countersign it. A repeat with the same nonce gets the first answer."""
    return Response.json((yield from take_proposal(call.ctx, call.server, call.body, log_id)))


def take_proposal(ctx: Context, caller: PeerCaller, body: Proposal, log_id: str) -> Operation[ProposalAnswer]:
    """Append a proposed event, or return the first response to a repeat. Raises Refusal."""
    require_unrestricted(ctx, caller)
    spend(ctx, ctx.service.peer_proposals, caller.server)
    user = checked_user(body.user)
    nonce, wire = checked_nonce(body.nonce), body.event.encode()
    keys = yield from keys_of(ctx, caller.server, ctx.wall_ms)
    event = _checked_event(ctx, caller.server, user.user_id, log_id, wire, keys)
    yield from KnowRemoteUser(peer=caller.server, user=user, now_ms=ctx.wall_ms)
    content = parse_content(event)
    said = effect_of_event(event, content)
    access = yield from FindChannelAccess(channel_id=log_id, user_id=user.user_id)
    require_channel(access, Permission.READ)
    if access is None:
        raise Refusal(ErrorCode.NOT_FOUND)
    if access.channel.origin is not None:
        raise moved(access.channel.guild_id, access.channel.origin)
    require_unrestricted(ctx, caller, access.channel.guild_id)
    wait_secs = ctx.service.user_messages.hit(user.user_id, ctx.now)
    if wait_secs is not None:
        raise Limit.MESSAGES.refusal(wait_secs)
    _check_said(event, content, user, said, access)
    countersigned = _countersigned(ctx, event, caller.server, keys)
    problem = event_problem(event, content, countersigned, ctx.wall_ms)
    if problem is not None:  # mirrors would refuse it and all later events
        raise _problem(problem)
    outcome = yield from AppendEvent(
        author=Author(user.user_id),
        channel_id=log_id,
        sender_id=user.user_id,
        event_id=event.event_id,
        event_type=event.event_type,
        wire=countersigned,
        nonce=nonce,
        fingerprint=fingerprint_of(event.event_type, _target(said.change), *said.said),
        now_ms=ctx.wall_ms,
        change=said.change,
        mentions=said.mentions,
    )
    if isinstance(outcome, Unchanged):
        return _unchanged(outcome.state)
    if isinstance(outcome, AppendFailure):
        raise Refusal(ErrorCode.NONCE_REUSED if outcome.kind == "nonce_reused" else ErrorCode.NOT_FOUND)
    stored = outcome.event
    receipt = yield from receipt_at(LogPosition(log_id, access.channel.epoch, stored.sequence), ctx.service.signer)
    return ProposalAnswer(
        stored.event_id,
        stored.sequence,
        stored.created_at_ms,
        stored.wire.decode(),
        outcome.repeated,
        receipt.text if receipt is not None else None,
        access.channel.epoch,
    )


def _unchanged(state: MessageState) -> ProposalAnswer:
    return ProposalAnswer(state.event_id)


def _target(change: Change | None) -> str | None:
    return change.target if change is not None else None


def _checked_event(
    ctx: Context, server: str, user_id: str, log_id: str, wire: bytes, keys: ServerKeys
) -> CanonicalEvent:
    """Return the event, complete and signed by its home server. Raises Refusal 400."""
    try:
        event = read_event(wire)
        if verify_event(wire, keys, server) is not Verified.WHOLE:
            raise UnverifiedEvent("it has no content")
    except UnverifiedEvent as fault:
        raise _problem(str(fault)) from None
    if event.schema_version != 1 or event.prev_events or event.auth_events:
        raise _problem("its schema version is not 1")
    if event.origin_server != server or event.sender != user_id or event.room_id != log_id:
        raise _problem("its sender or its log does not match the request")
    if abs(event.origin_ts - ctx.wall_ms) > MAX_PROPOSAL_SKEW_MS:
        raise _problem("its time differs from this server's clock by more than ten minutes")
    return event


def _check_said(
    event: CanonicalEvent,
    content: AnyContent | UnknownContent,
    user: RemoteUser,
    said: EventEffect,
    access: ChannelAccess,
) -> None:
    """Check the event's content as the client route does. Raises Refusal."""
    if not isinstance(content, PROPOSED):
        raise _problem("events of this type cannot be proposed, or its content is invalid")
    if content.author.id != event.sender:
        raise _problem("its author is not its sender")
    if content.author.username not in {user.username, user.user_id}:
        raise _problem("its author has another name than its sender")
    if _bytes_beside_text(event, content) > MAX_PROPOSED_BYTES_BESIDE_TEXT:
        raise _problem(f"it has more than {MAX_PROPOSED_BYTES_BESIDE_TEXT} bytes besides its text")
    if said.change is not None:
        checked_event_id("event.content", said.change.target)
    match said.change:
        case React(emoji=emoji):
            if checked_emoji(emoji) != emoji:
                raise _problem("the emoji is not normalized")
        case Edit(text=text):
            _check_text(text)
        case Redact(reason=str(reason)) | ClearReactions(reason=str(reason)):
            if not 0 < len(reason) <= MAX_REASON_CHARS:
                raise _problem(f"a reason has 1 to {MAX_REASON_CHARS} characters")
            if reason.strip() != reason or text_problem(reason) is not None:
                raise _problem("the reason is not trimmed, or has control characters")
    if isinstance(content, MessageContent):
        _check_text(content.content)
        role = effective_role(access.server_roles, access.guild_role, access.channel_role) or ""
        named = find_mentions(content.content)
        mentions = said.mentions
        permitted = allowed_mentions(
            named, role=role, users=mentions.users, roles=mentions.roles, everyone=mentions.everyone
        )
        if permitted != mentions:
            raise _problem("its mentions do not match its text")


def _bytes_beside_text(event: CanonicalEvent, content: AnyContent | UnknownContent) -> int:
    """Return the size of the content without the text, which has its own bound. Unknown members count."""
    text = content.content if isinstance(content, MessageContent | EditContent) else ""
    return len(canonical_json(event.content, strict=False)) - len(canonical_json(text))


def _check_text(text: str) -> None:
    if checked_text(text) != text:
        raise _problem("the text is not trimmed")


def _countersigned(ctx: Context, event: CanonicalEvent, server: str, keys: ServerKeys) -> bytes:
    """Return the event with the valid signatures of its home and of this server only, because no redaction removes signatures."""
    try:
        canonical = canonical_bytes(event)
    except CanonicalError as fault:
        raise _problem(str(fault)) from None
    digest = event_hash(canonical)
    known, given = keys[server], event.signatures[server]
    good = {
        name: text for name, text in given.items() if name in known and verify(known[name], digest, b64decode(text))
    }
    signatures = {server: good}
    if ctx.service.signer is not None:
        signatures |= ctx.service.signer.sign(digest)
    return wire_bytes(canonical, event.event_id, signatures)


def _problem(message: str) -> Refusal:
    return Refusal(ErrorCode.VALIDATION, details=(FieldProblem("event", message),))
