"""Releases items in the order of their sequences, and detects gaps."""

from __future__ import annotations

from typing import Generic, TypeVar

from openguild_proto.errors import LocalProtocolError
from openguild_proto.limits import MAX_HELD_BYTES, MAX_HELD_ITEMS

T = TypeVar("T")


class Sequencer(Generic[T]):
    """Releases items in sequence order, each once. `head` is the last sequence released.

    Without a head nothing is released before `begin` sets it. `missing` returns a gap; the caller reads that range and offers
    it. Items may be offered in any order and repeatedly. Items after a gap are held within bounds of count and bytes. The
    highest sequence seen, by `offer` or `saw_head`, is remembered, so an item beyond the bounds still counts as missing.
    """

    __slots__ = ("_held", "_held_bytes", "_max_held", "_max_held_bytes", "_seen", "begun", "head")

    def __init__(
        self, head: int | None = None, *, max_held: int = MAX_HELD_ITEMS, max_held_bytes: int = MAX_HELD_BYTES
    ) -> None:
        self.begun = head is not None
        self.head = head or 0
        self._held: dict[int, tuple[T, int]] = {}  # sequence -> item and its size in bytes
        self._held_bytes = 0
        self._seen = self.head
        self._max_held = max_held
        self._max_held_bytes = max_held_bytes

    def begin(self, head: int) -> list[tuple[int, T]]:
        """Set the head. Return the offered items that follow it. Raises LocalProtocolError if it was set before."""
        if self.begun:
            raise LocalProtocolError("the head is known: restart begins anew")
        self.begun = True
        self.head = head
        self._seen = max(self._seen, head)
        for sequence in [sequence for sequence in self._held if sequence <= head]:
            self._take(sequence)
        return self._following()

    def restart(self, head: int) -> None:
        """Restart at `head` with another log; it may be before or after the old head. Drops held items."""
        self.begun = True
        self.head = self._seen = head
        self._held.clear()
        self._held_bytes = 0

    def offer(self, sequence: int, item: T, nbytes: int = 0) -> list[tuple[int, T]]:
        """Handle an item of `nbytes`. Return the items that it releases, in order. Repeats release nothing."""
        self._seen = max(self._seen, sequence)
        if sequence != self.head + 1 or not self.begun:
            if sequence > self.head and sequence not in self._held:
                self._hold(sequence, item, nbytes)
            return []
        self.head = sequence
        released = [(sequence, item)]
        if self._held:
            self._take(sequence)
            released += self._following()
        return released

    def _hold(self, sequence: int, item: T, nbytes: int) -> None:
        if len(self._held) < self._max_held and self._held_bytes + nbytes <= self._max_held_bytes:
            self._held[sequence] = item, nbytes
            self._held_bytes += nbytes

    def _take(self, sequence: int) -> list[tuple[int, T]]:
        held = self._held.pop(sequence, None)
        if held is None:
            return []
        item, nbytes = held
        self._held_bytes -= nbytes
        return [(sequence, item)]

    def _following(self) -> list[tuple[int, T]]:
        released: list[tuple[int, T]] = []
        while following := self._take(self.head + 1):
            self.head += 1
            released += following
        return released

    def saw_head(self, sequence: int) -> None:
        """Record that the log reaches `sequence` (a tail check)."""
        self._seen = max(self._seen, sequence)

    def missing(self) -> tuple[int, int] | None:
        """Return the first gap as (after, before), both exclusive, or None."""
        if self._seen == self.head or not self.begun:
            return None
        return self.head, min(self._held) if self._held else self._seen + 1

    def went_back(self, released: int, first: int, second: int) -> bool:
        """Return whether the log lost items that it had when `released` was the head here (a restore, or a lossy failover).

        Both reads of its head began after that. One read alone may be stale, from a standby behind a pooler. False after a
        `restart` in between.
        """
        return max(first, second) < released <= self.head

    @property
    def seen(self) -> int:
        """The highest sequence seen."""
        return self._seen

    @property
    def held(self) -> int:
        """The number of items held after a gap."""
        return len(self._held)
