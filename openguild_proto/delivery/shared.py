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

    LEVEL = "level"  # it has everything, or takes no more for now
    LOOKING = "looking"  # reads what the peer lacks
    SENDING = "sending"
    BACKING_OFF = "backing_off"  # the peer, or the store, could not be reached
    ENDED = "ended"  # another process delivers to it


class Host(Protocol):
    """The state that all deliveries of a process share."""

    procedures: Procedures
    wall_ms: int
    jitter: Callable[[], float]

    def prepare(self, wanted: Sequence[Wanted], ended: tuple[LogPlace, ...]) -> Procedure[Prepared]:
        """Read the events and put the delivery together. Raises StorageUnavailable."""

    def move_cursors(self, moves: Sequence[CursorMove]) -> CursorBatch:
        """Have stored up to where a peer has logs."""

    def take_place(self, server: str) -> Procedure[None]:
        """Wait for one of the places for requests under way."""

    def pace(self, events: int) -> Procedure[None]:
        """Wait before a large delivery."""

    def leave_place(self, server: str) -> None:
        """Give it back."""

    def due_changed(self, server: str, due: float) -> None:
        """Wake the delivery to that server at `due`."""

    def log(self, level: Level, message: str, failure: Exception | None = None, **fields: Any) -> None:
        """Write a line for the operator."""


class Counters:
    """Totals of one peer since this process delivers to it, and what it lacks now."""

    __slots__ = ("backoff_secs", "behind", "events", "failures", "held", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.events = 0  # sent, again where the peer had not got them
        self.failures = 0
        self.held = 0  # logs that the peer did not take
        self.behind = 0  # events that it lacks, of the logs that were looked at
        self.backoff_secs = 0.0  # to the next attempt; 0: none is put off
