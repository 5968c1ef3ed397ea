"""The composition root: the only place where the parts are connected. It starts them in order and stops them in reverse.

Startup order: private servers, the listener (`/live`, `/health` and `/ready` respond from here on), the database
(startup waits for it), the control log, and only then requests that need storage. Startup does not wait for NATS.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio
import structlog
from anyio.abc import TaskGroup

import openguild_runtime
from openguild_proto.connection.timer_wheel import TimerWheel
from openguild_proto.diagnosis.heavy_hitters import HeavyHitters
from openguild_proto.diagnosis.requests import RequestHistory
from openguild_proto.effects import StorageUnavailable
from openguild_proto.fanout import ring
from openguild_proto.fanout.hub import Hub
from openguild_proto.fanout.native import NATIVE
from openguild_proto.gateway.feeds import Feeds
from openguild_proto.http.headers import HeaderPolicy
from openguild_proto.operations.dispatch import dispatch, dispatch_metrics
from openguild_proto.operations.routes import max_body_bytes
from openguild_proto.policy.lifecycle import Lifecycle
from openguild_proto.policy.limit_sharing import LimitSharing
from openguild_proto.replica.replica import Replica
from openguild_runtime.admin.reload import LiveConfig
from openguild_runtime.admin.scope import AdminScope
from openguild_runtime.admin.socket_commands import serve_admin
from openguild_runtime.bus.base import Bus
from openguild_runtime.bus.kinds import configured_bus, make_bus
from openguild_runtime.config.server_config import ServerConfig, split_address
from openguild_runtime.effects.passwords import PasswordHasher
from openguild_runtime.effects.performer import Performer
from openguild_runtime.federation.delivering import PeerHints
from openguild_runtime.federation.own_keys import record_keys, record_keys_forever
from openguild_runtime.federation.peer_link import PeerLink
from openguild_runtime.gateway.sessions import GatewaySessions
from openguild_runtime.net.connection_server import ConnectionServer
from openguild_runtime.net.listener import accept_forever, address_of, close_listener, open_listener, stop_accepting
from openguild_runtime.net.socket_watch import SocketWatch, make_watch
from openguild_runtime.net.transport import Transport, watch_deadlines
from openguild_runtime.observability import logs
from openguild_runtime.observability.metrics import Metrics
from openguild_runtime.process.shutdown import CONNECTIONS_SECS, Shutdown
from openguild_runtime.replica.runner import ReplicaRunner
from openguild_runtime.server.descriptors import SCRAPES, Descriptors, make_budget
from openguild_runtime.server.exposition import Exposition
from openguild_runtime.server.first_steps import first_steps
from openguild_runtime.server.loop_stalls import measure_stalls
from openguild_runtime.server.parts import (
    make_connections,
    make_deliveries,
    make_limits,
    make_service,
    make_storage,
    make_tracing,
)
from openguild_runtime.server.readiness import ReadinessProbe
from openguild_runtime.server.request_runner import RequestRunner
from openguild_runtime.server.requests import Requests
from openguild_runtime.server.retention import prune_forever, purge_forever
from openguild_runtime.server.scrape import Scrape
from openguild_runtime.server.search_indexing import index_forever
from openguild_runtime.server.shutdown import DrainRequest, drain, end_scrapes
from openguild_runtime.server.siblings import Heartbeat, WorkerSlot
from openguild_runtime.server.storage_events import StorageEvents
from openguild_runtime.server.timekeeper import Timekeeper
from openguild_runtime.storage.base import Storage
from openguild_runtime.system.background import log_exceptions
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy
from openguild_runtime.system.unix_socket import remove_stale_sockets, worker_path

SPARE_PER_ADDRESS = 256  # HTTP connections from one address, in addition to its streams
SLOT_PATIENCE_SECS = 3.0

log = structlog.get_logger("openguild.server")


def native_ring() -> bool:
    """Return whether the compiled ring is used: it is installed, and OPENGUILD_PURE is not 1."""
    return NATIVE and os.environ.get("OPENGUILD_PURE") != "1"


class Server:
    """Every part of one replica.

    `tasks` runs the tasks that live as long as the replica. `descriptors` is the limit of open files. Arguments that are
    None are made from the configuration and the system; tests and simulations pass their own.
    """

    def __init__(
        self,
        config: ServerConfig,
        tasks: TaskGroup,
        descriptors: int,
        *,
        storage: Storage | None = None,
        bus: Bus | None = None,
        sources: ClocksAndEntropy | None = None,
        hasher: PasswordHasher | None = None,
        native: bool | None = None,
        watch: SocketWatch | None = None,
        slot: WorkerSlot | None = None,
        reread: Callable[[], ServerConfig] | None = None,
    ) -> None:
        sources = sources or ClocksAndEntropy()
        clock = sources.monotonic
        self._started = anyio.Event()
        self._listening = False
        self.lifecycle = Lifecycle()
        self.slot = slot
        self.tasks = tasks
        native = native_ring() if native is None else native
        self._hasher = hasher or PasswordHasher()
        kind = configured_bus(config)
        self.metrics = Metrics(
            openguild_runtime.__version__,
            native_ring=native,
            bus=kind.series if kind is not None else None,
            clock=clock,
        )
        self.timekeeper = Timekeeper(sources, self.metrics)
        self.sources = replace(sources, wall=self.timekeeper.wall)
        self.tracing = make_tracing(config)
        self.storage = storage or make_storage(config, tasks)
        self.bus = bus or make_bus(config, self.metrics, tasks)
        self.service = make_service(config)
        self.history, self.busy_users = RequestHistory(), HeavyHitters()
        ring_type = None if native else ring.Ring
        hub = Hub(capacity_events=config.messaging.queue_capacity, ring_type=ring_type)
        feeds = Feeds(Hub(capacity_events=config.messaging.queue_capacity, ring_type=ring_type))
        replica_id = sources.random_bytes(16).hex()
        sharing = (
            self._limit_sharing(replica_id, max(kind.min_replicas(config), config.workers))
            if kind is not None
            else None
        )
        self.replica = ReplicaRunner(
            Replica(
                hub, feeds, self.service.tokens, random.random, sharing, replica_id=replica_id, presence=config.presence
            ),
            storage=self.storage,
            bus=self.bus,
            metrics=self.metrics,
            tasks=tasks,
            sources=self.sources,
            tracing=self.tracing,
        )
        self.servers = PeerLink(
            service=self.service,
            storage=self.storage,
            connections=make_connections(config, clock, self.service.response_times),
            sources=self.sources,
            tasks=tasks,
            metrics=self.metrics.federation,
        )
        self.deliveries = make_deliveries(
            self.service, self.storage, self.servers.ask, self.bus, tasks, self.sources, holder=replica_id
        )
        self.live = LiveConfig(config, self.service, self.replica, reread or (lambda: config), self.metrics.reloaded)
        scrape = Scrape(self.metrics, self.storage, self.replica, self.live, self.deliveries, clock)
        self.exposition = Exposition(scrape.chunks, slot, max_age_secs=config.metrics.max_age_secs, clock=clock)
        budget = make_budget(config, descriptors, self.service.sockets.max_total)
        self.readiness = ReadinessProbe(
            self.storage,
            self.bus,
            self.metrics,
            budget,
            self.lifecycle,
            clock,
            is_memory=config.storage == "memory",
        )
        on_main = config.metrics.enabled and config.metrics.bind_addr is None
        self.performer = self._performer(metrics_shown=on_main)
        self.timers: TimerWheel[Transport] = TimerWheel(clock())
        self.watch = watch or make_watch(asyncio.get_running_loop())
        self.connection_server = self._connection_server(self.performer, max_connections=budget.max_connections)
        self.descriptors = Descriptors(budget, self.connection_server, self.service.sockets, self.metrics, clock)
        self._connection_servers = [self.connection_server]  # closed when the process ends
        self.storage.attach(StorageEvents(self.replica, self.deliveries, self.metrics, self.readiness))

    def _performer(self, *, metrics_shown: bool) -> Performer:
        return Performer(
            storage=self.storage,
            lifecycle=self.lifecycle,
            hasher=self._hasher,
            readiness=self.readiness,
            render_metrics=self.exposition.whole if metrics_shown else _no_metrics,
            committed=self.deliveries.after(self.replica.committed),
            announce=self.replica.announce,
            presence_of=self.replica.replica.presence_of,
            servers=self.servers,
            tracing=self.tracing,
        )

    def _connection_server(
        self, performer: Performer, max_connections: int, *, metrics_only: bool = False
    ) -> ConnectionServer:
        config = self.live.config
        limits, proxies = make_limits(config), config.trusted_proxies
        runner = RequestRunner(
            service=self.service,
            performer=performer,
            metrics=self.metrics,
            dispatch=dispatch_metrics if metrics_only else dispatch,
            sources=self.sources,
            timeout_secs=limits.request_timeout_secs,
            history=self.history,
            busy_users=self.busy_users,
            tracing=None if metrics_only else self.tracing,
            contacted=self.deliveries.contacted,
        )
        gateway = GatewaySessions(runner, self.replica, self.sources, self.tasks, limits)
        requests = Requests(runner, self.replica, gateway, self.metrics)
        return ConnectionServer(
            requests,
            limits=limits,
            policy=HeaderPolicy.create(
                cors_allowed_origins=config.cors.allowed_origins, trusted_proxies=proxies, wall=self.sources.wall
            ),
            metrics=self.metrics,
            timers=self.timers,
            watch=self.watch,
            tasks=self.tasks,
            sources=self.sources,
            max_connections=max_connections,
            max_per_address=config.websocket.max_connections_per_address + SPARE_PER_ADDRESS,
            max_body_of=max_body_bytes,
        )

    def _limit_sharing(self, replica_id: str, at_least: int) -> LimitSharing:
        return LimitSharing(replica_id, self.service.shared_windows(), at_least=at_least)

    # --- life --------------------------------------------------------------------------------------

    async def start_parts(self) -> None:
        """Start everything except the listener, without waiting for storage; `readiness` reports when requests are served."""
        self.tasks.start_soon(watch_deadlines, self.timers, self.sources.monotonic)
        self.tasks.start_soon(self.readiness.watch)
        self.tasks.start_soon(measure_stalls, self.metrics, self.sources.monotonic)
        self.tasks.start_soon(self.replica.run)
        await self.bus.start(PeerHints(self.replica.from_bus, self.deliveries.on_hint, self.deliveries.reconnected))
        self.tasks.start_soon(self._start_storage)

    async def run(self, shutdown: Shutdown, hangups: AsyncIterator[signal.Signals]) -> None:
        """Listen, start in the background, serve until `shutdown` is requested, then drain. Each of `hangups` is a reload."""
        shared, config = self.slot is not None, self.live.config
        listeners = [] if shared else [open_listener(*config.listen)]
        try:
            await self.start_parts()
            self.tasks.start_soon(self._reload_at_hangup, hangups)
            if self.slot is not None:
                self.tasks.start_soon(self.slot.serve, self.exposition.own, self._heartbeat, self.metrics.reloaded)
                # until this worker can serve, connections go to its siblings
                with anyio.move_on_after(SLOT_PATIENCE_SECS):
                    await self._started.wait()
                listeners.append(open_listener(*config.listen, shared=True))
            self._start_admin(config.admin_path)
            self.tasks.start_soon(self.descriptors.watch)
            self._accept(listeners[0], self.connection_server)
            if config.metrics.enabled and config.metrics.bind_addr is not None:
                listeners.append(open_listener(*split_address(config.metrics.bind_addr), shared=shared))
                self._start_metrics(listeners[1])
            self._listening = True
            log.info(f"listening on {address_of(listeners[0])}")
            await shutdown.wait_requested()
            with shutdown.deadline("connections", CONNECTIONS_SECS):
                await self._drain(listeners[0])
                for scrapes in self._connection_servers[1:]:  # last, so that scrapes see the whole drain
                    await end_scrapes(scrapes)
        finally:
            for listener in listeners:
                close_listener(listener)
            for connection_server in self._connection_servers:
                connection_server.end_all()
                connection_server.give_up()

    async def aclose(self, shutdown: Shutdown) -> None:
        """Close the connections to NATS, other servers, PostgreSQL and the trace collector, all at the same time."""
        self.watch.close()
        async with anyio.create_task_group() as closing:
            closing.start_soon(shutdown.close, self.bus.title, self.bus.aclose)
            closing.start_soon(shutdown.close, "other servers", self.servers.aclose)
            closing.start_soon(shutdown.close, "PostgreSQL", self.storage.aclose, self.storage.cut)
            if self.tracing is not None:
                closing.start_soon(shutdown.close, "tracing", self.tracing.aclose)

    def _accept(self, listener: socket.socket, connection_server: ConnectionServer) -> None:
        self.tasks.start_soon(
            accept_forever, listener, connection_server.serve, self.descriptors.ran_out, self.sources.monotonic
        )

    def _start_metrics(self, listener: socket.socket) -> None:
        connection_server = self._connection_server(
            self._performer(metrics_shown=True), max_connections=SCRAPES, metrics_only=True
        )
        self._connection_servers.append(connection_server)
        self._accept(listener, connection_server)
        log.info(f"metrics listening on {address_of(listener)}")

    def _start_admin(self, path: Path | None) -> None:
        if path is None:
            return
        if self.slot is None:
            remove_stale_sockets(path)
        else:
            path = worker_path(path, self.slot.number)
        scope = AdminScope(
            live=self.live,
            replica=self.replica,
            drain=DrainRequest(self.lifecycle, self.slot),
            storage=self.storage,
            metrics=self.metrics,
            history=self.history,
            busy_users=self.busy_users,
            readiness=self.readiness,
            connections=lambda: len(self.connection_server.transports),
            sources=self.sources,
            servers=self.servers,
            deliveries=self.deliveries,
        )
        self.tasks.start_soon(serve_admin, scope, path)

    def _heartbeat(self) -> Heartbeat:
        return Heartbeat(self._listening, self.live.changes())

    async def _reload_at_hangup(self, hangups: AsyncIterator[signal.Signals]) -> None:
        async for _ in hangups:
            with log_exceptions("reading the configuration again"):
                self.live.reload()

    async def _start_storage(self) -> None:
        await self.storage.start()
        await _until_available(self.replica.start)
        await _until_available(partial(self.timekeeper.measure, self.storage))
        await _until_available(partial(record_keys, self.storage, self.service.signers, self.sources))
        self.tasks.start_soon(self.timekeeper.run, self.storage)
        self.tasks.start_soon(self.replica.watch_wall_clock)  # `sources.wall` is the database's clock from here on
        self.lifecycle.started()
        self._started.set()
        await self._tell_serving()
        self.tasks.start_soon(prune_forever, self.storage, self.sources, lambda: self.live.config.session)
        self.tasks.start_soon(purge_forever, self.storage)
        self.tasks.start_soon(index_forever, self.storage)
        self.tasks.start_soon(self.servers.moves.run_forever)
        self.tasks.start_soon(self.servers.watch_owners)
        self.tasks.start_soon(record_keys_forever, self.storage, self.service.signers, self.sources)
        self.replica.follow()
        self.deliveries.start()

    async def _tell_serving(self) -> None:
        """Log that the server serves; at a terminal, an embedded server prints the first steps instead."""
        config = self.live.config
        is_first = self.slot is None or self.slot.number == 0
        if not (config.embedded and logs.is_for_people() and is_first):
            log.info("serving")
            return
        await self.readiness()  # so that its log lines come first
        url, *steps = first_steps(config.listen[1], config.data_dir)
        log.info(url)
        logs.write_line("\n".join(steps) + "\n")

    async def _drain(self, listener: socket.socket) -> None:
        self.deliveries.drain()
        await drain(
            self.connection_server,
            self.replica,
            self.lifecycle,
            self.metrics,
            partial(stop_accepting, listener, self.connection_server.serve, self.sources.monotonic),
            delay_secs=self.live.config.drain.delay_secs,
            window_secs=self.live.config.drain.window_secs,
            clock=self.sources.monotonic,
        )


async def _no_metrics() -> None:
    """Return None, because metrics are disabled or have their own listener."""


async def _until_available(action: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await action()
        except StorageUnavailable:
            await anyio.sleep(random.uniform(0.1, 0.5))  # noqa: S311 - jitter
        else:
            return
