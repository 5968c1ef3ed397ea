"""Detects that the database has lost commits, and then gives every channel a new epoch.

Commits may be lost if the lineage differs from the one recorded in the database (after a promotion, a point-in-time recovery
or a move), which is also checked when a replica starts, or if a log went back under a running replica. If several replicas
see it at the same time, the epochs are renewed once: the first transaction wins, the others find the count of renewals
raised.

The history also has the id of the database. Replicas exchange messages only within one database. The id changes with the
epochs, so that a copy in use beside its original, such as a restored backup, separates from it.
"""

from __future__ import annotations

from collections.abc import Callable

from openguild_proto.effects.base import StorageUnavailable
from openguild_proto.effects.replica import ReadHistory, RecordLineage, RenewEpochs
from openguild_proto.log.lineage import Verdict, judge
from openguild_proto.procedures import Procedure, Signal
from openguild_proto.records import History
from openguild_proto.replica.actions import Join, Level
from openguild_proto.replica.outputs import Outputs


class Epochs:
    """Checks the history of the database.

    `begin_anew` is run when the channels have new epochs; if it raises StorageUnavailable, the next check runs it again.
    `replica_id`: used as the id of a database without history, which ends with this process.
    """

    def __init__(self, outputs: Outputs, begin_anew: Callable[[], Procedure[None]], replica_id: str) -> None:
        self._outputs = outputs
        self._begin_anew = begin_anew
        self._replica_id = replica_id
        self._joined: str | None = None  # the database id of the last Join
        self._known: History | None = None
        self._doubt: str | None = None  # why commits may be lost, until the epochs are renewed
        self._checking: Signal | None = None

    def check(self) -> Procedure[None]:
        """Read the history and act on it. Raises StorageUnavailable; the next check then continues what was left undone."""
        while self._checking is not None:
            yield from self._checking.wait()
        self._checking = Signal(self._outputs.procedures)
        try:
            yield from self._check()
        finally:
            ended, self._checking = self._checking, None
            ended.set()

    def _check(self) -> Procedure[None]:
        found = yield from ReadHistory()
        if found is None:
            self._join(self._replica_id)
            return
        self._outputs.counters.renewals = found.renewals
        if found.standby:
            self._refuse_standby()
            return
        verdict = judge(self._known, found, doubted=self._doubt is not None)
        if verdict is Verdict.SAME:
            self._known = found
            self._join(found.database)
            return
        if verdict is Verdict.LOST and self._doubt is None:
            self._doubt = "an event that was stored is missing" if found.lacks else "another lineage"
        self._known = yield from self._settle(found, verdict)
        self._doubt = None

    def went_back(self, what: str) -> Procedure[None]:
        """Check the history because a log went back. `what` is logged. Raises StorageUnavailable, as `check` does."""
        self._doubt = what
        yield from self.check()

    def _refuse_standby(self) -> None:
        doubt, self._doubt = self._doubt, None
        if doubt is not None:
            raise StorageUnavailable  # a standby may only be behind: wait for the primary

    def _settle(self, found: History, verdict: Verdict) -> Procedure[History]:
        if verdict is Verdict.UNRECORDED:
            yield from RecordLineage(found)
        elif verdict is Verdict.LOST:
            yield from self._renew(found)
        now = yield from ReadHistory()
        if now is None or now.standby:
            raise StorageUnavailable
        self._outputs.counters.renewals = now.renewals
        self._join(now.database)
        if verdict is not Verdict.UNRECORDED:
            yield from self._begin_anew()
        return now

    def _join(self, database: str) -> None:
        if database != self._joined:
            self._joined = database
            self._outputs.add(Join(database))

    def _renew(self, found: History) -> Procedure[None]:
        known = self._known.renewals if self._known is not None else 0
        if (yield from RenewEpochs(found, known + 1)):
            self._outputs.log(
                Level.ERROR,
                "the database may have lost its newest commits: every channel has a new epoch, its streams start again",
                seen=self._doubt,
                recorded=found.recorded,
                lineage=found.lineage,
            )
