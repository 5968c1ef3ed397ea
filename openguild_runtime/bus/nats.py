"""The bus over NATS, with nats-py.

nats-py's reconnects are disabled: they have no jitter, and a message published during an outage is lost although
`flush` succeeds. Instead one task connects, subscribes, waits for the connection to end and retries with full jitter.
Nothing is queued during an outage: the tail check of each replica reads missed events from the log (PROTOCOL 10.5.2).

Permissions are probed, because NATS reports a denied publish or subscription asynchronously: every few seconds the bus
publishes to each kind of subject and repeats denied subscriptions. The server sends its errors before the answer to the
ping that follows.
"""

from __future__ import annotations

import itertools
import random
import ssl
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.to_thread
import nats.errors
import structlog
from anyio.abc import TaskGroup
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from openguild_proto.bus.faults import Fault
from openguild_proto.bus.nats import CA_FILE, CERT_FILE, CLOSED, MOVED, PAYLOAD, SILENT, UNREACHABLE, Subjects
from openguild_proto.bus.probing import Probing
from openguild_proto.bus.publish_queue import Message, PublishQueue
from openguild_proto.bus.reconnects import Reconnects
from openguild_proto.bus.subscriptions import Subscriptions
from openguild_proto.bus.topics import Topic
from openguild_runtime.bus.base import NO_HEADERS, Bus, BusHandler
from openguild_runtime.bus.nats_connection import CLOSE_LIMIT_SECS, FAILURES, ConnectionFailed, NatsConnection
from openguild_runtime.bus.nats_problems import NatsProblems
from openguild_runtime.config.nats_servers import NatsServer, parse_servers
from openguild_runtime.observability.metrics import Metrics
from openguild_runtime.system.background import log_exceptions

CONNECT_LIMIT_SECS = 8  # for INFO, TLS, login, subscriptions and the answer to a ping
CHECK_SECS = 1.0
KEEPALIVE_SECS = 5  # between nats-py's pings; two unanswered ones end the connection
PING_SECS = 1.0  # from the answer to one of our pings to the next ping
PENDING_MESSAGES = 4_096  # per subscription, unprocessed

log = structlog.get_logger("openguild.nats")


class NatsBus(Bus):
    """The bus over NATS. `url` is one URL, or several separated by commas, each with its credentials.

    They are tried in turn, starting with a random one. `credentials_file` is a NATS .creds file, `ca_file` a PEM bundle for
    TLS, `certificate` the PEM files of this client's certificate and its key. All are read for each connection. A
    connection without an answer to a ping for two `keepalive_secs` is closed.
    """

    name = "nats"
    title = "NATS"

    def __init__(
        self,
        url: str,
        server_name: str,
        metrics: Metrics,
        tasks: TaskGroup,
        *,
        credentials_file: str | None = None,
        ca_file: str | None = None,
        certificate: tuple[str, str] | None = None,
        keepalive_secs: float = KEEPALIVE_SECS,
        ping_secs: float = PING_SECS,
    ) -> None:
        super().__init__()
        self._handler: BusHandler  # from `start` on
        self._servers = parse_servers(url)
        self._subjects = Subjects(server_name, probe_channel=str(uuid.uuid4()))
        self._metrics = metrics
        self._tasks = tasks
        self._credentials = Path(credentials_file) if credentials_file is not None else None
        self._ca_file = ca_file
        self._keepalive_secs = keepalive_secs
        self._ping_secs = ping_secs
        self._certificate = certificate
        self._connection: NatsConnection | None = None
        self.reconnects = Reconnects(random.random)
        self._problems = NatsProblems(self._subjects, metrics)
        self._subscriptions: Subscriptions[Subscription] = Subscriptions(self._subjects.names.values())
        self._joined = anyio.Event()  # set by the first `join`
        self._changed = anyio.Event()  # set when the wanted subscriptions have changed
        self._queue = PublishQueue()
        self._published = anyio.Event()  # set when a message is queued
        self._scope = anyio.CancelScope()

    @property
    def connected(self) -> bool:
        return self._connection is not None and self._connection.alive

    @property
    def problem(self) -> str | None:
        fault = self._problems.now(anyio.current_time(), connected=self.connected)
        return fault.cause if fault is not None else None

    @property
    def limits_delivered(self) -> bool:
        return self.connected and not self._problems.is_denied("publish limits", "subscribe limits")

    async def start(self, handler: BusHandler) -> None:
        self._handler = handler
        self._tasks.start_soon(self._run)

    def join(self, database: str) -> None:
        self._subjects.join(database)
        self._joined.set()
        if self._connection is not None:
            self._connection.leave(MOVED)

    async def aclose(self) -> None:
        connection = self._connection
        if connection is not None:
            with anyio.move_on_after(CLOSE_LIMIT_SECS, shield=True), suppress(ConnectionFailed, *FAILURES):
                await self._publish_queued(connection)
                await connection.confirm()
        self._scope.cancel()
        if connection is not None:
            await connection.close_now()

    # --- the connection ------------------------------------------------------------------------------

    async def _run(self) -> None:
        connected_before = False
        start = random.randrange(len(self._servers))  # noqa: S311 - spreads replicas over the servers
        with self._scope:
            await self._joined.wait()
            self._problems.ended(UNREACHABLE)
            for server in itertools.cycle(self._servers[start:] + self._servers[:start]):
                connection = await self._connect(server)
                if connection is None:
                    delay = self.reconnects.failed(self._problems.last_end)
                else:
                    self.reconnects.connected()
                    made_at = anyio.current_time()
                    await self._serve(connection, reconnected=connected_before)
                    connected_before = True
                    delay = self.reconnects.ended(anyio.current_time() - made_at)
                await anyio.sleep(delay)

    async def _connect(self, server: NatsServer) -> NatsConnection | None:
        """Return a connection with all wanted subscriptions, or None if it fails."""
        connection = NatsConnection(
            server, on_denied=self._on_denied, on_fault=self._on_fault, has_alternatives=len(self._servers) > 1
        )
        try:
            with anyio.fail_after(CONNECT_LIMIT_SECS):
                await self._open_connection(connection)
        except ConnectionFailed as failure:
            self._problems.ended(failure.fault)
        except TimeoutError:
            self._problems.ended(SILENT)
        except FAILURES:
            self._problems.ended(connection.fault)
        except Exception:
            self._problems.ended(CLOSED)
            log.exception("connecting to NATS failed")
        except BaseException:
            await connection.close_now()
            raise
        else:
            return connection
        self._problems.clear()
        self._problems.report(self._problems.last_end, server.name)
        await connection.close_now()
        return None

    async def _open_connection(self, connection: NatsConnection) -> None:
        database = self._subjects.database
        self._subscriptions.reconnected()
        self._problems.clear()
        await connection.open(
            tls=await anyio.to_thread.run_sync(self._tls_context, connection.server),
            credentials=self._credentials,
            keepalive_secs=self._keepalive_secs,
        )
        await self._apply_changes(connection)
        await self._publish_probes(connection)
        await connection.confirm()
        if database != self._subjects.database:
            raise ConnectionFailed(MOVED)
        self._problems.answered(anyio.current_time())

    def _tls_context(self, server: NatsServer) -> ssl.SSLContext | None:
        """Return the TLS context, or None if TLS is not configured. In a thread: the system's authorities take 0.2 s to read."""
        if not (server.tls or self._ca_file or self._certificate):
            return None
        try:
            context = ssl.create_default_context(cafile=self._ca_file)
        except OSError:
            raise ConnectionFailed(CA_FILE) from None
        if self._certificate is not None:
            try:
                context.load_cert_chain(*self._certificate, password="")  # never asks the terminal for one
            except OSError:
                raise ConnectionFailed(CERT_FILE) from None
        return context

    async def _serve(self, connection: NatsConnection, *, reconnected: bool) -> None:
        """Publish, subscribe and ping until the connection ends.

        Polls the connection's state: nats-py does not report the end of a connection whose peer has stopped reading.
        """
        self._connection = connection
        self._metrics.bus_connected(True)
        log.info("connected to NATS", server=connection.server.name)
        try:
            if reconnected:
                self._metrics.bus_reconnected()
                self._report_reconnect()
            async with anyio.create_task_group() as parts:
                parts.start_soon(self._publish_forever, connection)
                parts.start_soon(self._apply_changes_forever, connection)
                parts.start_soon(self._ping_forever, connection)
                while connection.alive:
                    with anyio.move_on_after(CHECK_SECS):
                        await connection.ended.wait()
                    if self._problems.is_silent(anyio.current_time()) and not connection.ended.is_set():
                        self._problems.report(SILENT, connection.server.name)
                parts.cancel_scope.cancel()
            self._problems.ended(connection.fault)
            self._problems.report(self._problems.last_end, connection.server.name, "the connection to NATS has ended. ")
        finally:
            self._connection = None
            self._problems.clear()
            self._metrics.bus_connected(False)
            for _ in range(self._queue.clear()):
                self._metrics.publish_dropped()
            await connection.close_now()

    def _report_reconnect(self) -> None:
        with log_exceptions("handling a reconnect to NATS"):
            self._handler.bus_reconnected()

    # --- pings and probes ------------------------------------------------------------------------------

    async def _ping_forever(self, connection: NatsConnection) -> None:
        """Ping every second: a dead connection looks connected until nats-py's keepalive closes it."""
        self._handler.bus_answered()  # connecting included a ping
        probing = Probing(self._problems.active)
        while True:
            await anyio.sleep(self._ping_secs)
            with log_exceptions("pinging NATS"), suppress(ConnectionFailed, *FAILURES):
                probes = probing.next_ping()
                if probes:
                    await self._probe(connection, probing)
                await connection.confirm()
                self._problems.answered(anyio.current_time())
                if probes:
                    await self._end_probe(connection, probing)
                self._handler.bus_answered()

    async def _probe(self, connection: NatsConnection, probing: Probing) -> None:
        again = self._subscriptions.of(self._subjects.names[kind] for kind in probing.kinds_to_resubscribe)
        for subscription in self._subscriptions.all() if probing.resubscribes_all() else again:
            await connection.resubscribe(subscription)
        await self._publish_probes(connection)

    async def _end_probe(self, connection: NatsConnection, probing: Probing) -> None:
        result = probing.end()
        self._problems.count()
        if result.permitted:
            log.info("NATS permits subjects that it had denied", refused=result.permitted)
        for subscription in self._subscriptions.all() if result.resubscribe_all else ():
            await connection.resubscribe(subscription)
        if result.has_missed:
            self._report_reconnect()

    async def _publish_probes(self, connection: NatsConnection) -> None:
        payloads = {**{topic.value: self._handler.probe(topic) for topic in Topic}, "channel": b"{}"}
        for kind, payload in payloads.items():
            if payload:
                await connection.publish(self._subjects.probes[kind], payload)

    def _on_denied(self, connection: NatsConnection, action: str, subject: str) -> None:
        self._problems.record_denied(action, subject, connection.server.name)

    def _on_fault(self, connection: NatsConnection, fault: Fault) -> None:
        self._problems.record(fault, connection.server.name)

    # --- receiving -----------------------------------------------------------------------------------

    def subscribe(self, channel_ids: Iterable[str]) -> None:
        self._subscriptions.add(map(self._subjects.channel_name, channel_ids))
        self._changed.set()

    def unsubscribe(self, channel_ids: Iterable[str]) -> None:
        self._subscriptions.remove(map(self._subjects.channel_name, channel_ids))
        self._changed.set()

    async def _apply_changes_forever(self, connection: NatsConnection) -> None:
        while True:
            await self._apply_changes(connection)  # first, changes requested while it connected
            await self._changed.wait()
            self._changed = anyio.Event()

    async def _apply_changes(self, connection: NatsConnection) -> None:
        """Subscribe to wanted channels and unsubscribe from others. One task does this, so changes stay in order."""
        while (change := self._subscriptions.next_change()) is not None:
            try:
                if change.ending is not None:
                    await change.ending.unsubscribe()
                else:
                    subject = self._subjects.subscription(change.name)
                    made = await connection.subscribe(subject, "", self._received, pending_msgs_limit=PENDING_MESSAGES)
                    self._subscriptions.subscribed(change.name, made)
            except nats.errors.Error as failure:
                log.info("subscribing waits for the next connection", kind=type(failure).__name__)

    async def _received(self, message: Msg) -> None:
        database, kind, channel_id = self._subjects.split(message.subject)
        if database != self._subjects.database:
            self._problems.record_other(database)
            return
        with self._problems.handling_message(message.subject):
            if kind == "channel":
                self._handler.channel_message(channel_id, message.data, message.headers or NO_HEADERS)
            else:
                self._handler.broadcast_message(Topic(kind), message.data)

    # --- publishing ----------------------------------------------------------------------------------

    def publish_channel(self, channel_id: str, payload: bytes, headers: Mapping[str, str] = NO_HEADERS) -> None:
        self._publish(self._subjects.channel(channel_id), payload, headers)

    def broadcast(self, topic: Topic, payload: bytes) -> None:
        if not self._problems.is_denied(f"publish {topic.value}"):  # until a probe finds it permitted again
            self._publish(self._subjects.topics[topic], payload)

    def _publish(self, subject: str, payload: bytes, headers: Mapping[str, str] = NO_HEADERS) -> None:
        if self.connected and self._queue.put(Message(subject, payload, headers)):
            self._published.set()
        else:
            self._metrics.publish_dropped()

    async def _publish_forever(self, connection: NatsConnection) -> None:
        """Publish queued messages. Those of one turn of the loop, such as the events of a commit, are sent in one write."""
        while True:
            await self._published.wait()
            self._published = anyio.Event()
            await self._publish_queued(connection)

    async def _publish_queued(self, connection: NatsConnection) -> None:
        while (message := self._queue.take()) is not None:
            if not message.fits(connection.max_payload):
                self._metrics.publish_dropped()
                self._problems.record(PAYLOAD, connection.server.name, nbytes=message.nbytes)
                continue
            try:
                await connection.publish(message.subject, message.payload, headers=dict(message.headers) or None)
            except FAILURES:
                self._metrics.publish_dropped()
