"""One run from one seed: users of three servers share guilds under all kinds of faults; then the final checks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeAlias

from tests.simulation.clock import Activity, Clock
from tests.simulation.federation.books import Books
from tests.simulation.federation.checks import check, is_level
from tests.simulation.federation.network import LATE_SECS, Network
from tests.simulation.federation.population import populate
from tests.simulation.federation.server import Server
from tests.simulation.federation.trouble import Trouble
from tests.simulation.federation.users import Actor

DEEDS = 14  # per user
TROUBLE_SECS = 100.0  # simulated; after that all faults end, except for a server that is away for hours
GIVEN_UP_SECS = 400.0  # after which no user is a member only at the owner: mirrors check once a minute
ASK_AGAIN_SECS = 600.0
SETTLE_SECS = 3 * 3_600.0  # after which every server must have everything: each peer is retried at least once an hour
LOOK_SECS = 5.0
REST_SECS = 70.0  # one round of all periodic checks later, nothing may be pending

Plant: TypeAlias = Callable[[Server], None]


def no_plant(server: Server) -> None:
    """Plant no bug."""


@dataclass
class Report:
    """The violations of a run, if any. `digest` is equal for equal runs."""

    seed: int
    violations: list[str] = field(default_factory=list)
    posts: int = 0
    requests: int = 0
    delivered: int = 0
    crashes: int = 0
    restores: int = 0
    hours: float = 0.0
    settled: float = 0.0
    digest: str = ""


class Run:
    """`people`: the population."""

    def __init__(self, seed: int, plant: Plant = no_plant) -> None:
        self.rng = Random(seed)
        self.clock = Clock()
        self.report = Report(seed)
        self.plant = plant
        self.people = populate()
        self.servers: dict[str, Server] = {}
        self.network = Network(self)
        self.books = Books(self)
        for name, state in self.people.states.items():
            self.servers[name] = Server(self, name, state)
            self.books.adopt(self.servers[name])
        self.actors = [Actor(self, user) for user in self.people.users]
        self._busy = 0
        self._trace: list[tuple[float, str, str, int]] = []

    def go(self) -> Report:
        """Run from the start to the final checks."""
        trouble = Trouble(self, TROUBLE_SECS)
        trouble.begin()
        for actor in self.actors:
            self._begin(actor.live(DEEDS, 0.9 * TROUBLE_SECS))
        self.clock.run(trouble.until)
        trouble.end()
        self._wait(lambda: not self._busy, 600.0)
        self.clock.run(self.clock.now + LATE_SECS + GIVEN_UP_SECS)
        if self._busy:
            self.violation(f"{self._busy} users still wait for an answer")
        healed = self.clock.now
        for secs in (ASK_AGAIN_SECS, SETTLE_SECS):  # a removal may arrive after a late join from before it
            self._begin(self._agree())
            self._wait(lambda: not self._busy and is_level(self), secs)
        self.report.settled = self.clock.now - healed
        self.clock.run(self.clock.now + REST_SECS)
        check(self)
        self.report.digest = hashlib.blake2b(repr(self._trace).encode(), digest_size=8).hexdigest()
        return self.report

    def _agree(self) -> Activity[None]:
        """Let users join again whom a restored database has forgotten."""
        for actor in self.actors:
            for home in self.people.guilds:
                there, here = self.servers[home.server].state, actor.server.state
                if home.server == actor.user.server or home.guild_id not in there.guilds:
                    continue
                is_there, is_here = (
                    actor.user.user_id in state.members.get(home.guild_id, {}) for state in (there, here)
                )
                is_lost = is_here and home.guild_id not in here.guilds
                went_back = max(self.servers[home.server].restored_at, actor.server.restored_at) >= 0
                if (is_there or is_here) and (is_lost or went_back):
                    yield from actor.join(home.guild_id, tries=20)

    def _begin(self, activity: Activity[Any]) -> None:
        self._busy += 1
        self.clock.start(self._until_it_ends(activity))

    def _until_it_ends(self, activity: Activity[Any]) -> Activity[None]:
        yield from activity
        self._busy -= 1

    def _wait(self, done: Callable[[], bool], secs: float) -> None:
        end, step = self.clock.now + secs, LOOK_SECS
        while not done() and self.clock.now < end:
            self.clock.run(self.clock.now + step)
            step = min(step * 1.3, 120.0)

    def violation(self, text: str) -> None:
        self.report.violations.append(f"{self.clock.now:.3f} s: {text}")

    def note(self, who: str, what: str, status: int) -> None:
        self._trace.append((self.clock.now, who, what, status))


def run_seed(seed: int, plant: Plant = no_plant) -> Report:
    """Run one seed to its end; any exception is a violation."""
    run = Run(seed, plant)
    try:
        return run.go()
    except Exception as failure:
        run.violation(f"a server fell: {failure!r}")
        return run.report
