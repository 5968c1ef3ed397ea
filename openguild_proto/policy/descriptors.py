"""How many connections the limit of open files leaves room for, also when descriptors ran out all the same.

What the process needs for itself is set aside first, and a share of the connections is kept from the streams, so that `/live`
and the metrics answer however many streams there are.
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


class DescriptorBudget:
    """`limit`: descriptors of the process. `set_aside`: those that it needs itself. `max_streams`: as configured, of this process;
    `max_streams_in_all`: of all workers, which any one of them must be able to take (default: the same).

    `max_connections` and `streams` are what there is room for now.
    """

    def __init__(self, limit: int, set_aside: int, max_streams: int, max_streams_in_all: int | None = None) -> None:
        self.limit = limit
        self.max_connections = 0
        self.streams = 0
        self._set_aside = set_aside
        self._max_streams = max_streams
        self._most = (max_streams if max_streams_in_all is None else max_streams_in_all) + SPARE_CONNECTIONS
        self._bound: int | None = None  # on connections, since descriptors ran out
        self._failed_at = float("-inf")
        self._divide()

    def ran_out(self, connections: int, now: float) -> None:
        """A connection could not be accepted while there were so many: there are fewer from now on."""
        self._failed_at = now
        self._bound = max(MIN_CONNECTIONS, connections - SPARE_DESCRIPTORS)
        self._divide()

    def limit_changed(self, limit: int) -> None:
        """Somebody set another limit for the process."""
        self.limit = limit
        self._divide()

    def are_to_be_had(self, now: float) -> None:
        """Descriptors could be opened again: the bound is lifted when none has run out for a while."""
        if not self.is_short(now):
            self._bound = None
            self._divide()

    def is_short(self, now: float) -> bool:
        """Whether they ran out a moment ago."""
        return now - self._failed_at < DESCRIPTORS_SHORT_SECS

    def _divide(self) -> None:
        room = self.limit - self._set_aside
        room = max(MIN_CONNECTIONS, room - min(room // 8, MAX_DESCRIPTOR_MARGIN))
        self.max_connections = min(room, self._most, self._most if self._bound is None else self._bound)
        kept = min(-(-self.max_connections // HTTP_SHARE), SPARE_CONNECTIONS)
        self.streams = min(self._max_streams, self.max_connections - kept)
