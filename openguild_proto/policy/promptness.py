"""Remembers which other servers answer promptly, so that a slow server does not delay work for the others."""

from __future__ import annotations

from collections import OrderedDict

SLOW_SECS = 2.0  # ours: an answer that takes longer is slow; one from the other side of the world takes half a second
SLOW_TIMES = 20.0  # ours: a slow answer counts for this many times its length: 1/20 of the time is waiting
MAX_SLOW_SECS = 600.0
MAX_REMEMBERED = 10_000  # ours: servers; beyond that, the one asked longest ago is dropped


class Promptness:
    """Remembers how long answers took. `now`: monotonic seconds."""

    __slots__ = ("_slow_until",)

    def __init__(self) -> None:
        self._slow_until: OrderedDict[str, float] = OrderedDict()

    def note(self, server: str, secs: float, now: float, *, answered: bool) -> None:
        """Note that an answer took `secs`, or that none came within `secs`. No answer within a short time is ignored."""
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

    def is_prompt(self, server: str, now: float) -> bool:
        """Return whether the server has answered before and has had no slow answer recently."""
        until = self._slow_until.get(server)
        return until is not None and until <= now
