"""In-order release and gap detection: whatever order the wire brings, the sequence is the truth."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")

MAX_HELD = 4_096  # items kept behind a hole; beyond it the newest is dropped and read from the log later


class Sequencer(Generic[T]):
    """Releases items in sequence order, each once. `head` is the last sequence released.

    A hole is reported by `missing`; whoever owns the log reads the range and offers it here. Items may be offered
    in any order, any number of times. The highest sequence heard of, by `offer` or by `saw_head`, is never
    forgotten, so an item dropped at the bound is still missed.
    """

    __slots__ = ("_held", "_max_held", "_seen", "head")

    def __init__(self, head: int, max_held: int = MAX_HELD) -> None:
        self.head = head
        self._held: dict[int, T] = {}
        self._seen = head
        self._max_held = max_held

    def offer(self, sequence: int, item: T) -> list[tuple[int, T]]:
        """Take one item; returns what it releases, in order. Repeats return nothing."""
        self._seen = max(self._seen, sequence)
        if sequence != self.head + 1:
            if sequence > self.head and len(self._held) < self._max_held:
                self._held.setdefault(sequence, item)
            return []
        self.head = sequence
        released = [(sequence, item)]
        if self._held:
            self._held.pop(sequence, None)
            while (following := self._held.pop(self.head + 1, None)) is not None:
                self.head += 1
                released.append((self.head, following))
        return released

    def saw_head(self, sequence: int) -> None:
        """The log reaches at least to `sequence` (a tail check)."""
        self._seen = max(self._seen, sequence)

    def missing(self) -> tuple[int, int] | None:
        """The first hole as (after, before), both exclusive, or None."""
        if self._seen == self.head:
            return None
        return self.head, min(self._held) if self._held else self._seen + 1

    @property
    def held(self) -> int:
        """Items waiting behind a hole."""
        return len(self._held)
