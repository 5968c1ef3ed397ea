"""Limits concurrent requests to other servers, so that a few slow servers cannot delay the rest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from openguild_proto.policy.response_times import ResponseTimes

T = TypeVar("T")


class ServerSlots(Generic[T]):
    """Slots for requests. `of_server`: the maximum for one server. `in_all`: the maximum for all together.

    Servers that are not known to be prompt share half of the slots. A server may take at most half of the free slots. A ticket
    stands for one waiting request and is unique. `now`: monotonic seconds.
    """

    def __init__(self, of_server: int, in_all: int, response_times: ResponseTimes) -> None:
        self._of_server = of_server
        self._in_all = in_all
        self._response_times = response_times
        self._taken: dict[str, int] = {}
        self._waiting: dict[str, dict[T, None]] = {}  # by server, next one first

    def take(self, server: str, now: float) -> bool:
        """Take a slot if the server may have one now, else return False; then call `wait`."""
        return self._take(server, self._free_at(now)[self._response_times.is_fast(server, now)])

    def wait(self, server: str, ticket: T) -> None:
        """Queue for a slot. `leave` returns the ticket when it gets one."""
        self._waiting.setdefault(server, {})[ticket] = None

    def give_up(self, server: str, ticket: T) -> None:
        """Stop waiting. Idempotent."""
        tickets = self._waiting.get(server, {})
        tickets.pop(ticket, None)
        if not tickets:
            self._waiting.pop(server, None)

    def leave(self, server: str, now: float) -> list[T]:
        """Release a slot. Return the tickets that get a slot now."""
        self._taken[server] -= 1
        if not self._taken[server]:
            del self._taken[server]
        served: list[T] = []
        free = self._free_at(now)
        for waiting in list(self._waiting):  # there may be thousands
            is_fast = self._response_times.is_fast(waiting, now)
            if self._take(waiting, free[is_fast]):
                served.append(self._next_of(waiting))
                free = self._free_at(now)
                if free[True] <= 0:
                    break
        return served

    @contextmanager
    def slot(self, server: str, now: float) -> Iterator[bool]:
        """Hold a slot in this context. Yields False if none is free. Only if nobody queues with `wait`."""
        is_free = self.take(server, now)
        try:
            yield is_free
        finally:
            if is_free:
                self.leave(server, now)

    def _take(self, server: str, free: int) -> bool:
        taken = self._taken.get(server, 0)
        if taken >= self._of_server or taken >= free:
            return False
        self._taken[server] = taken + 1
        return True

    def _next_of(self, server: str) -> T:
        """Take the oldest ticket of a server, and move the server to the end of the queue."""
        tickets = self._waiting.pop(server)
        ticket = next(iter(tickets))
        del tickets[ticket]
        if tickets:
            self._waiting[server] = tickets
        return ticket

    def _free_at(self, now: float) -> dict[bool, int]:
        """Return the number of free slots, by whether the requesting server is prompt."""
        free = self._in_all - sum(self._taken.values())
        slow = sum(taken for server, taken in self._taken.items() if not self._response_times.is_fast(server, now))
        return {True: free, False: min(free, self._in_all // 2 - slow)}
