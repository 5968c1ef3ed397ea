"""Remembers which other servers answer promptly: a slow one must not delay work for the others."""

from __future__ import annotations

from collections import OrderedDict

SLOW_SECS = 2.0  # ours: an answer that takes longer is slow; one from the other side of the world takes half a second
SLOW_TIMES = 20.0  # ours: for so many times as long its server counts as slow: it is waited for a twentieth of the time
MAX_SLOW_SECS = 600.0
MAX_REMEMBERED = 10_000  # ours: of servers; the one that was asked longest ago is dropped


class Promptness:
    """Remembers how long answers took. `now`: monotonic seconds."""

    __slots__ = ("_slow_until",)

    def __init__(self) -> None:
        self._slow_until: OrderedDict[str, float] = OrderedDict()

    def note(self, server: str, secs: float, now: float, *, answered: bool) -> None:
        """An answer took `secs`; or there was none within them, which says nothing where they are few."""
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
        """Return whether it has answered, and none of its answers was slow lately."""
        until = self._slow_until.get(server)
        return until is not None and until <= now
