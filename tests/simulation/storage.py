"""One replica's connections to the database: delays in both directions, commits in batches, and a crash at any effect."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any, TypeAlias

from openguild_proto.effects import Overloaded, StorageEffect, StorageUnavailable
from openguild_proto.effects.channels import Appended, AppendEvent
from openguild_proto.effects.replica import ReadControlHead, ReadControls, ReadHeads, ReadHistory, ReadVisible
from openguild_proto.errors import Refusal
from openguild_proto.log.appends import AppendQueue
from openguild_proto.policy.batches import Waiting
from openguild_proto.records import ControlRecord, StoredEvent
from tests.simulation.clock import Clock
from tests.simulation.database import Database

Done: TypeAlias = Callable[[Any, "Exception | None"], None]

COMMITTERS = 2  # concurrent batches of appends
REPLICA_READS = (ReadHeads, ReadVisible, ReadControlHead, ReadControls, ReadHistory)
CONTROL_READS = (ReadControlHead, ReadControls, ReadHistory)


class Storage:
    """`stored(record)` gets every control record, and every event of a guild's or user's log, that was written here.

    `effects` counts those that operations asked for; `at_effect` may end the process there.
    """

    def __init__(
        self, clock: Clock, rng: Random, database: Database, stored: Callable[[ControlRecord | StoredEvent], None]
    ) -> None:
        self.dead = False
        self.effects = 0
        self.at_effect: Callable[[int, str], None] = lambda number, moment: None
        self.early: Callable[[Sequence[AppendEvent]], None] = lambda batch: None  # hook for planted bugs
        self.failed_control_at = 0.0  # when the control log last could not be read
        self._clock = clock
        self._rng = rng
        self._database = database
        self._stored = stored
        self._queues = [_CommitQueue(self) for _ in range(COMMITTERS)]
        self._witness: StoredEvent | None = None  # stored between the two latest reads of the history
        self._next_witness: StoredEvent | None = None

    def submit(self, effect: StorageEffect[Any], done: Done) -> None:
        """Perform an effect; `done` is called once, unless the process dies."""
        if isinstance(effect, AppendEvent):
            self._queues[zlib.crc32(effect.channel_id.encode()) % COMMITTERS].submit(effect, done, self._clock.now)
            return
        if isinstance(effect, CONTROL_READS):
            self._transact(
                lambda: self._read_history(effect), lambda result, error: self._control_read(done, result, error)
            )
            return
        self._transact(lambda: self._database.perform(effect), done, counts=not isinstance(effect, REPLICA_READS))

    def _read_history(self, effect: StorageEffect[Any]) -> Any:
        found = self._database.perform(effect, self._witness)
        if isinstance(effect, ReadHistory):
            self._witness, self._next_witness = self._next_witness or self._witness, None
            if found.lacks:
                self._witness = None
        return found

    def _control_read(self, done: Done, result: Any, error: Exception | None) -> None:
        if error is not None:
            self.failed_control_at = self._clock.now
        done(result, error)

    def commit(self, batch: Sequence[AppendEvent], done: Done) -> None:
        """Store the batch in one transaction, with one outcome for each append."""
        self.early(batch)
        self._transact(lambda: [self._append(effect) for effect in batch], done)

    def _append(self, effect: AppendEvent) -> Any:
        try:
            outcome = self._database.perform(effect)
        except Refusal as refusal:  # only this post is refused; the others of the batch are stored
            return refusal
        if isinstance(outcome, Appended):
            self._next_witness = self._next_witness or outcome.event
        return outcome

    # --- both directions -----------------------------------------------------------------------------

    def _transact(self, action: Callable[[], Any], done: Done, *, counts: bool = True) -> None:
        if counts:
            self.effects += 1
            self.at_effect(self.effects, "before")
        database = self._database
        self._clock.later(database.delay(), self._arrive, action, done, counts, database.restores)

    def _arrive(self, action: Callable[[], Any], done: Done, counts: bool, restores: int) -> None:
        database = self._database
        if self.dead and self._rng.random() < 0.5:
            return  # it has not left the process
        if database.is_down and database.hangs:
            self._clock.at(database.down_until, self._arrive, action, done, counts, restores)
            return
        if database.is_down or restores != database.restores or self._rng.random() < database.abort_share:
            self._clock.later(database.delay(), self._answer, done, None, StorageUnavailable(), [], restores)
            return
        before, result, error = database.tables.control_head(), None, None
        try:
            result = action()
        except Refusal as refusal:
            error = refusal
        records = [*database.tables.take_grown(), *database.control_since(before)]
        if counts and not self.dead:
            self.at_effect(self.effects, "after")
        if self._rng.random() < database.unknown_share:
            result, error, records = None, StorageUnavailable(), []
        self._clock.later(database.delay(), self._answer, done, result, error, records, restores)

    def _answer(
        self,
        done: Done,
        result: Any,
        error: Exception | None,
        records: list[ControlRecord | StoredEvent],
        restores: int,
    ) -> None:
        if self.dead:
            return
        if restores != self._database.restores:  # the connection was to the database before the restore
            result, error, records = None, StorageUnavailable(), []
        for record in records:
            self._stored(record)
        done(result, error)


class _CommitQueue:
    """Stores appends that wait together in one transaction; the core decides the order."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._appends: AppendQueue[Done] = AppendQueue(share=COMMITTERS)
        self._is_busy = False

    def submit(self, effect: AppendEvent, done: Done, now: float) -> None:
        if self._appends.offer(effect, done, now):
            self._next()
        else:
            done(None, Overloaded())

    def _next(self) -> None:
        if self._is_busy or not len(self._appends):
            return
        self._is_busy = True
        batch = self._appends.take()
        self._storage.commit([waiting.item for waiting in batch], partial(self._end, batch))

    def _end(self, batch: list[Waiting[AppendEvent, Done]], outcomes: Any, error: Exception | None) -> None:
        self._is_busy = False
        for place, waiting in enumerate(batch):
            outcome = error if error is not None else outcomes[place]
            waiting.ticket(*((None, outcome) if isinstance(outcome, Exception) else (outcome, None)))
        self._next()
