"""Fair turns of users at a few slots. The number per user is bounded, so that one user's requests do not delay the others."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

NOBODY = ""


class Turn(NamedTuple, Generic[T]):
    """A turn that has begun, and its owner."""

    user_id: str
    ticket: T


class FairTurns(Generic[T]):
    """Turns of users. `places`: concurrent turns in all. `each`: concurrent turns of one user; NOBODY may have all.

    Waiting users get turns round robin, each in the order of their requests. NOBODY stands for work that belongs to no user,
    such as changes and the server's own work; it gets every other turn while it waits, whatever the number of waiting users.
    A ticket stands for one waiting request and is unique.
    """

    def __init__(self, places: int, each: int = 1) -> None:
        self.free = places
        self._places = places
        self._each = each
        self._running: dict[str, int] = {}  # turns by user
        self._waiting: dict[str, dict[T, None]] = {}  # by user who may have a turn, next one first
        self._held: dict[str, dict[T, None]] = {}  # by user who has their maximum of turns
        self._nobody_is_next = True  # True after a turn of a user

    def begin(self, user_id: str) -> bool:
        """Begin a turn if possible, else return False; then call `wait`."""
        if not self.free or self._has_all(user_id):
            return False
        self.free -= 1
        self._running[user_id] = self._running.get(user_id, 0) + 1
        return True

    def wait(self, user_id: str, ticket: T) -> None:
        """Queue for a turn. `leave` returns it when it begins."""
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
        """End a turn of the user. Return the turn that begins now, or None."""
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
