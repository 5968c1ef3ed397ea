"""Detects that the database has lost commits, and then gives every channel a new epoch at once.

There are two signs. The lineage differs from the one recorded in the database (a promotion, a point-in-time recovery, a move), also
at the start of a replica. Or a log went back under a running replica. If several replicas notice it at once, the epochs are renewed
once: the first transaction wins, and the others see that the count of renewals has increased.

The same queries return the id of the database. Replicas talk only to replicas with the same id. It changes with the epochs, so that
replicas of a copy, such as a restored backup, no longer talk to those of the original.
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
    """`begin_anew` runs when the channels have new epochs. It may raise StorageUnavailable: the next check runs it again.

    `replica_id`: the id of a database without an id, because it ends with this process.
    """

    def __init__(self, outputs: Outputs, begin_anew: Callable[[], Procedure[None]], replica_id: str) -> None:
        self._outputs = outputs
        self._begin_anew = begin_anew
        self._replica_id = replica_id
        self._joined: str | None = None  # the id of a database
        self._known: History | None = None
        self._doubt: str | None = None  # the log that went back, until it is settled
        self._checking: Signal | None = None

    def check(self) -> Procedure[None]:
        """Query the database once. Raises StorageUnavailable; the next check then continues the work."""
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
        """Note that a log went back, so that other commits may be lost too. Raises StorageUnavailable, as `check` does."""
        self._doubt = what
        yield from self.check()

    def _refuse_standby(self) -> None:
        doubt, self._doubt = self._doubt, None
        if doubt is not None:
            raise StorageUnavailable  # a standby is behind, and that is all: the primary will tell

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
