"""The state that all deliveries of a process share, and the status of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Protocol

from openguild_proto.delivery.actions import Level
from openguild_proto.delivery.batches import Prepared, Wanted
from openguild_proto.delivery.cursors import CursorBatch
from openguild_proto.effects.deliveries import CursorMove
from openguild_proto.procedures import Procedure, Procedures
from openguild_proto.records import LogPlace


class Phase(Enum):
    """The stages of a delivery to a peer."""

    LEVEL = "level"  # the peer is up to date, or accepts no more for now
    LOOKING = "looking"  # this process reads what the peer is missing
    SENDING = "sending"
    BACKING_OFF = "backing_off"  # the peer, or the store, could not be reached
    ENDED = "ended"  # this process no longer delivers to the peer


class Host(Protocol):
    """The state that all deliveries of a process share."""

    procedures: Procedures
    wall_ms: int
    jitter: Callable[[], float]

    def prepare(self, wanted: Sequence[Wanted], ended: tuple[LogPlace, ...]) -> Procedure[Prepared]:
        """Read the events and build the delivery. Raises StorageUnavailable."""

    def move_cursors(self, moves: Sequence[CursorMove]) -> CursorBatch:
        """Store soon how far a peer has logs."""

    def take_place(self, server: str) -> Procedure[None]:
        """Wait for a slot for a request to this server."""

    def pace(self, events: int) -> Procedure[None]:
        """Wait before a large delivery."""

    def leave_place(self, server: str) -> None:
        """Release the slot."""

    def due_changed(self, server: str, due: float) -> None:
        """Wake the delivery to that server at `due`."""

    def log(self, level: Level, message: str, failure: Exception | None = None, **fields: Any) -> None:
        """Write a line to the log."""


class Counters:
    """Totals of one peer since this process started to deliver to it, and how far behind it is."""

    __slots__ = ("backoff_secs", "behind", "events", "failures", "held", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.events = 0  # sent, repetitions included
        self.failures = 0
        self.held = 0  # logs whose events the peer did not accept
        self.behind = 0  # missing events, of the logs that were read
        self.backoff_secs = 0.0  # until the next attempt after a failure; 0: the last request succeeded
