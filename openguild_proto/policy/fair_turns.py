"""Shares a few slots fairly among users: each user has a bounded number, so that one user's requests do not delay the others."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

NOBODY = ""


class Turn(NamedTuple, Generic[T]):
    """The user and the ticket of a turn that has started."""

    user_id: str
    ticket: T


class FairTurns(Generic[T]):
    """`places`: the number of concurrent turns. `each`: the maximum for one user; NOBODY may have all.

    Waiting users take turns, and each user's requests keep their order. NOBODY stands for work that belongs to no user's turns,
    such as changes and the server's own work. While such work waits, it gets every other turn, however many users wait. A
    ticket identifies one waiting request and must be unique.
    """

    def __init__(self, places: int, each: int = 1) -> None:
        self.free = places
        self._places = places
        self._each = each
        self._running: dict[str, int] = {}  # turns by user
        self._waiting: dict[str, dict[T, None]] = {}  # by user below the maximum, next user first
        self._held: dict[str, dict[T, None]] = {}  # by user who has the maximum
        self._nobody_is_next = True  # the last turn was a user's

    def begin(self, user_id: str) -> bool:
        """Start a turn if one is free. Otherwise return False; the caller may `wait`."""
        if not self.free or self._has_all(user_id):
            return False
        self.free -= 1
        self._running[user_id] = self._running.get(user_id, 0) + 1
        return True

    def wait(self, user_id: str, ticket: T) -> None:
        """Wait for a turn: a later call of `leave` returns it."""
        of_user = self._held if self._has_all(user_id) else self._waiting
        of_user.setdefault(user_id, {})[ticket] = None

    def give_up(self, user_id: str, ticket: T) -> None:
        """Stop waiting. Idempotent."""
        for of_user in (self._waiting, self._held):
            tickets = of_user.get(user_id)
            if tickets is not None:
                tickets.pop(ticket, None)
                if not tickets:
                    del of_user[user_id]

    def leave(self, user_id: str) -> Turn[T] | None:
        """End a turn of the user. Return the waiting turn that starts now, if any."""
        self._running[user_id] -= 1
        if not self._running[user_id]:
            del self._running[user_id]
        self.free += 1
        held = self._held.pop(user_id, None)
        if held is not None:
            self._waiting[user_id] = held
        following = self._next()
        if following is None:
            return None
        self._nobody_is_next = following != NOBODY
        tickets = self._waiting.pop(following)
        ticket = next(iter(tickets))
        del tickets[ticket]
        self.begin(following)
        if tickets:
            (self._held if self._has_all(following) else self._waiting)[following] = tickets
        return Turn(following, ticket)

    def _next(self) -> str | None:
        """Return the user whose turn is next, or None if nobody waits."""
        if NOBODY in self._waiting and (self._nobody_is_next or len(self._waiting) == 1):
            return NOBODY
        return next((user_id for user_id in self._waiting if user_id != NOBODY), None)

    def _has_all(self, user_id: str) -> bool:
        return self._running.get(user_id, 0) >= (self._each if user_id else self._places)
