"""The deadlines of one machine by their names, in monotonic seconds."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from math import inf
from typing import TypeVar

from openguild_proto.errors import LocalProtocolError

K = TypeVar("K", bound=Hashable)


def require_time(at: float) -> None:
    """Raise LocalProtocolError for what is no time: with NaN or infinity a deadline would pass for ever, or never."""
    try:
        is_time = -inf < at < inf
    except TypeError:
        is_time = False
    if not is_time:
        raise LocalProtocolError(f"a time is a finite number of monotonic seconds, not {at!r}")


class Deadlines(dict[K, float]):
    """The deadlines that are set, by name. `next` only reads. A dict itself: every idle connection keeps one."""

    __slots__ = ()

    def set(self, name: K, at: float) -> None:
        """Set or move the deadline `name` to `at`, monotonic seconds. Raises LocalProtocolError."""
        if type(at) is not float or not -inf < at < inf:  # called several times for each request
            require_time(at)
        self[name] = at

    def stop(self, name: K) -> None:
        """Stop this deadline, if it is set."""
        self.pop(name, None)

    def stop_all_but(self, kept: Collection[K]) -> None:
        """Stop every deadline except `kept`, which stay as they are."""
        for name in tuple(self):
            if name not in kept:
                del self[name]

    def next(self) -> float | None:
        """Return the earliest deadline; None: none is set."""
        return min(self.values()) if self else None

    def take_expired(self, now: float) -> K | None:
        """Remove and return the earliest deadline that has passed; None: none has. Raises LocalProtocolError.

        Returns one at a time, because acting on it may stop others.
        """
        require_time(now)
        name = min(self, key=self.__getitem__, default=None)
        if name is None or self[name] > now:
            return None
        del self[name]
        return name
