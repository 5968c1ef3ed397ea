"""Named deadlines of one state machine, in monotonic seconds."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from math import inf
from typing import TypeVar

from openguild_proto.errors import LocalProtocolError

K = TypeVar("K", bound=Hashable)


def require_time(at: float) -> None:
    """Raise LocalProtocolError unless `at` is a finite number. NaN and infinity would make a deadline pass at once or never."""
    try:
        is_time = -inf < at < inf
    except TypeError:
        is_time = False
    if not is_time:
        raise LocalProtocolError(f"a time is a finite number of monotonic seconds, not {at!r}")


class Deadlines(dict[K, float]):
    """The deadlines that are set, by name. A dict subclass to save memory, because every idle connection has one."""

    __slots__ = ()

    def set(self, name: K, at: float) -> None:
        """Set or move the deadline `name` to `at`, in monotonic seconds. Raises LocalProtocolError unless `at` is finite."""
        if type(at) is not float or not -inf < at < inf:  # fast path: called several times per request
            require_time(at)
        self[name] = at

    def stop(self, name: K) -> None:
        """Remove this deadline if it is set."""
        self.pop(name, None)

    def stop_all_but(self, kept: Collection[K]) -> None:
        """Remove every deadline except those in `kept`."""
        for name in tuple(self):
            if name not in kept:
                del self[name]

    def next(self) -> float | None:
        """Return the earliest deadline, or None. Changes nothing."""
        return min(self.values()) if self else None

    def take_expired(self, now: float) -> K | None:
        """Remove and return the name of the earliest deadline if it has passed, else None.

        Returns one at a time, because handling it may stop others. Raises LocalProtocolError unless `now` is finite.
        """
        require_time(now)
        name = min(self, key=self.__getitem__, default=None)
        if name is None or self[name] > now:
            return None
        del self[name]
        return name
