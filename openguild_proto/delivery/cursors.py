"""Stores the cursors of many peers together, several times a second. Moves during a write go into the next one."""

from __future__ import annotations

from collections.abc import Iterable

from openguild_proto.effects.deliveries import CursorMove, MoveCursors
from openguild_proto.procedures import Procedure, Procedures, Signal, Sleep

WRITE_SECS = 0.1  # between two writes: from a stale cursor, another process that takes over repeats some events


class CursorBatch:
    """Moves that are stored in one transaction."""

    def __init__(self, procedures: Procedures) -> None:
        self.moves: dict[tuple[str, str], CursorMove] = {}  # by peer and log; the last move counts
        self.stored = Signal(procedures)
        self.failure: Exception | None = None

    def wait(self) -> Procedure[None]:
        """Wait until the moves are stored. Raises StorageUnavailable."""
        yield from self.stored.wait()
        if self.failure is not None:
            raise self.failure


class Cursors:
    """The cursors of all peers of a process."""

    def __init__(self, procedures: Procedures) -> None:
        self._procedures = procedures
        self._next: CursorBatch | None = None
        self._is_writing = False

    def move(self, moves: Iterable[CursorMove]) -> CursorBatch:
        """Add the moves to the next write."""
        batch = self._next = self._next or CursorBatch(self._procedures)
        batch.moves |= {(move.peer, move.place.log_id): move for move in moves}
        if not self._is_writing:
            self._is_writing = True
            self._procedures.start(self._write(), "storing cursors")
        return batch

    def _write(self) -> Procedure[None]:
        try:
            while self._next is not None:
                batch, self._next = self._next, None
                try:
                    yield from MoveCursors(moves=tuple(batch.moves.values()))
                except Exception as failure:  # raised to the callers that wait
                    batch.failure = failure
                batch.stored.set()
                yield from Sleep(WRITE_SECS).wait()
        finally:
            self._is_writing = False
