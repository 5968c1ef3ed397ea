"""The faults of the servers and of the links between them, and their times: drawn from the seed."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import msgspec

from tests.simulation.federation.population import NAMES

if TYPE_CHECKING:
    from tests.simulation.federation.scenario import Run
    from tests.simulation.federation.server import Server

MOST = 7  # faults per run
RESTORE_SHARE = 0.25  # share of the runs
AWAY_SHARE = 0.08  # share of the runs in which a server or a link is away for hours
DAYS_SHARE = 0.01  # share of the runs: away for days
SKEWS_MS = (0, 0, 0, 240_000, -240_000, 360_000, -360_000)
HOUR = 3_600.0


class Trouble:
    """`begin` plans all faults within `secs`; `end` ends them. `until`: the end of the longest one."""

    def __init__(self, run: Run, secs: float) -> None:
        self.run = run
        self.rng = run.rng
        self.until = self._secs = secs
        self._deeds = (
            self._crash,
            self._crash_at,
            self._crash_at,
            self._cut,
            self._cut,
            self._rotate,
            self._step_clock,
        )

    def begin(self) -> None:
        rng, network = self.rng, self.run.network
        network.lost = rng.choice((0.0, 0.03, 0.15))
        network.repeated = rng.choice((0.0, 0.05, 0.3))
        network.late = rng.choice((0.0, 0.0, 0.02, 0.1))
        for server in self.run.servers.values():
            server.skew_ms = rng.choice(SKEWS_MS)
            server.faults = rng.choice((0.0, 0.0, 0.01, 0.05))
        for _ in range(rng.randrange(MOST)):
            self.run.clock.at(rng.uniform(0, self._secs), self._act)
        if rng.random() < RESTORE_SHARE:
            at = rng.uniform(0.1, 0.8) * self._secs
            self.run.clock.at(at, self._back_up, self._any(), rng.uniform(0.02, 0.5) * self._secs)
        draw = rng.random()
        if draw < AWAY_SHARE:
            hours = rng.uniform(24, 72) if draw < DAYS_SHARE else rng.uniform(0.2, 4)
            self.until = self._secs + hours * HOUR
            self.run.report.hours += hours
            self.run.clock.at(rng.uniform(0, self._secs), self._go_away)

    def end(self) -> None:
        self.run.network.heal()
        for server in self.run.servers.values():
            server.skew_ms = 0
            server.faults = 0.0
            if not server.is_up:
                server.boot()

    def _act(self) -> None:
        self.rng.choice(self._deeds)()

    def _any(self) -> Server:
        return self.run.servers[self.rng.choice(NAMES)]

    def _crash(self) -> None:
        self._any().crash(self.rng.uniform(0.1, 20))

    def _crash_at(self) -> None:
        self._any().crash_at(self.rng.randrange(1, 40))

    def _cut(self) -> None:
        one, other = self.rng.sample(NAMES, 2)
        self.run.network.cut(one, other, self.rng.uniform(1, 60))

    def _rotate(self) -> None:
        server = self._any()
        if server.is_up:
            server.rotate()

    def _step_clock(self) -> None:
        self._any().skew_ms = self.rng.choice(SKEWS_MS)

    def _go_away(self) -> None:
        if self.rng.random() < 0.5:
            self._any().crash(self.until - self.run.clock.now)
        else:
            one, other = self.rng.sample(NAMES, 2)
            self.run.network.cut(one, other, self.until - self.run.clock.now)

    # --- restored databases --------------------------------------------------------------------------

    def _back_up(self, server: Server, secs: float) -> None:
        self.run.clock.later(secs, self._restore, server, pickle.dumps(server.state))

    def _restore(self, server: Server, backup: bytes) -> None:
        """Return to the backup, with new epochs for the server's own logs."""
        server.crash(1e9)
        state = server.tables._state = pickle.loads(backup)
        for channel in state.channels.values():
            if channel.record.origin is None:
                channel.record = msgspec.structs.replace(channel.record, epoch=2 + self.rng.getrandbits(52))
        for log_id in state.logs:
            if log_id not in state.mirrors:
                state.epochs[log_id] = 2 + self.rng.getrandbits(52)
        server.restored_at = self.run.clock.now
        self.run.report.restores += 1
        self.run.books.restored(server)
        server.boot()
