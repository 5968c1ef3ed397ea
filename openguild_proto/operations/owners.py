"""Requests to the owner server of a mirrored guild: join, post, change, read older events (PROTOCOL 16.5 to 16.7)."""

from __future__ import annotations

import re
from typing import Any, TypeVar, get_args
from urllib.parse import parse_qsl, urlencode

import msgspec

from openguild_proto.canonical.event import BuiltEvent
from openguild_proto.canonical.keys import decode_unpadded
from openguild_proto.canonical.verify import UnverifiedEvent
from openguild_proto.effects.accounts import DescribeUser
from openguild_proto.effects.base import Operation
from openguild_proto.effects.federation import AskPeer, PeerUnavailable, Standing
from openguild_proto.effects.mirrors import MirrorEvents
from openguild_proto.errors import ErrorCode, FieldProblem, Refusal
from openguild_proto.federation.policy import Verdict
from openguild_proto.http.message import EPOCH_HEADER, JSON, Response
from openguild_proto.limits import (
    MAX_DECISION_BYTES,
    MAX_PAGE_ANSWER_BYTES,
    MAX_PEER_ANSWER_BYTES,
    MAX_REASON_CHARS,
    MAX_SAFE_INTEGER,
    MAX_SHORT_ANSWER_BYTES,
    OWNER_RETRY_SECS,
    PEER_ANSWER_SECS,
)
from openguild_proto.mirror_records import RemoteUser
from openguild_proto.operations.call import Call
from openguild_proto.operations.context import Context, Limit
from openguild_proto.operations.epochs import LOG_HEAD
from openguild_proto.operations.idempotency import KEY_HEADER
from openguild_proto.operations.mirrored_events import read_mirrored
from openguild_proto.operations.owner_changes import follow_owner, moved
from openguild_proto.operations.owner_claims import is_answer
from openguild_proto.operations.servers import denied, keys_for_events, require_dealings
from openguild_proto.policy.permissions import HANDED_OVER_RETRY_SECS
from openguild_proto.records import ChannelAccess, LogPosition
from openguild_proto.schemas.between_servers import Proposal, ProposalAnswer, UserAnswer, UserRequest

T = TypeVar("T")

_VALUE = re.compile(r"[!-~]{1,256}", re.ASCII)  # of a header: an epoch, a position, a cursor

CODES = {code.spec.code: code for code in ErrorCode}
OURS = frozenset({401, 500, 501, 502, 503, 504})
"""Statuses of an owner that are about servers, and not about the user's request."""

MAX_WAIT_MS = 3_600_000  # ours: maximum accepted wait for a user
CHECK_SECS = 3.0  # ours: for a question while another server waits for a response
MAX_DETAILS = 20  # ours: in an error


class _Problem(msgspec.Struct):
    field: str
    message: str


class _ErrorBody(msgspec.Struct):
    error: str
    message: str | None = None
    details: tuple[_Problem, ...] = ()
    limit: str | None = None
    retry_after_ms: int | None = None


def ask_owner(
    server: str,
    method: str,
    target: str,
    body: msgspec.Struct | None,
    kind: type[T],
    max_bytes: int = MAX_PEER_ANSWER_BYTES,
    timeout_secs: float = PEER_ANSWER_SECS,
) -> Operation[T]:
    """Return the answer of an owner. Raises Refusal: 503 `guild_offline` without an answer, or the owner's refusal.

    501 `not_implemented` if federation is off here: no server is contacted, now or later (PROTOCOL 16.4.1).
    """
    sent = msgspec.json.encode(body) if body is not None else b""
    try:
        answer = yield from AskPeer(server, method, target, sent, timeout_secs, max_bytes)
    except PeerUnavailable as failure:
        if failure.reason == "denied":
            raise denied(Verdict(Standing.DENY, failure.detail)) from None
        if failure.reason == "off":
            raise Refusal(ErrorCode.NOT_IMPLEMENTED, "federation is off on this server") from None
        raise offline(failure.wait_secs) from None
    if answer.status >= 400:
        raise refusal_of(answer.status, answer.body)
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise offline() from None


def is_mirrored(server: str, log_id: str) -> Operation[bool | None]:
    """Return whether another server confirms that this one mirrors its log. None: it gives no answer."""
    target = f"/federation/v1/logs/{log_id}/events?since={MAX_SAFE_INTEGER}&limit=1"
    try:
        answer = yield from AskPeer(server, "GET", target, b"", CHECK_SECS, MAX_SHORT_ANSWER_BYTES)
    except PeerUnavailable:
        return None
    return True if answer.status == 200 else False if answer.status == 404 else None


def offline(wait_secs: float | None = None) -> Refusal:
    """Return the error 503 `guild_offline`: the owner cannot be reached, or gave no valid response."""
    return Refusal(ErrorCode.GUILD_OFFLINE, wait_secs=wait_secs if wait_secs is not None else OWNER_RETRY_SECS)


def refusal_of(status: int, body: bytes) -> Refusal:
    """Convert the error of an owner to one of this server."""
    if len(body) > MAX_SHORT_ANSWER_BYTES:
        return offline()
    try:
        told = msgspec.json.decode(body, type=_ErrorBody)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return offline()
    code = CODES.get(told.error)
    wait_secs = None
    if told.retry_after_ms is not None:
        wait_secs = min(max(told.retry_after_ms, 0), MAX_WAIT_MS) / 1000
    if code is None or code is ErrorCode.SERVER_RATE_LIMIT or status in OURS or code.spec.status != status:
        return offline(wait_secs)
    message = told.message if told.message is not None and len(told.message) <= MAX_REASON_CHARS else None
    details = tuple(FieldProblem(problem.field, problem.message) for problem in told.details[:MAX_DETAILS])
    return Refusal(code, message, details=details, limit=told.limit, wait_secs=wait_secs)


def remote_user(call: Call[Any, Any]) -> Operation[RemoteUser]:
    """Return the caller in the form that other servers know. Raises Refusal 401 for a deleted account."""
    profile = yield from DescribeUser(user_id=call.claims.user_id, limit=0)
    if profile is None:
        raise Refusal(ErrorCode.UNAUTHORIZED)
    return RemoteUser(profile.user.user_id, profile.user.username, profile.user.display_name)


def _follow_moved(call: Call[Any, Any], refusal: Refusal, server: str, guild_id: str | None) -> Operation[None]:
    """Follow a guild that has moved according to a server, and raise Refusal 503: the next request goes to the new owner."""
    if refusal.code is not ErrorCode.GUILD_MOVED:
        return
    if guild_id is not None:
        yield from follow_owner(call.ctx, guild_id, server)
    raise offline(HANDED_OVER_RETRY_SECS) from None


# --- requests of users -----------------------------------------------------------------------------


def pass_to_owner(
    call: Call[Any, Any],
    server: str,
    guild_id: str | None = None,
    *,
    query: str | None = None,
    timeout_secs: float = PEER_ANSWER_SECS,
) -> Operation[Response]:
    """Let the owner answer the caller's request as that of a local user (PROTOCOL 16.7). Raises Refusal.

    `guild_id`: if the call does not know it. Other servers must call the owner of a guild directly: they get 421.
    `query`: instead of the caller's.
    """
    guild_id = call.guild_id or guild_id
    if call.is_remote:
        raise moved(guild_id, server) if guild_id is not None else Refusal(ErrorCode.NOT_FOUND)
    yield from require_dealings(call.ctx, server, guild_id)
    request = call.request
    keys = request.all_headers(KEY_HEADER)
    user = yield from remote_user(call)
    query = request.query if query is None else query
    asked = UserRequest(
        user,
        request.method,
        f"{request.path}?{query}" if query else request.path,
        request.body.decode("utf-8", "replace") if request.body else None,
        keys[0] if len(keys) == 1 else None,
    )
    target, most = "/federation/v1/requests", MAX_PAGE_ANSWER_BYTES
    answer = yield from ask_owner(server, "POST", target, asked, UserAnswer, most, timeout_secs)
    if answer.status >= 400:
        refusal = refusal_of(answer.status, (answer.body or "").encode())
        yield from _follow_moved(call, refusal, server, guild_id)
        raise refusal
    if answer.status not in call.route.responses:
        raise offline()
    kind, here = call.route.responses[answer.status], call.ctx.service.settings.server_name
    told = {name.lower() for name in call.route.response_headers}
    try:
        body = seen_from(here, (answer.body or "").encode(), server, kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise offline() from None
    return Response(
        status=answer.status,
        body=body,
        headers=tuple(
            (name, value) for name, value in answer.headers.items() if name in told and _VALUE.fullmatch(value)
        ),
        content_type=JSON if body else None,
    )


def seen_from(here: str, body: bytes, owner: str, kind: Any) -> bytes:
    """Return an answer of the route from `owner`, with the `origin` of guilds, users and messages from the view of `here`.

    Members that the route does not have are omitted and not decoded, because there could be millions of them.

    Raises MsgspecError, UnicodeDecodeError and RecursionError for an answer of another route.
    """
    if kind is None:
        return b""
    value: Any = msgspec.json.decode(body, type=kind)
    (shown,) = get_args(kind) or (kind,)
    absent = next((each.default for each in msgspec.structs.fields(shown) if each.name == "origin"), None)
    if "origin" in shown.__struct_fields__:
        is_list = isinstance(value, list)
        seen = [_seen(line, here, owner, absent) for line in (value if is_list else [value])]
        value = seen if is_list else seen[0]
    return msgspec.json.encode(value)


def _seen(line: Any, here: str, owner: str, absent: object) -> Any:
    origin = owner if line.origin == absent else line.origin
    return msgspec.structs.replace(line, origin=absent if origin == here else origin)


class _Line(msgspec.Struct):
    sequence: int = 0


def read_at_owner(call: Call[Any, Any], server: str, here: LogPosition) -> Operation[Response | Refusal]:
    """Read data that only the owner has, up to the mirror's position `here`: the reader continues from there on this server.

    Return the refusal if the owner cannot be reached, is not contacted (501), or has another epoch: the caller raises it
    unless local data answer the request. Raises Refusal, also if the user reads too fast, because all users of this server
    share its budget at the owner.
    """
    wait_secs = call.ctx.service.user_owner_reads.hit(call.claims.user_id, call.ctx.now)
    if wait_secs is not None:
        raise Limit.OWNER_READS.refusal(wait_secs)
    try:
        answer = yield from pass_to_owner(call, server, query=_up_to(call, here.sequence))
    except Refusal as refusal:
        if refusal.code in {ErrorCode.GUILD_OFFLINE, ErrorCode.NOT_IMPLEMENTED}:
            return refusal
        raise
    headers = {name.lower(): value for name, value in answer.headers}
    epoch, head = headers.get(EPOCH_HEADER), headers.get(LOG_HEAD.lower())
    if epoch is None:  # not a page of the log
        return answer
    if epoch != str(here.epoch):
        return offline()
    if head is not None:
        headers[LOG_HEAD.lower()] = str(here.sequence)
    return msgspec.structs.replace(answer, headers=tuple(headers.items()), body=_cut(answer.body, here.sequence))


def _up_to(call: Call[Any, Any], head: int) -> str:
    """Return the query, limited to the part of the log that a mirror with the position `head` has."""
    bounds, given = {each.name for each in call.route.query or ()}, call.query
    if "before" not in bounds or "since" in given or "after" in given:
        return call.request.query
    name, most = ("around", head) if "around" in given else ("before", head + 1)
    others = [pair for pair in parse_qsl(call.request.query) if pair[0] != name]
    return urlencode([*others, (name, min(given.get(name, most), most))])


def _cut(body: bytes, head: int) -> bytes:
    """Return a list without its lines after `head`."""
    if not body.startswith(b"["):
        return body
    lines = msgspec.json.decode(body, type=list[msgspec.Raw])
    return b"[%b]" % b",".join(bytes(line) for line in lines if msgspec.json.decode(line, type=_Line).sequence <= head)


# --- proposals -------------------------------------------------------------------------------------


def propose(
    call: Call[Any, ChannelAccess], server: str, built: BuiltEvent, nonce: str | None
) -> Operation[ProposalAnswer]:
    """Let the owner decide on an event, and store it here at once if no event before it is missing. Raises Refusal."""
    access = call.access
    yield from require_dealings(call.ctx, server, access.channel.guild_id)
    user = yield from remote_user(call)
    proposal = Proposal(user, built.wire.decode(), nonce)
    channel_id = access.channel.channel_id
    target = f"/federation/v1/logs/{channel_id}/proposals"
    try:
        answer = yield from ask_owner(server, "POST", target, proposal, ProposalAnswer, MAX_DECISION_BYTES)
    except Refusal as refusal:
        yield from _follow_moved(call, refusal, server, access.channel.guild_id)
        raise
    if not is_answer(answer):
        raise offline()
    if answer.event_id != built.event_id and not (answer.repeated or answer.sequence is None):
        raise offline()  # a response to another request
    if answer.event is not None and answer.sequence is not None and not answer.repeated:
        yield from _keep(call.ctx, access, server, answer)
    return answer


def _keep(ctx: Context, access: ChannelAccess, server: str, answer: ProposalAnswer) -> Operation[None]:
    channel = access.channel
    if answer.epoch != channel.epoch:
        return  # the owner has a new epoch; the delivery restarts the mirror
    place = LogPosition(channel.channel_id, channel.epoch, answer.sequence or 0)
    here = ctx.service.settings.federation.server_name
    keys = yield from keys_for_events(ctx, server)
    try:
        event = read_mirrored(
            (answer.event or "").encode(),
            place,
            server,
            here,
            keys.at,
            at_ms=answer.created_at_ms or ctx.wall_ms,
            of_guild=False,
        )
        receipt = decode_unpadded(answer.receipt) if answer.receipt is not None else None
    except (UnverifiedEvent, ValueError):
        return  # the delivery brings the event
    yield from MirrorEvents(
        origin=server,
        guild_id=channel.guild_id,
        log_id=channel.channel_id,
        epoch=channel.epoch,
        events=(event,),
        receipt=receipt,
    )
