"""The composition root: the only place where parts are joined. It starts them in order and stops them in reverse.

Order of the start: private servers, then the listener (`/live`, `/health` and `/ready` answer from here on), the
database (waited for), the control log, and only then requests that need storage. NATS is not waited for.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import anyio
import structlog
from anyio.abc import TaskGroup

import openguild_runtime
from openguild_proto.canonical.keys import EventSigner, parse_seed
from openguild_proto.effects import StorageUnavailable
from openguild_proto.fanout import _native, ring
from openguild_proto.fanout.hub import Hub
from openguild_proto.http.headers import HeaderPolicy
from openguild_proto.limits import Limits
from openguild_proto.operations.context import Service, Settings
from openguild_proto.operations.dispatch import dispatch, dispatch_metrics
from openguild_proto.policy.connections import ConnectionLimiter
from openguild_proto.policy.ratelimit import SlidingWindow
from openguild_proto.records import StoredEvent
from openguild_proto.sessions.tokens import TokenAuthority
from openguild_runtime.background import start_contained
from openguild_runtime.bus.base import Bus
from openguild_runtime.bus.local import LocalBus
from openguild_runtime.bus.nats import NatsBus
from openguild_runtime.config import ServerConfig, split_address
from openguild_runtime.controls import Controls
from openguild_runtime.driver import Driver
from openguild_runtime.feeds import Feeds
from openguild_runtime.listener import accept_forever, open_listener, raise_descriptor_limit
from openguild_runtime.metrics import Metrics
from openguild_runtime.passwords import PasswordHasher
from openguild_runtime.perform import Performer
from openguild_runtime.private import private_servers
from openguild_runtime.readiness import ReadinessProbe
from openguild_runtime.shutdown import drain, wait_for_signal
from openguild_runtime.storage.base import Storage
from openguild_runtime.storage.memory import MemoryStorage
from openguild_runtime.storage.postgres import PostgresStorage
from openguild_runtime.streams import Streams
from openguild_runtime.timers import TimerWheel

RESERVED_DESCRIPTORS = 256  # database, NATS, logs, listeners
SPARE_CONNECTIONS = 10_000  # HTTP connections beside the sockets
STALL_PROBE_SECS = 0.05

log = structlog.get_logger("openguild.server")


def native_ring() -> bool:
    """Whether the compiled ring serves. OPENGUILD_PURE=1 declines it."""
    return _native.NATIVE and os.environ.get("OPENGUILD_PURE") != "1"


class Server:
    """Every part of one replica. `tasks` runs what lives as long as the replica does."""

    def __init__(self, config: ServerConfig, tasks: TaskGroup, descriptors: int) -> None:
        clock = time.monotonic
        self.config = config
        self.tasks = tasks
        native = native_ring()
        self.metrics = Metrics(openguild_runtime.__version__, native_ring=native)
        self.storage = _storage(config, tasks)
        self.bus = _bus(config, self.metrics, tasks)
        self.service = _service(config)
        hub = Hub(capacity_events=config.messaging.queue_capacity, ring=None if native else ring.Ring)
        self.streams = Streams(
            hub=hub,
            storage=self.storage,
            metrics=self.metrics,
            tasks=tasks,
            clock=clock,
            replay_window=config.messaging.replay_window,
        )
        self.feeds = Feeds(self.storage, self.bus, self.metrics, tasks, self.streams.released)
        self.streams.feeds = self.feeds
        self.controls = Controls(
            storage=self.storage,
            bus=self.bus,
            streams=self.streams,
            tokens=self.service.tokens,
            performer=lambda: self.performer,
            tasks=tasks,
        )
        self.readiness = ReadinessProbe(
            self.storage,
            self.bus,
            self.metrics,
            clock,
            storage_is_memory=config.storage == "memory",
            has_nats=config.nats.url is not None,
        )
        on_main = config.metrics.enabled and config.metrics.bind_addr is None
        self.performer = self._performer(metrics_shown=on_main)
        self.timers = TimerWheel(clock)
        max_connections = min(descriptors - RESERVED_DESCRIPTORS, config.websocket.max_connections + SPARE_CONNECTIONS)
        self.driver = self._driver(self.performer, max_connections)
        self._join(hub)

    def _performer(self, *, metrics_shown: bool) -> Performer:
        return Performer(
            storage=self.storage,
            hasher=PasswordHasher(),
            readiness=self.readiness,
            render_metrics=lambda: self.metrics.render() if metrics_shown else None,
            committed=self._committed,
            announce_read=self.controls.announce_read,
        )

    def _driver(self, performer: Performer, max_connections: int, *, metrics_only: bool = False) -> Driver:
        config = self.config
        return Driver(
            service=self.service,
            limits=Limits(
                head_timeout_secs=config.http.head_timeout_secs,
                body_timeout_secs=config.http.body_timeout_secs,
                idle_timeout_secs=config.http.idle_timeout_secs,
                max_message_bytes=config.websocket.max_message_bytes,
                ping_interval_secs=config.websocket.ping_interval_secs,
                write_timeout_secs=config.websocket.write_timeout_secs,
            ),
            policy=HeaderPolicy.create(
                cors_allowed_origins=config.cors.allowed_origins, trusted_proxies=config.trusted_proxies
            ),
            performer=performer,
            streams=self.streams,
            metrics=self.metrics,
            timers=self.timers,
            tasks=self.tasks,
            max_connections=max_connections,
            answer=dispatch_metrics if metrics_only else dispatch,
        )

    def _committed(self, event: StoredEvent) -> None:
        """After the commit: to this replica's subscribers, then to the other replicas."""
        self.bus.publish_channel(event.channel_id, self.streams.committed(event))

    def _join(self, hub: Hub) -> None:
        """The callbacks between parts that must not know each other."""
        self.storage.on_control = self.controls.stored
        self.storage.on_batch = self.metrics.batch_committed
        self.bus.on_channel = self.feeds.received
        self.bus.on_control = self.controls.received
        self.bus.on_reconnect = self._check_everything
        self.metrics.attach_depths(hub.depths)
        self.metrics.before_scrape.append(self._scrape_storage)

    def _scrape_storage(self) -> None:
        stats = self.storage.stats()
        self.metrics.pool(stats.pool_size, stats.pool_idle)
        self.metrics.commit_queue(stats.queue_events)

    def _check_everything(self) -> None:
        """NATS was away: whatever it lost is in the log."""
        start_contained(self.tasks, self.feeds.check_now, self.controls.check_tail)

    # --- life --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Listen, start in the background, serve until a signal, drain."""
        listeners = [open_listener(*self.config.listen)]
        self.tasks.start_soon(self.timers.run)
        self.tasks.start_soon(self.readiness.watch)
        self.tasks.start_soon(self._watch_loop)
        self.tasks.start_soon(self.streams.flusher.run)
        await self.bus.start()
        self.tasks.start_soon(accept_forever, listeners[0], self.tasks, self.driver.serve)
        if self.config.metrics.enabled and self.config.metrics.bind_addr is not None:
            listeners.append(open_listener(*split_address(self.config.metrics.bind_addr)))
            scraper = self._driver(self._performer(metrics_shown=True), max_connections=64, metrics_only=True)
            self.tasks.start_soon(accept_forever, listeners[1], self.tasks, scraper.serve)
            log.info(f"metrics listening on {_shown(listeners[1])}")
        self.tasks.start_soon(self._start_storage)
        log.info(f"listening on {_shown(listeners[0])}")
        try:
            with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                await wait_for_signal(signals)
                async with anyio.create_task_group() as ending:
                    ending.start_soon(_cancel_at_signal, signals, ending.cancel_scope)
                    await self._drain(listeners[0])
                    ending.cancel_scope.cancel()
        finally:
            for listener in listeners:
                _close(listener)
            self.driver.end_all()

    async def _start_storage(self) -> None:
        await self.storage.start()
        await _until_available(self.controls.start)
        self.performer.serving = True
        self.readiness.serving = True
        log.info("serving")
        await self.feeds.run_tail_checks(self.controls.check_tail)

    async def _drain(self, listener: socket.socket) -> None:
        await drain(
            self.driver,
            self.readiness,
            self.metrics,
            lambda: _close(listener),
            delay_secs=self.config.drain.delay_secs,
            window_secs=self.config.drain.window_secs,
        )

    async def _watch_loop(self) -> None:
        """How late the loop wakes a timer: whatever holds it shows here."""
        while True:
            due = time.monotonic() + STALL_PROBE_SECS
            await anyio.sleep(STALL_PROBE_SECS)
            self.metrics.loop_stall(max(0.0, time.monotonic() - due))


async def serve(config: ServerConfig) -> int:
    """Serve until SIGTERM or SIGINT; the exit status. Raises OSError (address), EmbeddedError, and what asyncpg raises."""
    descriptors = raise_descriptor_limit()
    tune_collector()
    async with AsyncExitStack() as stack:
        config = await stack.enter_async_context(private_servers(config))
        async with anyio.create_task_group() as tasks:
            server = Server(config, tasks, descriptors)
            _announce(config)
            try:
                await server.run()
            finally:
                with anyio.CancelScope(shield=True):
                    await server.bus.aclose()
                    await server.storage.aclose()
                tasks.cancel_scope.cancel()
    log.info("stopped")
    return 0


def tune_collector() -> None:
    """Connections are long-lived and make few cycles: look at them rarely, so that no full collection holds the loop."""
    gc.collect()
    gc.freeze()  # what was imported stays
    gc.set_threshold(20_000, 20, 50)


async def _until_available(action: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await action()
        except StorageUnavailable:
            await anyio.sleep(random.uniform(0.1, 0.5))  # noqa: S311 - jitter
        else:
            return


async def _cancel_at_signal(signals: AsyncIterator[signal.Signals], scope: anyio.CancelScope) -> None:
    """A second signal: the operator does not want to wait."""
    await wait_for_signal(signals)
    scope.cancel()


def _announce(config: ServerConfig) -> None:
    log.info("resolved server configuration", **config.shown())
    if not native_ring():
        log.warning("fan-out runs on the pure-Python ring: the compiled extension is not installed or was declined")
    if config.storage == "memory":
        log.warning("memory storage: everything is lost when this process ends")
    if config.nats.url is None and config.storage != "memory":
        log.warning("nats.url is not set: other replicas hear of this one's events only by their tail check")


def _service(config: ServerConfig) -> Service:
    messaging, session, sockets = config.messaging, config.session, config.websocket
    signing = config.federation.signing_key
    return Service(
        settings=Settings(
            server_name=config.server_name,
            version=openguild_runtime.__version__,
            replay_window=messaging.replay_window,
            registration_enabled=config.registration.enabled,
            access_ttl_secs=session.access_ttl_secs,
            refresh_ttl_secs=session.refresh_ttl_secs,
        ),
        tokens=TokenAuthority(config.key_ring()),
        signer=EventSigner(config.server_name, config.federation.key_id, parse_seed(signing.get_secret_value()))
        if signing is not None
        else None,
        user_messages=SlidingWindow(messaging.max_messages_per_user_per_window, messaging.rate_limit_window_secs),
        address_messages=SlidingWindow(messaging.max_messages_per_ip_per_window, messaging.rate_limit_window_secs),
        address_logins=SlidingWindow(session.max_logins_per_address_per_window, session.login_window_secs),
        account_logins=SlidingWindow(session.max_logins_per_account_per_window, session.login_window_secs),
        sockets=ConnectionLimiter(
            sockets.max_connections, sockets.max_connections_per_user, sockets.max_connections_per_address
        ),
    )


def _storage(config: ServerConfig, tasks: TaskGroup) -> Storage:
    if config.storage == "memory" or config.database_url is None:
        return MemoryStorage()
    return PostgresStorage(
        config.database_url.get_secret_value(),
        tasks,
        pool_size=config.database.pool_size,
        statement_timeout_secs=config.database.statement_timeout_secs,
        statement_cache_size=config.database.statement_cache_size,
    )


def _bus(config: ServerConfig, metrics: Metrics, tasks: TaskGroup) -> Bus:
    if config.nats.url is None:
        return LocalBus()
    return NatsBus(
        config.nats.url.get_secret_value(),
        config.server_name,
        metrics,
        tasks,
        credentials_file=str(config.nats.credentials_file) if config.nats.credentials_file is not None else None,
        ca_file=str(config.nats.ca_file) if config.nats.ca_file is not None else None,
    )


def _close(listener: socket.socket) -> None:
    """Safe to repeat."""
    if listener.fileno() >= 0:
        anyio.notify_closing(listener)
        listener.close()


def _shown(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
