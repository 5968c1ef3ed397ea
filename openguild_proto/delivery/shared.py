"""The interface that all deliveries of a process share, and the status of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Protocol

from openguild_proto.delivery.actions import Level
from openguild_proto.delivery.batches import LogBatch, Prepared
from openguild_proto.delivery.cursors import CursorBatch
from openguild_proto.effects.deliveries import CursorMove
from openguild_proto.procedures import Procedure, Procedures
from openguild_proto.records import LogPosition


class Phase(Enum):
    """The stages of a delivery to a peer."""

    LEVEL = "level"  # the peer has everything, or accepts no more for now
    LOOKING = "looking"  # reading the backlog
    SENDING = "sending"
    BACKING_OFF = "backing_off"  # the peer or the store was unavailable
    ENDED = "ended"  # another process delivers to it


class Host(Protocol):
    """The owner of all deliveries of a process."""

    procedures: Procedures
    wall_ms: int
    jitter: Callable[[], float]

    def prepare(self, wanted: Sequence[LogBatch], ended: tuple[LogPosition, ...]) -> Procedure[Prepared]:
        """Read the events and build the delivery. Raises StorageUnavailable."""

    def move_cursors(self, moves: Sequence[CursorMove]) -> CursorBatch:
        """Store a peer's new positions soon."""

    def take_place(self, server: str) -> Procedure[None]:
        """Wait for a free slot for a request."""

    def pace(self, events: int) -> Procedure[None]:
        """Wait before a large delivery."""

    def leave_place(self, server: str) -> None:
        """Release the slot."""

    def due_changed(self, server: str, due: float) -> None:
        """Wake the delivery to that server at `due`."""

    def log(self, level: Level, message: str, failure: Exception | None = None, **fields: Any) -> None:
        """Log a line for the operator."""


class Counters:
    """Totals of one peer since this process started to deliver to it, and its backlog now."""

    __slots__ = ("backoff_secs", "behind", "events", "failures", "held", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.events = 0  # sent, including repeats
        self.failures = 0
        self.held = 0  # logs that the peer refused
        self.behind = 0  # events that it lacks, of the logs that were read
        self.backoff_secs = 0.0  # until the next attempt; 0: not backing off
