"""Computes how many connections the limit of open files allows, also after descriptors have run out.

Descriptors for the process itself are set aside. A share of the connections is reserved for HTTP, so that `/live` and the
metrics respond even with very many streams.
"""

from __future__ import annotations

from openguild_proto.limits import (
    DESCRIPTORS_SHORT_SECS,
    HTTP_SHARE,
    MAX_DESCRIPTOR_MARGIN,
    MIN_CONNECTIONS,
    SPARE_CONNECTIONS,
    SPARE_DESCRIPTORS,
)

MANY_DESCRIPTORS = 1_048_576  # an infinite limit counts as this
MACOS_OPEN_MAX = 10_240  # sys/syslimits.h: macOS refuses more, whatever the hard limit


def limits_to_try(soft: int | None, hard: int | None) -> list[int]:
    """Return the soft limits of open files worth trying, largest first. None: infinite; then nothing needs to be raised."""
    if soft is None:
        return []
    most = MANY_DESCRIPTORS if hard is None else hard
    return [limit for limit in (most, MACOS_OPEN_MAX) if soft < limit <= most]


class DescriptorBudget:
    """The bounds of connections and streams of a process: `max_connections` and `streams`.

    - `limit`: descriptors of the process.
    - `set_aside`: descriptors for the process itself.
    - `max_streams`: configured for this process.
    - `max_streams_in_all`: for all workers together, any of which may get all of them; defaults to `max_streams`.
    """

    def __init__(self, limit: int, set_aside: int, max_streams: int, max_streams_in_all: int | None = None) -> None:
        self.limit = limit
        self.max_connections = 0
        self.streams = 0
        self._set_aside = set_aside
        self._max_streams = max_streams
        self._most = (max_streams if max_streams_in_all is None else max_streams_in_all) + SPARE_CONNECTIONS
        self._bound: int | None = None  # of connections, after descriptors ran out
        self._failed_at = float("-inf")
        self._divide()

    def ran_out(self, connections: int, now: float) -> None:
        """Lower the bound, because no descriptor was left for another connection while `connections` were open."""
        self._failed_at = now
        self._bound = max(MIN_CONNECTIONS, connections - SPARE_DESCRIPTORS)
        self._divide()

    def limit_changed(self, limit: int) -> None:
        """Set a new limit of the process."""
        self.limit = limit
        self._divide()

    def opened(self, now: float) -> None:
        """Record a successfully opened descriptor. Lifts the lowered bound unless they ran out recently."""
        if not self.is_short(now):
            self._bound = None
            self._divide()

    def is_short(self, now: float) -> bool:
        """Return whether descriptors ran out recently."""
        return now - self._failed_at < DESCRIPTORS_SHORT_SECS

    def _divide(self) -> None:
        room = self.limit - self._set_aside
        room = max(MIN_CONNECTIONS, room - min(room // 8, MAX_DESCRIPTOR_MARGIN))
        self.max_connections = min(room, self._most, self._most if self._bound is None else self._bound)
        kept = min(-(-self.max_connections // HTTP_SHARE), SPARE_CONNECTIONS)
        self.streams = min(self._max_streams, self.max_connections - kept)
