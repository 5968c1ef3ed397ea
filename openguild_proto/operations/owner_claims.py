"""Checks the data of a mirrored guild's owner before it is stored; an honest owner has checked all of it (PROTOCOL 16.8.14).

Texts are refused only if they cannot be stored, or mislead readers everywhere: releases differ in the characters that they know.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from openguild_proto.canonical.event import CanonicalEvent
from openguild_proto.canonical.keys import decode_unpadded
from openguild_proto.federation.server_names import NameFault, parse_server_name
from openguild_proto.limits import (
    MAX_EMOJI_CHARS,
    MAX_EVENT_VALUES,
    MAX_INVITE_USES,
    MAX_MENTIONED_USERS,
    MAX_MESSAGE_CHARS,
    MAX_MIRRORED_EVENT_BYTES,
    MAX_MIRRORED_MS,
    MAX_NAME_CHARS,
    MAX_POSITION,
    MAX_REASON_CHARS,
    MAX_SAFE_INTEGER,
    MAX_SIGNATURES_PER_SERVER,
    MAX_SIGNING_SERVERS,
    MAX_TOPIC_CHARS,
)
from openguild_proto.mirror_records import GuildBan, MirroredChannel, MirroredMember, Snapshot, TransferredInvite
from openguild_proto.policy.invites import parse_code
from openguild_proto.policy.names import text_problem
from openguild_proto.policy.permissions import ROLES
from openguild_proto.schemas.between_servers import ProposalAnswer, RemoteInvite, check_snapshot
from openguild_proto.schemas.decode import parse_uuid
from openguild_proto.schemas.events import (
    SAID_BY_USERS,
    AnyContent,
    EditContent,
    MentionedParties,
    MessageContent,
    ReactionContent,
    ReactionsClearedContent,
    RedactionContent,
    UnknownContent,
)
from openguild_proto.schemas.fields import EVENT_ID_PATTERN
from openguild_proto.schemas.log_contents import MemberBannedContent, MemberTimedOutContent
from openguild_proto.timestamps import to_millis

_EVENT_ID = re.compile(EVENT_ID_PATTERN)
_TYPE = re.compile(r"[!-~]{1,64}", re.ASCII)
_SENDER = re.compile(r"[!-~]{1,255}", re.ASCII)  # a user or the server
_MISLEADING = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069]")  # line breaks, directional marks
_CHAIN_BYTES = 32
_SIGNATURE_BYTES = 64
_KEY_NAME = re.compile(r"ed25519:[A-Za-z0-9_.:-]{1,64}", re.ASCII)  # PROTOCOL 16.1.3
_MAX_USES = 2**31 - 1  # PostgreSQL's integer; the uses of an unlimited invite


def cost_problem(event: CanonicalEvent) -> str | None:
    """Return why an event is not verified at all; None: verifying it takes a bounded time."""
    if len(event.prev_events) + len(event.auth_events) > MAX_EVENT_VALUES or _has_many_values(event.content):
        return f"it has more than {MAX_EVENT_VALUES} values"
    signatures = event.signatures
    if len(signatures) > MAX_SIGNING_SERVERS or any(
        len(each) > MAX_SIGNATURES_PER_SERVER for each in signatures.values()
    ):
        return "it has too many signatures"
    return None


def form_problem(event: CanonicalEvent) -> str | None:
    """Return why an event is not verified at all; None: that takes a bounded time, and its signatures contain nothing else."""
    problem = cost_problem(event)
    if problem is not None:
        return problem
    for server, by_key in event.signatures.items():
        if (
            not _is_server(server)
            or not all(map(_KEY_NAME.fullmatch, by_key))
            or not all(map(_is_signature, by_key.values()))
        ):
            return "its signatures are malformed"
    return None


def event_problem(event: CanonicalEvent, content: AnyContent | UnknownContent, wire: bytes, at_ms: int) -> str | None:
    """Return why an event cannot be stored; None: it can."""
    if len(wire) > MAX_MIRRORED_EVENT_BYTES:
        return "it is too large"
    if not _is_moment(at_ms):
        return "its storage time is invalid"
    if not _is_moment(event.origin_ts) or not _is_count(event.schema_version):
        return "its time or schema version is invalid"
    if _TYPE.fullmatch(event.event_type) is None or _SENDER.fullmatch(event.sender) is None:
        return "its type or sender is invalid"
    if not _is_server(event.origin_server):
        return "its origin is not a server name"
    members = _members(content)
    if not all(_FIELDS[name](value) for name, value in members.items() if name in _FIELDS and value is not None):
        return "its content is not valid for its type"
    if event.event_type in SAID_BY_USERS and not _is_of_its_sender(event, content):
        return "its content does not match its sender"
    match content:
        case UnknownContent():  # readers of a page would parse it
            well_formed = event.event_type not in SAID_BY_USERS
        case MessageContent(content=text, mentions=named):
            well_formed = _is_text(text) and (named is None or _may_be_mentioned(named))
        case EditContent(content=text):
            well_formed = _is_text(text)
        case RedactionContent(reason=str(reason)) if len(reason) > MAX_REASON_CHARS:
            well_formed = False
        case ReactionContent(emoji=emoji):
            well_formed = _is_emoji(emoji)
        case ReactionsClearedContent(emoji=emoji, reason=reason):
            well_formed = (emoji is None or _is_emoji(emoji)) and len(reason or "") <= MAX_REASON_CHARS
        case MemberBannedContent(reason=str(reason)) | MemberTimedOutContent(reason=str(reason)):
            well_formed = _is_reason(reason)
        case _:
            well_formed = True
    return None if well_formed else "its content is not valid for its type"


def snapshot_problem(snapshot: Snapshot) -> str | None:
    """Return why a snapshot cannot be stored; None: it can."""
    channel_ids = [channel.channel_id for channel in snapshot.channels]
    if not _is_uuid(snapshot.guild_id) or not _is_name(snapshot.name) or not _is_moment(snapshot.created_at_ms):
        return "the guild's id, name or creation time is invalid"
    if not is_place(snapshot.epoch, snapshot.sequence, snapshot.chain):
        return "the position of the guild's log is invalid"
    if not 1 <= snapshot.term <= MAX_SAFE_INTEGER or not _is_count(snapshot.serial):
        return "the guild's term or serial is invalid"
    if len({snapshot.guild_id, *channel_ids}) <= len(channel_ids):
        return "an id occurs twice"
    problems = (
        *map(member_problem, snapshot.members),
        *map(_channel_problem, snapshot.channels),
        *map(_ban_problem, snapshot.bans),
    )
    return check_snapshot(snapshot) or next((problem for problem in problems if problem is not None), None)


def member_problem(member: MirroredMember) -> str | None:
    """Return why a member cannot be stored; None: they can."""
    names: Iterable[str] = (member.username, *([member.display_name] if member.display_name is not None else []))
    if not _is_uuid(member.user_id) or not all(map(_is_name, names)) or member.role not in ROLES:
        return "a member's id, name or role is invalid"
    moments = (member.joined_at_ms, member.timed_out_until_ms or 0)
    if not all(map(_is_moment, moments)) or not (member.origin is None or _is_server(member.origin)):
        return "a member's server, joining time or time-out is invalid"
    return None


def invite_problem(invite: RemoteInvite) -> str | None:
    """Return why an invite cannot be shown, or None."""
    if not _is_uuid(invite.guild_id) or not _is_name(invite.guild_name) or not _is_count(invite.member_count):
        return "its guild is invalid"
    return _bounds_problem(invite)


def transferred_problem(invite: TransferredInvite) -> str | None:
    """Return why an invite of a guild that is handed over cannot be stored; None: it can."""
    if parse_code(invite.code) is None or not _is_moment(invite.created_at_ms):
        return "an invite's code or creation time is invalid"
    return _bounds_problem(invite)


def _bounds_problem(invite: RemoteInvite | TransferredInvite) -> str | None:
    most, expires = invite.max_uses, invite.expires_at_ms
    if not _is_uuid(invite.created_by):
        return "an invite's creator is invalid"
    if not 0 <= invite.uses <= _MAX_USES or not (most is None or 1 <= most <= MAX_INVITE_USES):
        return "an invite's number of uses is invalid"
    return None if expires is None or _is_moment(expires) else "an invite's expiry is invalid"


def is_answer(answer: ProposalAnswer) -> bool:
    """Return whether the response to a proposal may be shown to the user who posted."""
    at_ms, sequence = answer.created_at_ms, answer.sequence
    return (
        _EVENT_ID.fullmatch(answer.event_id) is not None
        and (at_ms is None or _is_moment(at_ms))
        and (sequence is None or 1 <= sequence <= MAX_SAFE_INTEGER)
    )


def _channel_problem(channel: MirroredChannel) -> str | None:
    shown = _is_name(channel.name) and (channel.topic is None or _is_topic(channel.topic))
    if not _is_uuid(channel.channel_id) or not shown or not _is_position(channel.position):
        return "a channel's id, name, topic or position is invalid"
    if not _is_moment(channel.created_at_ms) or not is_place(channel.epoch, channel.sequence, channel.chain):
        return "a channel's creation time or the position of its log is invalid"
    if not _is_count(channel.messages):
        return "a channel's number of messages is invalid"
    if not all(_is_uuid(user_id) and role in ROLES for user_id, role in channel.roles.items()):
        return "a role in a channel is invalid"
    return None


def _ban_problem(ban: GuildBan) -> str | None:
    if not _is_uuid(ban.user_id) or not _is_uuid(ban.banned_by) or not _is_moment(ban.banned_at_ms):
        return "a ban's user, moderator or time is invalid"
    has_name = ban.username is None or _is_name(ban.username)
    return (
        None if has_name and (ban.reason is None or _is_reason(ban.reason)) else "a ban's username or reason is invalid"
    )


def _has_many_values(content: Any) -> bool:
    left, found = [content], 0
    while left and found <= MAX_EVENT_VALUES:
        value = left.pop()
        found += 1
        if isinstance(value, dict | list):
            if len(value) > MAX_EVENT_VALUES:
                return True
            left += value.values() if isinstance(value, dict) else value
    return found > MAX_EVENT_VALUES


def _is_signature(text: str) -> bool:
    """Return whether a text is a signature in canonical base64."""
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        return False
    return len(raw) == _SIGNATURE_BYTES and base64.b64encode(raw).decode() == text


def _members(content: Any) -> dict[str, Any]:
    return {name: getattr(content, name) for name in getattr(content, "__struct_fields__", ()) if name != "content"}


def _is_of_its_sender(event: CanonicalEvent, content: AnyContent | UnknownContent) -> bool:
    """Whether the sender is a user, and readers see the same user as the author."""
    author = getattr(content, "author", None)
    is_author = author is None or (author.id == event.sender and _is_name(author.username))
    return _is_uuid(event.sender) and is_author


def _may_be_mentioned(named: MentionedParties) -> bool:
    users, roles = {*named.users}, {*named.roles}
    is_named_once = len(users) == len(named.users) and len(roles) == len(named.roles)
    return is_named_once and len(users) <= MAX_MENTIONED_USERS and all(map(_is_uuid, users)) and roles <= {*ROLES}


def _is_uuid(text: str) -> bool:
    return parse_uuid(text) == text


def _is_name(text: str) -> bool:
    return 1 <= len(text) <= MAX_NAME_CHARS and _is_line(text)


def _is_topic(text: str) -> bool:
    return len(text) <= MAX_TOPIC_CHARS and _is_line(text)


def _is_line(text: str) -> bool:
    """Whether a text stays in its line. `isprintable` is only for speed: it is false for some texts that stay."""
    return text.isprintable() or (text_problem(text) is None and _MISLEADING.search(text) is None)


def _is_text(text: str) -> bool:
    return len(text) <= MAX_MESSAGE_CHARS and "\0" not in text


def _is_reason(text: str) -> bool:
    return len(text) <= MAX_REASON_CHARS and "\0" not in text


def _is_emoji(text: str) -> bool:
    return 1 <= len(text) <= MAX_EMOJI_CHARS and text_problem(text) is None


def _is_position(position: int) -> bool:
    return 0 <= position <= MAX_POSITION


def _is_count(number: int) -> bool:
    return 0 <= number <= MAX_SAFE_INTEGER


def _is_moment(millis: int) -> bool:
    return 0 <= millis <= MAX_MIRRORED_MS


@lru_cache(maxsize=1_024)
def _is_server(name: str) -> bool:
    try:
        return parse_server_name(name) == name
    except NameFault:
        return False


def is_place(epoch: int, sequence: int, chain: str | None = None) -> bool:
    """Whether a log can have this position, with that value of its receipt chain."""
    try:
        has_chain = chain is None or len(decode_unpadded(chain)) == _CHAIN_BYTES
    except ValueError:
        return False
    return has_chain and 1 <= epoch <= MAX_SAFE_INTEGER and 0 <= sequence <= MAX_SAFE_INTEGER


_FIELDS: dict[str, Callable[[Any], bool]] = {
    "channel_id": _is_uuid,
    "user_id": _is_uuid,
    "name": _is_name,
    "username": _is_name,
    "display_name": _is_name,
    "topic": _is_topic,
    "position": _is_position,
    "serial": _is_count,
    "until": lambda text: to_millis(text) is not None,
    "timed_out_until": lambda text: to_millis(text) is not None,
    "role": ROLES.__contains__,
    "origin": _is_server,
    "target": lambda text: _EVENT_ID.fullmatch(text) is not None,
    "reply_to": lambda text: _EVENT_ID.fullmatch(text) is not None,
}
"""Checks of members of contents of any type, by name."""
