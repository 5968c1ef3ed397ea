"""Turns of users at a few places: each user has one at a time, so that many requests of one do not hold up the others."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Turn(NamedTuple, Generic[T]):
    """Whose turn has begun."""

    user_id: str
    ticket: T


class FairTurns(Generic[T]):
    """`places`: how many turns there are at once. A ticket stands for one request that waits; tickets differ."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._running: set[str] = set()
        self._waiting: dict[T, str] = {}  # the user of each ticket, the one that has waited longest first

    def enter(self, user_id: str, ticket: T) -> bool:
        """Ask for a turn. True: it begins now; False: it waits."""
        if self._free and user_id not in self._running:
            self._begin(user_id)
            return True
        self._waiting[ticket] = user_id
        return False

    def give_up(self, ticket: T) -> None:
        """Wait no more. Idempotent."""
        self._waiting.pop(ticket, None)

    def leave(self, user_id: str) -> Turn[T] | None:
        """End the user's turn. Return the one that begins now: of those whose user has none the one that has waited longest."""
        self._running.remove(user_id)
        self._free += 1
        for ticket, other in self._waiting.items():
            if other not in self._running:
                del self._waiting[ticket]
                self._begin(other)
                return Turn(other, ticket)
        return None

    def _begin(self, user_id: str) -> None:
        self._running.add(user_id)
        self._free -= 1
