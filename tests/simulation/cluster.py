"""The parts that the replicas share: the database, the bus and the keys; and the delivery of requests to the replicas."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from openguild_proto.canonical.signing import SigningKey
from openguild_proto.http.message import Request, Response
from tests.simulation.bus import Bus
from tests.simulation.clock import Clock, Wait
from tests.simulation.database import Database
from tests.simulation.keys import Keys
from tests.simulation.pipes import Pipe, Reader
from tests.simulation.process import Process

REPLICAS = 3
RESTART_SECS = 0.3

Plant = Callable[[Process], None]


class Cluster:
    """`plant` puts a bug into each new process."""

    def __init__(
        self, clock: Clock, rng: Random, state: bytes, token_secs: int, violation: Callable[[str], None], plant: Plant
    ) -> None:
        self.clock = clock
        self.rng = rng
        self.violation = violation
        self.plant = plant
        self.token_secs = token_secs
        self.keys = Keys(SigningKey(bytes(32)))
        self.send_bytes = rng.choice((1_500, 3_000, 65_536))  # the largest send of a flush
        self.few = rng.choice((3, 32))  # actions that a process carries out at once
        self.capacity = rng.choice((4, 16))  # events per ring: few, so that slow readers lag in a short run
        self.request_secs = rng.choice(
            (10.0, 10.0, 0.5, 0.05)
        )  # after which a request is abandoned, while there are faults
        self.database = Database(clock, rng, state, violation)
        self.bus = Bus(clock, rng)
        self.processes: list[Process] = []
        self.ended: list[Process] = []
        self.crashes = 0

    def start(self) -> None:
        self.processes += [Process(self, number, self.few) for number in range(REPLICAS)]

    # --- ends of replicas ----------------------------------------------------------------------------

    def kill(self, number: int, secs: float) -> None:
        """Kill a replica; a new process starts after `secs`."""
        if self.processes[number].alive:
            self.processes[number].kill()
            self.killed(number, secs)

    def kill_at(self, number: int, effect: int, moment: str, secs: float) -> None:
        """Kill a replica at one of its next effects."""
        self.processes[number].kill_at(effect, moment, lambda: self.killed(number, secs))

    def killed(self, number: int, secs: float) -> None:
        self.crashes += 1
        self.clock.later(secs, self._restart, self.processes[number])

    def _restart(self, before: Process) -> None:
        if self.processes[before.number] is before and not before.alive:
            self.processes[before.number] = Process(self, before.number, self.few)

    def roll(self, number: int, delay_secs: float, window_secs: float) -> None:
        """Send SIGTERM: after a delay nothing new begins and streams are sent to other replicas; then a new process starts."""
        process = self.processes[number]
        if process.alive and not process.is_rolled:
            process.is_rolled = True
            self.clock.later(delay_secs, self._drain, process, window_secs)

    def _drain(self, process: Process, window_secs: float) -> None:
        if process.alive:
            process.drain(window_secs)
            self.clock.later(window_secs, self._end_drained, process)

    def _end_drained(self, process: Process) -> None:
        if process.alive:
            process.kill()
            self.clock.later(RESTART_SECS, self._restart, process)

    def replace_keys(self, keys: Keys) -> None:
        """Replace the keys on every replica, and on those that start later."""
        self.keys = keys
        for process in self.processes:
            if process.alive:
                process.keys_replaced(keys)

    # --- requests ------------------------------------------------------------------------------------

    def sending(self, place: int, request: Request) -> Wait:
        """Send a request to a replica. Resumes with the answer; None: the replica was unreachable or the connection broke."""
        return lambda resume: self.clock.later(self._delay(), self._arrive, place, request, resume, None)

    def opening(self, place: int, request: Request, reader: Reader, reply: Callable[[Response | None], None]) -> Pipe:
        """Request a stream. `reader` is called when it is opened, `reply` when it is refused."""
        pipe = Pipe(self.clock, self.rng, reader)
        self.clock.later(self._delay(), self._arrive, place, request, reply, pipe)
        return pipe

    def _arrive(
        self, place: int, request: Request, reply: Callable[[Response | None], None], pipe: Pipe | None
    ) -> None:
        process = self.processes[place % REPLICAS]
        if process.alive and process.listening:
            process.serve(request, reply, pipe)
        else:
            self.clock.later(self._delay(), reply, None)

    def _delay(self) -> float:
        return 0.001 + 0.004 * self.rng.random()
