"""Remembers which other servers respond quickly, so that a slow one does not delay work for the others."""

from __future__ import annotations

from collections import OrderedDict

SLOW_SECS = 2.0  # ours: a slower response counts as slow; one from the other side of the world takes half a second
SLOW_TIMES = 20.0  # ours: a server counts as slow for this many times as long as its response took
MAX_SLOW_SECS = 600.0
MAX_REMEMBERED = 10_000  # ours: servers; the least recently used one is evicted


class ResponseTimes:
    """The response times of servers. `now`: monotonic seconds."""

    __slots__ = ("_slow_until",)

    def __init__(self) -> None:
        self._slow_until: OrderedDict[str, float] = OrderedDict()

    def note(self, server: str, secs: float, now: float, *, answered: bool) -> None:
        """Record that a response took `secs`, or that none came in `secs`. The latter is ignored for less than SLOW_SECS."""
        is_slow = secs > SLOW_SECS
        if not is_slow and not answered:
            return
        until = self._slow_until.get(server, now)
        if is_slow:
            until = max(until, now + min(SLOW_TIMES * secs, MAX_SLOW_SECS))
        self._slow_until[server] = until
        self._slow_until.move_to_end(server)
        if len(self._slow_until) > MAX_REMEMBERED:
            self._slow_until.popitem(last=False)

    def is_fast(self, server: str, now: float) -> bool:
        """Return whether the server has responded, and not slowly of late."""
        until = self._slow_until.get(server)
        return until is not None and until <= now
