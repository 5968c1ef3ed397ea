"""The faults and their times, drawn from the seed."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tests.simulation.cluster import REPLICAS, Cluster
from tests.simulation.process import Process

REQUEST_SECS = 10.0  # the timeout of a request, unless it is short
MOST = 9  # faults per run
RESTORE_SHARE = 0.1  # share of the runs


class Trouble:
    """`begin` plans all faults within `secs`; `end` ends them, except that control messages may still be lost."""

    def __init__(self, cluster: Cluster, secs: float) -> None:
        self._cluster = cluster
        self._rng: Random = cluster.rng
        self._secs = secs
        self._deeds: tuple[Callable[[], None], ...] = (
            self._kill, self._kill_at, self._cut_link, self._cut_all_links, self._database_down, self._cut_clients, self._roll,
        )  # fmt: skip

    def begin(self) -> None:
        rng, cluster = self._rng, self._cluster
        cluster.database.abort_share = rng.choice((0.0, 0.02, 0.1))
        cluster.database.unknown_share = rng.choice((0.0, 0.02, 0.1))
        cluster.bus.drop = rng.choice((0.0, 0.05, 0.5))
        cluster.bus.drop_control = rng.choice((0.0, 0.5, 1.0))
        cluster.bus.repeat = rng.choice((0.0, 0.2))
        cluster.bus.late = rng.choice((0.0, 0.1, 0.5))
        for _ in range(rng.randrange(MOST)):
            cluster.clock.at(rng.uniform(0, self._secs), self._act)
        if rng.random() < RESTORE_SHARE:
            at = rng.uniform(0.2, 0.8) * self._secs
            cluster.clock.at(at, cluster.database.back_up)
            cluster.clock.at(at + rng.uniform(0, 0.2) * self._secs, self._restore)

    def end(self) -> None:
        self._cluster.database.heal()
        self._cluster.bus.drop = 0.0
        self._cluster.request_secs = REQUEST_SECS

    def _act(self) -> None:
        self._rng.choice(self._deeds)()

    def _any(self) -> Process:
        return self._rng.choice(self._cluster.processes)

    def _kill(self) -> None:
        self._cluster.kill(self._rng.randrange(REPLICAS), self._rng.uniform(0.3, 3))

    def _kill_at(self) -> None:
        rng = self._rng
        moment = rng.choice(("before", "after"))
        self._cluster.kill_at(rng.randrange(REPLICAS), rng.randrange(1, 12), moment, rng.uniform(0.3, 3))

    def _cut_link(self) -> None:
        self._any().link.cut(self._rng.uniform(0.2, 5))

    def _cut_all_links(self) -> None:
        for process in self._cluster.processes:
            process.link.cut(self._rng.uniform(0.2, 5))

    def _database_down(self) -> None:
        self._cluster.database.goes_down(self._rng.uniform(0.2, 3), hangs=self._rng.random() < 0.3)

    def _cut_clients(self) -> None:
        self._any().cut(self._rng.random())

    def _roll(self) -> None:
        self._cluster.roll(self._rng.randrange(REPLICAS), 0.2, 2.0)

    def _restore(self) -> None:
        self._cluster.bus.lost += 1  # a promotion takes longer than any message in flight
        self._cluster.database.restore()
