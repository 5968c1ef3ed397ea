"""Three real replicas, without only the listener and the flush, on a simulated database, NATS and network."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import anyio
from anyio.abc import TaskGroup

from openguild_proto.canonical.keys import encode_unpadded
from openguild_runtime.config.server_config import ServerConfig
from openguild_runtime.effects.passwords import PasswordHasher
from openguild_runtime.net.socket_watch import LoopWatch
from openguild_runtime.server.app import Server
from openguild_runtime.server.shutdown import drain
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy
from tests.simulation.runtime.bus import SimBus, SimNats
from tests.simulation.runtime.database import SimDatabase, SimStorage
from tests.simulation.runtime.loop import SimLoop
from tests.simulation.runtime.network import Network
from tests.support.world import START_MS

QUEUE_CAPACITY = 16  # small, so that slow readers lag in a short run
DESCRIPTORS = 100_000
RESTART_SECS = 0.3  # from the end of a process to the next one, without a crash


def config(token_secs: int) -> ServerConfig:
    return ServerConfig.model_validate(
        {
            "storage": "memory",
            "session": {"signing_key": encode_unpadded(bytes(32)), "access_ttl_secs": token_secs},
            "messaging": {
                "max_messages_per_user_per_window": 1_000_000,
                "max_messages_per_ip_per_window": 1_000_000,
                "queue_capacity": QUEUE_CAPACITY,
            },
            "guilds": {"max_writes_per_user_per_window": 1_000_000},
            "drain": {"delay_secs": 0.2, "window_secs": 2},
        }
    )


Plant = Callable[["Replica"], None]


@dataclass
class Faults:
    """The faults of a run, drawn from the seed by the scenario."""

    abort_share: float
    unknown_share: float
    drop: float
    drop_control: float
    repeat: float
    late: float


class Cluster:
    """The parts that replicas share."""

    def __init__(
        self,
        loop: SimLoop,
        rng: Random,
        tables: Any,
        faults: Faults,
        tasks: TaskGroup,
        plant: Plant,
        *,
        token_secs: int,
    ) -> None:
        self.loop = loop
        self.rng = rng
        self.tasks = tasks
        self.plant = plant
        self.config = config(token_secs)
        self.database = SimDatabase(tables, rng, faults.abort_share, faults.unknown_share)
        self.nats = SimNats(
            loop, rng, drop=faults.drop, drop_control=faults.drop_control, repeat=faults.repeat, delay=faults.late
        )
        self.network = Network(loop, rng)
        self.sources = ClocksAndEntropy(
            monotonic=loop.time, wall=lambda: START_MS / 1000 + loop.time(), random_bytes=rng.randbytes
        )
        self.replicas: list[Replica] = []

    def heal(self) -> None:
        """End all faults, except that control messages may still be lost: the log has them."""
        self.database.abort_share = self.database.unknown_share = 0.0
        self.nats.drop = 0.0
        self.database.down = False


_hasher = PasswordHasher()


class Replica:
    """`start` and `crash` may alternate; each start is a new process at the same address."""

    def __init__(self, cluster: Cluster, port: int) -> None:
        self.cluster = cluster
        self.port = port
        self.url = f"http://replica:{port}"
        self.alive = False
        self.starts = itertools.count()
        self.server: Server
        self.storage: SimStorage
        self.bus: SimBus
        self._scope = anyio.CancelScope()

    def start(self) -> None:
        if not self.alive:
            self.alive = True
            self._scope = anyio.CancelScope()
            self.cluster.tasks.start_soon(self._run, self._scope)

    async def _run(self, scope: anyio.CancelScope) -> None:
        cluster = self.cluster
        with scope:
            async with anyio.create_task_group() as tasks:
                self.storage = storage = SimStorage(cluster.database, tasks)
                self.bus = bus = SimBus(cluster.nats)
                self.server = server = Server(
                    cluster.config, tasks, DESCRIPTORS, storage=self.storage, bus=self.bus, sources=cluster.sources,
                    hasher=_hasher, native=False, watch=LoopWatch(cluster.loop),
                )  # fmt: skip
                cluster.plant(self)
                cluster.network.listeners[self.port] = server.connection_server.serve
                try:
                    await server.start_parts()
                    await anyio.sleep_forever()
                finally:  # at the end of the run, running work is awaited and must learn of it
                    server.connection_server.end_all()
                    storage.die()
                    bus.die()

    def crash(self) -> None:
        """Crash as with SIGKILL: nothing more is stored, sent or logged; queries on their way to the database may still arrive."""
        if not self.alive:
            return
        self.alive = False
        self.cluster.network.listeners.pop(self.port, None)
        self.cluster.network.cut(self.port)
        self.storage.die()
        self.bus.die()
        self._scope.cancel()

    def crash_at(self, number: int, moment: str) -> None:
        """Crash at the `number`th effect from now, `before` or `after` it is performed."""
        target = self.storage.effects + number

        def hook(effect: int, when: str) -> None:
            if effect == target and when == moment:
                self.crash()

        self.storage.at_effect = hook

    async def roll(self) -> None:
        """Send SIGTERM and start a new process."""
        if not self.alive:
            return
        server = self.server
        await drain(
            server.connection_server, server.replica, server.lifecycle, server.metrics, self._stop_listening,
            delay_secs=self.cluster.config.drain.delay_secs, window_secs=self.cluster.config.drain.window_secs,
            clock=self.cluster.sources.monotonic,
        )  # fmt: skip
        self.crash()
        await anyio.sleep(RESTART_SECS)
        self.start()

    async def _stop_listening(self) -> None:
        self.cluster.network.listeners.pop(self.port, None)
