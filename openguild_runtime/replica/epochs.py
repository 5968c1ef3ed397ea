"""Sees that the database lost what was committed, and has every channel given a new epoch in the same breath.

What shows it: another lineage than the one recorded in the database (a promotion, a point-in-time recovery, a move), also at
the start of a replica; and a log that went back under a running replica. Replicas that see it at once renew once: the first
one's transaction wins, the others find the count of renewals raised.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import structlog

from openguild_proto.effects import StorageUnavailable
from openguild_proto.log.lineage import Verdict, judge
from openguild_proto.records import History
from openguild_runtime.storage.base import Storage

log = structlog.get_logger("openguild.epochs")


class Epochs:
    """`renewed` holds what begins anew when the channels have new epochs, in order."""

    def __init__(self, storage: Storage) -> None:
        self.renewed: list[Callable[[], Awaitable[None]]] = []
        self._storage = storage
        self._known: History | None = None
        self._doubt: str | None = None  # the log that went back, until it is settled
        self._lock = anyio.Lock()

    async def check(self) -> None:
        """Ask the database once. Raises StorageUnavailable; whatever was begun is then taken up by the next check."""
        async with self._lock:
            found = await self._storage.history()
            if found is None:
                return
            if found.standby:
                self._refuse_standby()
                return
            verdict = judge(self._known, found, doubted=self._doubt is not None)
            if verdict is Verdict.SAME:
                self._known = found
                return
            if verdict is Verdict.LOST and self._doubt is None:
                self._doubt = "an event that was stored is missing" if found.lacks else "another lineage"
            self._known = await self._settle(found, verdict)
            self._doubt = None

    async def went_back(self, what: str) -> None:
        """A log is behind what it was: nobody can tell what else went with it. Raises StorageUnavailable, as `check` does."""
        self._doubt = what
        await self.check()

    def _refuse_standby(self) -> None:
        doubt, self._doubt = self._doubt, None
        if doubt is not None:
            raise StorageUnavailable  # a standby is behind, and that is all: the primary will tell

    async def _settle(self, found: History, verdict: Verdict) -> History:
        if verdict is Verdict.UNRECORDED:
            await self._storage.record_lineage(found)
        elif verdict is Verdict.LOST:
            await self._renew(found)
        now = await self._storage.history()
        if now is None or now.standby:
            raise StorageUnavailable
        if verdict is not Verdict.UNRECORDED:
            for begin_anew in self.renewed:
                await begin_anew()
        return now

    async def _renew(self, found: History) -> None:
        known = self._known.renewals if self._known is not None else 0
        if await self._storage.renew_epochs(found, known + 1):
            log.error(
                "the database may have lost its newest commits: every channel has a new epoch, its streams begin anew",
                seen=self._doubt,
                recorded=found.recorded,
                lineage=found.lineage,
            )
