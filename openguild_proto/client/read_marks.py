"""Queues read positions for the server: the newest of each channel, one at a time, with pauses (PROTOCOL 15.9.6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from openguild_proto.errors import LocalProtocolError
from openguild_proto.limits import MAX_PENDING_COMMANDS, READ_MARK_SECS
from openguild_proto.policy.backoff import Backoff

W = TypeVar("W")

KEPT = frozenset({429, 503})
"""The statuses after which a mark is sent again; any other refusal drops it."""


class ReadMark(Generic[W]):
    """A position in a channel. `sequence` None: the newest event. `waiting`: the callers that wait for the answer."""

    __slots__ = ("channel_id", "sequence", "waiting")

    def __init__(self, channel_id: str, sequence: int | None) -> None:
        self.channel_id = channel_id
        self.sequence = sequence
        self.waiting: list[W] = []

    def covers(self, sequence: int | None) -> bool:
        """Return whether this position includes `sequence`."""
        return self.sequence is not None and sequence is not None and sequence <= self.sequence

    def raise_to(self, sequence: int | None) -> None:
        """Move the position, never back."""
        if self.sequence is not None and (sequence is None or sequence > self.sequence):
            self.sequence = sequence


class ReadMarks(Generic[W]):
    """`add` marks; `take` one at `next_at` and send it; then report `answered`, `refused` or `unanswered`."""

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._marks: dict[str, ReadMark[W]] = {}  # by channel
        self._sent: ReadMark[W] | None = None
        self._next_at = float("-inf")
        self._backoff = Backoff(jitter)

    def __bool__(self) -> bool:
        return bool(self._marks) or self._sent is not None

    def add(self, channel_id: str, sequence: int | None, *waiting: W) -> None:
        """Add a position; it replaces an older one of the channel that waits. Raises LocalProtocolError."""
        mark = self._sent
        if mark is None or mark.channel_id != channel_id or not mark.covers(sequence):
            if channel_id not in self._marks and len(self._marks) >= MAX_PENDING_COMMANDS:
                raise LocalProtocolError(f"read positions of {MAX_PENDING_COMMANDS} channels are not sent yet")
            mark = self._marks.setdefault(channel_id, ReadMark(channel_id, sequence))
            mark.raise_to(sequence)
        mark.waiting += waiting

    def next_at(self) -> float | None:
        """Return the monotonic time at which to `take` the next one; None: nothing waits, or one is on its way."""
        return self._next_at if self._marks and self._sent is None else None

    def take(self, now: float) -> ReadMark[W] | None:
        """Return the mark to send now, that of the channel that has waited longest; None: it is not time."""
        due = self.next_at()
        if due is None or now < due:
            return None
        self._sent = mark = self._marks.pop(next(iter(self._marks)))
        self._next_at = now + READ_MARK_SECS
        return mark

    def answered(self) -> list[W]:
        """Note that the server has the position. Return the callers that wait for the answer."""
        self._backoff.reset()
        return self._settled()

    def refused(self, status: int, advised_secs: float | None, now: float) -> list[W]:
        """Note a refusal. A temporary one is retried, any other drops the mark. Return the callers to tell of the refusal."""
        if status not in KEPT:
            return self._settled()
        self.unanswered(now, advised_secs)
        return []

    def unanswered(self, now: float, advised_secs: float | None = None) -> None:
        """Note that the connection was lost. The mark is sent again, unless a newer one replaces it."""
        self._next_at = max(self._next_at, now + self._backoff.next_delay(advised_secs))
        mark, self._sent = self._sent, None
        if mark is None:
            return
        newer = self._marks.pop(mark.channel_id, None)
        if newer is not None:
            mark.raise_to(newer.sequence)
            mark.waiting += newer.waiting
        self._marks = {mark.channel_id: mark, **self._marks}

    def clear(self) -> list[W]:
        """Drop all marks, because their user is logged out. Return the callers that wait for an answer."""
        marks = [*self._marks.values(), *([self._sent] if self._sent is not None else [])]
        self._marks, self._sent = {}, None
        return [waiting for mark in marks for waiting in mark.waiting]

    def _settled(self) -> list[W]:
        mark, self._sent = self._sent, None
        return mark.waiting if mark is not None else []
