"""Chooses faults by a seed, for authors of clients: `openguild-server --chaos-seed N` (PROTOCOL 11.5.4).

A plan depends on the random numbers and on the number of earlier plans, not on time. So a client that opens its connections in the
same order meets the same faults again.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

MAX_CALM_SECS = 15.0  # no connection lives longer


class Fault(Enum):
    """The fate of a connection. The values are shown in the log."""

    NONE = "none"  # the connection ends after some time, as behind a proxy
    RESET = "reset"  # at once
    BUSY = "503"  # every request is answered by 503 with Retry-After
    CUT = "cut"  # reset after some bytes from the server, perhaps in the middle of an answer that is then lost
    STALL = "stall"  # the server's bytes are held back for a while: the server sees a slow reader


_WEIGHTS = {Fault.NONE: 30, Fault.RESET: 10, Fault.BUSY: 10, Fault.CUT: 30, Fault.STALL: 20}
_DELAYS = (0.0, 0.0, 0.005, 0.05, 0.3)


class ConnectionPlan(NamedTuple):
    """The fate of one connection. `after_bytes` counts bytes from the server."""

    fault: Fault
    after_bytes: int  # for CUT and STALL
    stall_secs: float
    delay_secs: float  # for every piece from the server
    life_secs: float


class RestartPlan(NamedTuple):
    """A worker that ends and is started again. `in_order`: it drains; otherwise it is killed."""

    after_secs: float
    worker: int
    in_order: bool


class ChaosPlan:
    """`connections`, `restarts`: numbers in [0, 1), each from a generator of its own. `workers`: processes that serve."""

    def __init__(self, connections: Callable[[], float], restarts: Callable[[], float], workers: int) -> None:
        self._connections = connections
        self._restarts = restarts
        self._workers = workers

    def next_connection(self) -> ConnectionPlan:
        """Return the fate of the next connection."""
        chance = self._connections
        return ConnectionPlan(
            _fault_at(chance()),
            after_bytes=int(10 ** _between(1.0, 4.3, chance)),  # 10 to 20,000: within a head, an answer, a stream
            stall_secs=_between(1.0, 6.0, chance),
            delay_secs=_DELAYS[int(chance() * len(_DELAYS))],
            life_secs=_between(2.0, MAX_CALM_SECS, chance),
        )

    def next_restart(self) -> RestartPlan:
        """Return which worker ends next, counted from the last one."""
        chance = self._restarts
        return RestartPlan(_between(4.0, 12.0, chance), int(chance() * self._workers), chance() < 0.5)


def _fault_at(chance: float) -> Fault:
    place = chance * sum(_WEIGHTS.values())
    for fault, weight in _WEIGHTS.items():
        place -= weight
        if place < 0:
            return fault
    return Fault.NONE


def _between(low: float, high: float, chance: Callable[[], float]) -> float:
    return low + (high - low) * chance()
