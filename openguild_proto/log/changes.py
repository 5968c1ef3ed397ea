"""Decides a batch of appends, some of which change messages, from the data that a store has read.

Appends are decided in order, and each sees the results of those before it: posting, editing and redacting a message in one
batch has the same result as in three batches.

A store that has read under its locks passes every append with a `AppendFacts` to `decide`. Without locks it may read the messages
and pass all appends to `decide_early`, if they are `can_decide_early`. The result may be stored if, under the locks, those messages
have the same revisions, every author may post, and no append is a repeat.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
from blake3 import blake3

from openguild_proto.canonical.redaction import redacted_wire
from openguild_proto.effects.channels import Appended, AppendEvent, AppendFailure, Unchanged
from openguild_proto.errors import LocalProtocolError, Refusal
from openguild_proto.log.commits import Outcome
from openguild_proto.policy.channels import KIND_BYTES, is_same_post
from openguild_proto.policy.messages import Asker, apply_decided, decide_change, permission_to_append
from openguild_proto.policy.permissions import Permission, handed_over, require_role, require_session
from openguild_proto.records import (
    Author,
    Change,
    ClearReactions,
    Edit,
    MessageState,
    React,
    Redact,
    SeenMessage,
    StoredEvent,
)


class AppendFacts(msgspec.Struct, frozen=True, gc=False):
    """The facts that decide one append, as they were before the batch."""

    head: int  # of the log
    messages: int  # of the log
    living: bool  # the author's session is active
    memberships: tuple[str | None, str | None]  # the author's roles in the guild and in the channel
    server_roles: tuple[str, ...]
    is_moved: bool = False  # the guild was handed over to another server
    known: StoredEvent | None = None  # stored under the nonce or the event id
    known_fingerprint: bytes = b""
    message: MessageState | None = None  # the target of the change
    has_reacted: bool = False  # whether the author has reacted with the emoji of the change
    pins: int = 0  # messages pinned to the channel, if the change pins one
    texts: tuple[tuple[int, bytes], ...] = ()  # of a redaction's target: sequence and wire of each event with a text


@dataclass(slots=True)
class NewEvent:
    """An event to store. After `decide_early`, sequence and number are counted from the start of the batch."""

    append: AppendEvent
    sequence: int
    message_number: int  # messages in the log up to here
    target: int | None  # sequence of the message that it changes or replies to, or `stray_place`
    wire: bytes
    fingerprint: bytes


def stray_place(event_id: str) -> int:
    """Return the target of an edit that has no effect, because its message is not here or another server has other rules.

    It is below every sequence, so it is no version of a message; two messages may share it.
    """
    return -1 - (int.from_bytes(blake3(event_id.encode()).digest(8), "big") >> 1)


@dataclass(slots=True)
class ChangeBatch:
    """Pass every append to `decide`, in order; then store the data in the members, in one transaction."""

    events: list[NewEvent] = field(default_factory=list)
    states: dict[tuple[str, int], tuple[int, MessageState]] = field(default_factory=dict)
    """The changed messages, by channel and sequence: the place in `events` of the last change, and the state after it."""
    reactions: dict[tuple[str, int, str, str], tuple[int, bool]] = field(default_factory=dict)
    """By channel, message, emoji and user: the place in `events` of the last change, and whether the reaction exists after it.
    Reactions that a later change clears are removed from here."""
    cleared: dict[tuple[str, int, str | None], None] = field(default_factory=dict)
    """By channel, message and emoji (None: all): reactions from before the batch to delete, before those above are stored."""
    redacted: dict[tuple[str, int], bytes] = field(default_factory=dict)  # wires of stored events without their text
    born_redacted: list[tuple[str, int, str]] = field(default_factory=list)
    """Messages that arrived already redacted: channel, sequence, the event id of their redaction."""
    _heads: dict[str, tuple[int, int]] = field(default_factory=dict)  # of a channel: newest sequence, messages
    _pins: dict[str, int] = field(default_factory=dict)  # of a channel: how many more than before the batch
    _seen: dict[tuple[str, int], SeenMessage] = field(default_factory=dict)  # of a message: one of its readings
    _posted: dict[tuple[str, str], MessageState] = field(default_factory=dict)  # in this batch, by channel and event id

    def decide(self, append: AppendEvent, facts: AppendFacts | None) -> Outcome:
        """Decide an append. `facts` None: there is no such channel. No author: another server has decided (`apply_decided`)."""
        if facts is None:
            return AppendFailure(kind="no_channel")
        try:
            role = _require_right(append, facts)
            if facts.known is not None:
                return self._repeat(append, facts.known, facts.known_fingerprint)
            if append.change is None:
                return self._append(append, facts, None)
            if append.author is None:
                return self._apply(append, append.change, facts)
            return self._change(append, append.change, append.author, role, facts)
        except (Refusal, LocalProtocolError) as failure:
            return failure

    def decide_early(self, append: AppendEvent, seen: SeenMessage | None) -> bool:
        """Decide a `can_decide_early` append. `seen`: the message that it changes. False: discard the batch, because this append
        may store nothing, or depends on more data.
        """
        change, author = append.change, append.author
        if change is None:
            self._append(append, _UNREAD, None)
            return True
        if seen is None or author is None:
            return False
        former = self._seen.setdefault((append.channel_id, seen.state.sequence), seen)
        if former.revision != seen.revision:
            return False
        facts = msgspec.structs.replace(_UNREAD, message=seen.state, has_reacted=seen.has_reacted)
        try:
            return isinstance(self._change(append, change, author, "", facts), Appended)
        except (Refusal, LocalProtocolError):
            return False

    def _repeat(self, append: AppendEvent, known: StoredEvent, fingerprint: bytes) -> Appended | AppendFailure:
        wire = self.redacted.get((append.channel_id, known.sequence))
        if wire is not None:  # by this batch
            known, fingerprint = msgspec.structs.replace(known, wire=wire), fingerprint[:KIND_BYTES]
        return repeat_of(append, known, fingerprint)

    def _change(
        self, append: AppendEvent, change: Change, author: Author, role: str, facts: AppendFacts
    ) -> Appended | Unchanged:
        before, has_reacted = self._message(append, change, author.user_id, facts)
        asker = Asker(author.user_id, role, has_reacted, facts.pins + self._pins.get(append.channel_id, 0))
        after = decide_change(before, change, asker, event_id=append.event_id, now_ms=append.now_ms)
        if before is None:
            raise LocalProtocolError("a change of no message was admitted")
        if after is None:
            return Unchanged(state=before)
        return self._become(append, change, before, after, facts)

    def _apply(self, append: AppendEvent, change: Change, facts: AppendFacts) -> Appended:
        before, has_reacted = self._message(append, change, append.sender_id, facts)
        after = apply_decided(
            before,
            change,
            append.sender_id,
            has_reacted=has_reacted,
            event_id=append.event_id,
            now_ms=append.now_ms,
        )
        if before is None or after is None:
            here = before.sequence if before is not None else None
            return self._append(append, facts, stray_place(change.target) if isinstance(change, Edit) else here)
        return self._become(append, change, before, after, facts)

    def _message(
        self, append: AppendEvent, change: Change, user_id: str, facts: AppendFacts
    ) -> tuple[MessageState | None, bool]:
        """Return the message as the batch has left it, and whether the user has reacted with the emoji of the change."""
        channel_id = append.channel_id
        before = self._posted.get((channel_id, change.target), facts.message)
        if before is not None:
            _, before = self.states.get((channel_id, before.sequence), (0, before))
        has_reacted = facts.has_reacted
        if before is not None and isinstance(change, React):
            message = channel_id, before.sequence
            if (*message, None) in self.cleared or (*message, change.emoji) in self.cleared:
                has_reacted = False
            _, has_reacted = self.reactions.get((*message, change.emoji, user_id), (0, has_reacted))
        return before, has_reacted

    def _become(
        self, append: AppendEvent, change: Change, before: MessageState, after: MessageState, facts: AppendFacts
    ) -> Appended:
        channel_id = append.channel_id
        self.states[channel_id, after.sequence] = len(self.events), after
        pinned = (after.pinned_at_ms is not None) - (before.pinned_at_ms is not None)
        self._pins[channel_id] = self._pins.get(channel_id, 0) + pinned
        if isinstance(change, React):
            self.reactions[channel_id, after.sequence, change.emoji, append.sender_id] = len(self.events), change.adds
        if isinstance(change, ClearReactions):
            self.cleared[channel_id, after.sequence, change.emoji] = None
            self._forget_reactions(channel_id, after.sequence, change.emoji)
        if isinstance(change, Redact):
            self._redact(append, after.sequence, facts.texts)
            self._forget_reactions(channel_id, after.sequence)
        return self._append(append, facts, after.sequence)

    def _append(self, append: AppendEvent, facts: AppendFacts, target: int | None) -> Appended:
        sequence, messages = self._heads.get(append.channel_id, (facts.head, facts.messages))
        is_message = append.event_type == "message"
        sequence, messages = sequence + 1, messages + is_message
        self._heads[append.channel_id] = sequence, messages
        self.events.append(NewEvent(append, sequence, messages, target, append.wire, append.fingerprint))
        if is_message:
            self._posted[append.channel_id, append.event_id] = MessageState(
                sequence, append.event_id, append.sender_id, append.now_ms, redacted_by=append.redacted_by
            )
            if append.redacted_by is not None:
                self.born_redacted.append((append.channel_id, sequence, append.redacted_by))
        return Appended(
            event=StoredEvent(
                log_id=append.channel_id,
                sequence=sequence,
                event_id=append.event_id,
                wire=append.wire,
                created_at_ms=append.now_ms,
            )
        )

    def _redact(self, append: AppendEvent, message: int, texts: tuple[tuple[int, bytes], ...]) -> None:
        for sequence, wire in texts:
            self.redacted[append.channel_id, sequence] = redacted_wire(wire, append.event_id)
        for event in self.events:
            of_message = event.sequence == message or (
                event.target == message and isinstance(event.append.change, Edit)
            )
            if of_message and event.append.channel_id == append.channel_id:
                event.wire = redacted_wire(event.wire, append.event_id)
                event.fingerprint = event.fingerprint[:KIND_BYTES]

    def _forget_reactions(self, channel_id: str, message: int, emoji: str | None = None) -> None:
        for key in [key for key in self.reactions if key[:2] == (channel_id, message) and emoji in {None, key[2]}]:
            del self.reactions[key]


_UNREAD = AppendFacts(head=0, messages=0, living=True, memberships=(None, None), server_roles=())


def can_decide_early(append: AppendEvent) -> bool:
    """Return whether an append can be decided from the message that it changes alone."""
    if append.change is not None and append.author is None:
        return False
    return permission_to_append(append.change, append.mentions) is Permission.SEND_MESSAGES


def repeat_of(append: AppendEvent, known: StoredEvent, fingerprint: bytes) -> Appended | AppendFailure:
    """Return the outcome of an append whose nonce or event id is already stored, as `known`."""
    if not is_same_post(
        fingerprint=append.fingerprint,
        stored_fingerprint=fingerprint,
        event_id=append.event_id,
        stored_event_id=known.event_id,
    ):
        return AppendFailure(kind="nonce_reused")
    return Appended(event=known, repeated=True)


def _require_right(append: AppendEvent, facts: AppendFacts) -> str:
    """Return the author's effective role, or "" without an author."""
    if append.author is None:
        return ""
    require_session(facts.living)
    needed = permission_to_append(append.change, append.mentions)
    role = require_role(facts.server_roles, facts.memberships, needed)
    if facts.is_moved:
        raise handed_over()
    return role
