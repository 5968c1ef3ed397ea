"""The database: transactions that commit, abort or lose their answer, outages, and a restore to an earlier state.

It holds the tables of the memory store, and the history of its own recoveries, as PostgreSQL does.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec

from openguild_proto.effects import StorageEffect
from openguild_proto.effects.channels import Appended, AppendEvent
from openguild_proto.effects.replica import ReadHistory, RecordLineage, RenewEpochs
from openguild_proto.memory import MemoryTables
from openguild_proto.records import ControlRecord, History, StoredEvent
from tests.simulation.clock import Clock
from tests.simulation.ledger import Ledger

QUICK_SECS = (0.0005, 0.001, 0.002, 0.01)  # one direction of a query
SLOW_SECS = 0.2
SLOW_SHARE = 0.03


class Database:
    """`abort_share`, `unknown_share`: transactions that fail before the commit, or lose their answer after it."""

    def __init__(self, clock: Clock, rng: Random, state: bytes, violation: Callable[[str], None]) -> None:
        self.tables = MemoryTables()
        self.tables._state = pickle.loads(state)
        self.ledger = Ledger()
        self.abort_share = self.unknown_share = 0.0
        self.restores = 0
        self.down_until = 0.0
        self.hangs = False  # during an outage nothing is answered until it ends
        self._clock = clock
        self._rng = rng
        self._violation = violation
        self._lineage = 1  # incremented by each promotion
        self._recorded: str | None = None
        self._renewals = 0
        self._ids = 1  # ids given so far
        self._id = "database 1"
        self._backup: tuple[bytes, str | None, int, str] | None = None

    # --- faults --------------------------------------------------------------------------------------

    @property
    def is_down(self) -> bool:
        return self._clock.now < self.down_until

    def delay(self) -> float:
        """Return the delay of one direction."""
        random = self._rng.random
        return SLOW_SECS * random() if random() < SLOW_SHARE else QUICK_SECS[int(random() * len(QUICK_SECS))]

    def goes_down(self, secs: float, *, hangs: bool) -> None:
        self.down_until = max(self.down_until, self._clock.now + secs)
        self.hangs = hangs

    def heal(self) -> None:
        self.abort_share = self.unknown_share = 0.0
        self.down_until = min(self.down_until, self._clock.now)

    # --- tables --------------------------------------------------------------------------------------

    def perform(self, effect: StorageEffect[Any], witness: StoredEvent | None = None) -> Any:
        """Perform an effect at its time. `witness`: an event that the asking replica has stored before (see `lacks` of History)."""
        match effect:
            case ReadHistory():
                lacks = self._lacks(witness)
                return History(self._name, self._recorded, self._renewals, lacks=lacks, database=self._id)
            case RecordLineage(found=found):
                if self._recorded is None and self._renewals == found.renewals:
                    self._recorded = found.lineage
                return None
            case RenewEpochs(found=found, at_least=at_least):
                return self._renew(found, at_least)
            case AppendEvent():
                outcome = self.tables.perform(effect)
                if isinstance(outcome, Appended) and not outcome.repeated:
                    wrong = self.ledger.append(outcome.event, self._clock.now)
                    if wrong is not None:
                        self._violation(wrong)
                return outcome
        return self.tables.perform(effect)

    def control_since(self, sequence: int) -> list[ControlRecord]:
        return self.tables.control_since(sequence, self.tables.control_head() - sequence)

    def head(self, channel_id: str) -> int | None:
        """Return the head of a channel's log; None if there is no such channel."""
        return self.tables.heads([channel_id]).get(channel_id)

    # --- history -------------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return f"cluster:{self._lineage}"

    def _lacks(self, witness: StoredEvent | None) -> bool:
        state = self.tables._state
        return witness is not None and witness.log_id in state.channels and witness.event_id not in state.event_places

    def _renew(self, found: History, at_least: int) -> bool:
        if self._renewals != found.renewals:
            return False
        self._renewals = max(self._renewals + 1, at_least)
        self._recorded = found.lineage or self._recorded
        self._ids += 1
        self._id = f"database {self._ids}"
        for channel in self.tables._state.channels.values():
            channel.record = msgspec.structs.replace(channel.record, epoch=2 + self._rng.getrandbits(52))
        for log_id in self.tables._state.logs:
            self.tables._state.epochs[log_id] = 2 + self._rng.getrandbits(52)
        return True

    def back_up(self) -> None:
        """Keep the current state, as a standby does that gets nothing from here on."""
        self._backup = pickle.dumps(self.tables._state), self._recorded, self._renewals, self._id

    def restore(self) -> None:
        """Return to the kept state, with another lineage, like a promoted standby."""
        if self._backup is None:
            return
        state, self._recorded, self._renewals, self._id = self._backup
        self.tables._state = restored = pickle.loads(state)
        self.restores += 1
        self._lineage += 1
        self.ledger.restored({channel_id: len(channel.events) for channel_id, channel in restored.channels.items()})
