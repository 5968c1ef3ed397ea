"""NATS as the wire between replicas, on nats-py.

nats-py's own reconnecting is switched off: it retries without jitter, and what is published during a cut is lost
while `flush` may still succeed. Here one task connects, subscribes to what is wanted, waits for the end of the
connection, and begins again with full jitter. Nothing is kept for a server that is away: the log has it, and the
tail check of each replica finds it (PROTOCOL 10.5.2).

That messages travel is what the server says and not what the library does: every few seconds each kind of subject is
published to and what was denied is subscribed to again, and what the server has against that is heard before its
answer to the ping behind it.

Subjects: `openguild.<server>.channel.<channel id>`, `openguild.<server>.control`, `openguild.<server>.limits`.
"""

from __future__ import annotations

import itertools
import random
import re
import ssl
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

import anyio
import nats.errors
import structlog
from anyio.abc import TaskGroup
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from openguild_proto.policy.backoff import Backoff
from openguild_proto.policy.sharing import SILENT_SECS
from openguild_runtime.bus.base import NO_HEADERS, Bus, BusHandler
from openguild_runtime.bus.nats_connection import CLOSE_LIMIT_SECS, FAILURES, ConnectionFailed, NatsConnection
from openguild_runtime.bus.nats_faults import CA_FILE, CLOSED, PAYLOAD, SILENT, SUBSCRIPTIONS, UNREACHABLE, Fault
from openguild_runtime.bus.nats_problems import NatsProblems
from openguild_runtime.bus.publish_queue import Message, PublishQueue
from openguild_runtime.config.nats_servers import NatsServer, parse_servers
from openguild_runtime.observability.metrics import Metrics
from openguild_runtime.system.background import log_exceptions

CONNECT_LIMIT_SECS = 8  # all of it: greeting, TLS, subscriptions and the answer to a ping
CHECK_SECS = 1.0
KEEPALIVE_SECS = 5  # a black-holed connection is given up after two of them
PING_SECS = 1.0  # from an answer of the server to the next question
PINGS_PER_PROBE = 3  # each third question finds out which subjects the server takes
PINGS_PER_RESUBSCRIBE = 30  # where it takes too few subscriptions: all of them are tried again
MAX_UNREACHABLE_WAIT_SECS = (
    2.0  # the longest wait for a server that nobody greets for: an attempt costs nobody anything
)
MAX_RECONNECT_WAIT_SECS = (
    15.0  # the longest wait where a server had greeted: each return is two questions to the database
)
STABLE_SECS = (
    MAX_RECONNECT_WAIT_SECS  # how long a connection must have held before its end counts as the first one again
)
PENDING_MESSAGES = 4_096  # per subscription, unprocessed
HEADER_LINE_BYTES = 14  # "NATS/1.0", its line ends and the empty line; `max_payload` counts headers

log = structlog.get_logger("openguild.nats")


class NatsBus(Bus):
    """`url`: one or several, by commas, each with its user and password; they are tried in turn, from a random one on.

    `credentials_file` is a NATS .creds file, read again for each connection; `ca_file` a PEM bundle for TLS. A connection
    that answers no ping for two of `keepalive_secs` is given up.
    """

    def __init__(
        self,
        url: str,
        server_name: str,
        metrics: Metrics,
        tasks: TaskGroup,
        *,
        credentials_file: str | None = None,
        ca_file: str | None = None,
        keepalive_secs: float = KEEPALIVE_SECS,
        ping_secs: float = PING_SECS,
    ) -> None:
        super().__init__()
        self._handler: BusHandler  # from `start` on
        self._servers = parse_servers(url)
        self._prefix = f"openguild.{re.sub(r'[^A-Za-z0-9_-]', '_', server_name)}"
        self._probe_channel = str(uuid.uuid4())  # nobody else's: subscribed to and published to, to prove that one may
        self._metrics = metrics
        self._tasks = tasks
        self._credentials = Path(credentials_file) if credentials_file is not None else None
        self._ca_file = ca_file
        self._keepalive_secs = keepalive_secs
        self._ping_secs = ping_secs
        self._tls: ssl.SSLContext | None = None
        self._connection: NatsConnection | None = None
        self.failed_attempts = 0  # attempts to connect that failed since the last connection
        self._unreachable_backoff = Backoff(random.random, base_secs=0.1, max_secs=MAX_UNREACHABLE_WAIT_SECS)
        self._reconnect_backoff = Backoff(random.random, base_secs=0.5, max_secs=STABLE_SECS)
        self._problems = NatsProblems(self._prefix, metrics)
        self._disconnect_fault: Fault = UNREACHABLE  # why there is no connection
        self._confirmed_at = float("-inf")
        self._wanted: set[str] = set()
        self._subscriptions: dict[str, Subscription] = {}  # of channels
        self._fixed_subscriptions: dict[str, Subscription] = {}  # "control", "limits", and "channel" for the probe's
        self._pending_changes: dict[str, None] = {}  # channels whose subscription may not be what is wanted
        self._changed = anyio.Event()
        self._queue = PublishQueue()
        self._scope = anyio.CancelScope()

    @property
    def connected(self) -> bool:
        return self._connection is not None and self._connection.alive

    @property
    def problem(self) -> str | None:
        fault = self._problems.standing.first
        if not self.connected:
            fault = self._disconnect_fault
        elif self._is_silent():
            fault = SILENT
        return fault.cause if fault is not None else None

    @property
    def limits_delivered(self) -> bool:
        return self.connected and not {"publish limits", "subscribe limits"} & self._problems.standing.keys()

    async def start(self, handler: BusHandler) -> None:
        self._handler = handler
        self._tasks.start_soon(self._run)

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
        start = random.randrange(len(self._servers))  # noqa: S311 - replicas spread over the servers
        with self._scope:
            for server in itertools.cycle(self._servers[start:] + self._servers[:start]):
                connection = await self._connect(server)
                if connection is None:
                    self.failed_attempts += 1
                    backoff = (
                        self._unreachable_backoff
                        if self._disconnect_fault in (UNREACHABLE, SILENT)
                        else self._reconnect_backoff
                    )
                else:
                    self.failed_attempts = 0
                    self._unreachable_backoff.reset()
                    made_at = anyio.current_time()
                    await self._serve(connection, reconnected=connected_before)
                    connected_before = True
                    backoff = self._reconnect_backoff
                    backoff.lasted(anyio.current_time() - made_at)
                await anyio.sleep(backoff.next_delay(0.05))

    async def _connect(self, server: NatsServer) -> NatsConnection | None:
        """A connection with every subscription that was wanted when it was made, or None."""
        connection = NatsConnection(
            server, on_denied=self._on_denied, on_fault=self._on_fault, has_alternatives=len(self._servers) > 1
        )
        try:
            with anyio.fail_after(CONNECT_LIMIT_SECS):
                await self._open_connection(connection)
        except ConnectionFailed as failure:
            self._disconnect_fault = failure.fault
        except TimeoutError:
            self._disconnect_fault = SILENT
        except FAILURES:
            self._disconnect_fault = connection.fault
        except Exception:
            self._disconnect_fault = CLOSED
            log.exception("connecting to NATS failed")
        except BaseException:
            await connection.close_now()
            raise
        else:
            return connection
        self._problems.clear()
        self._problems.report(self._disconnect_fault, server.name)
        await connection.close_now()
        return None

    async def _open_connection(self, connection: NatsConnection) -> None:
        self._subscriptions.clear()
        self._problems.clear()
        self._pending_changes = dict.fromkeys(self._wanted)
        await connection.open(
            tls=self._tls_context(connection.server),
            credentials=self._credentials,
            keepalive_secs=self._keepalive_secs,
        )
        self._fixed_subscriptions = {
            "control": await self._subscribe(connection, "control", self._received_control),
            "limits": await self._subscribe(connection, "limits", self._received_limits),
            "channel": await self._subscribe(connection, f"channel.{self._probe_channel}", self._received_event),
        }
        await self._apply_changes(connection)
        await self._publish_probes(connection)
        await connection.confirm()
        self._confirmed_at = anyio.current_time()

    def _tls_context(self, server: NatsServer) -> ssl.SSLContext | None:
        """None: none is asked for."""
        if not (server.tls or self._ca_file):
            return None
        if self._tls is None:
            try:
                self._tls = ssl.create_default_context(cafile=self._ca_file)
            except OSError:
                raise ConnectionFailed(CA_FILE) from None
        return self._tls

    async def _serve(self, connection: NatsConnection, *, reconnected: bool) -> None:
        """Until the connection ends.

        One whose peer does not read is given up by nats-py after its pings, but it then waits for what is still to be
        sent and never reports the end: so its state is looked at, too.
        """
        self._connection = connection
        self._metrics.nats_connected(True)
        log.info("connected to NATS", server=connection.server.name)
        try:
            if reconnected:
                self._metrics.nats_reconnected()
                self._report_reconnect()
            async with anyio.create_task_group() as parts:
                parts.start_soon(self._publish_forever, connection)
                parts.start_soon(self._apply_changes_forever, connection)
                parts.start_soon(self._ping_forever, connection)
                while connection.alive:
                    with anyio.move_on_after(CHECK_SECS):
                        await connection.ended.wait()
                    if self._is_silent() and not connection.ended.is_set():
                        self._problems.report(SILENT, connection.server.name)
                parts.cancel_scope.cancel()
            self._disconnect_fault = connection.fault
            self._problems.report(self._disconnect_fault, connection.server.name, "the connection to NATS has ended. ")
        finally:
            self._connection = None
            self._problems.clear()
            self._metrics.nats_connected(False)
            while self._queue.take() is not None:
                self._metrics.nats_dropped()
            await connection.close_now()

    def _report_reconnect(self) -> None:
        with log_exceptions("what follows a reconnect to NATS"):
            self._handler.bus_reconnected()

    # --- what the server takes -------------------------------------------------------------------------

    async def _ping_forever(self, connection: NatsConnection) -> None:
        """A connection that is dead looks alive until it is given up; whoever must know sooner waits for the answers."""
        self._handler.bus_answered()  # the connection was made with one
        for pings in itertools.count(1):
            await anyio.sleep(self._ping_secs)
            with log_exceptions("asking NATS"), suppress(ConnectionFailed, *FAILURES):
                probing = pings % PINGS_PER_PROBE == 0
                if probing:
                    await self._begin_probe(connection, all_channels=pings % PINGS_PER_RESUBSCRIBE == 0)
                await connection.confirm()
                self._confirmed_at = anyio.current_time()
                if probing:
                    await self._end_probe(connection)
                self._handler.bus_answered()

    def _is_silent(self) -> bool:
        return anyio.current_time() - self._confirmed_at >= SILENT_SECS

    async def _begin_probe(self, connection: NatsConnection, *, all_channels: bool) -> None:
        standing = self._problems.standing
        standing.begin()
        for kind, subscription in self._fixed_subscriptions.items():
            if f"subscribe {kind}" in standing:
                await connection.resubscribe(subscription)
        if "subscriptions" in standing:
            if all_channels:
                await self._resubscribe_all(connection)
            else:
                standing.tell("subscriptions", SUBSCRIPTIONS)
        await self._publish_probes(connection)

    async def _end_probe(self, connection: NatsConnection) -> None:
        cleared = self._problems.end_round()
        refused = [key for key in cleared if key.startswith(("publish", "subscri"))]
        if refused:
            log.info("NATS takes again what it had refused", refused=refused)
        if "subscribe channel" in refused:
            await self._resubscribe_all(connection)
        if any(key.startswith("subscri") for key in refused):
            self._report_reconnect()

    async def _resubscribe_all(self, connection: NatsConnection) -> None:
        for subscription in (*self._fixed_subscriptions.values(), *self._subscriptions.values()):
            await connection.resubscribe(subscription)

    async def _publish_probes(self, connection: NatsConnection) -> None:
        probes = {
            "control": self._handler.control_probe,
            "limits": self._handler.limits_probe,
            f"channel.{self._probe_channel}": b"{}",
        }
        for name, payload in probes.items():
            if payload:
                await connection.publish(f"{self._prefix}.{name}", payload)

    def _on_denied(self, connection: NatsConnection, action: str, subject: str) -> None:
        self._problems.record_denied(action, subject, connection.server.name)

    def _on_fault(self, connection: NatsConnection, fault: Fault) -> None:
        self._problems.record(fault, connection.server.name)

    # --- receiving -----------------------------------------------------------------------------------

    async def subscribe_channel(self, channel_id: str) -> None:
        self._wanted.add(channel_id)
        self._request_change(channel_id)

    async def unsubscribe_channel(self, channel_id: str) -> None:
        self._wanted.discard(channel_id)
        self._request_change(channel_id)

    def _request_change(self, channel_id: str) -> None:
        self._pending_changes[channel_id] = None
        self._changed.set()

    async def _apply_changes_forever(self, connection: NatsConnection) -> None:
        while True:
            await self._apply_changes(connection)  # first of all what was asked for while the connection was being made
            await self._changed.wait()
            self._changed = anyio.Event()

    async def _apply_changes(self, connection: NatsConnection) -> None:
        """Make the subscriptions what is wanted. One task at a time does this, so no request overtakes another."""
        while self._pending_changes:
            channel_id, _ = self._pending_changes.popitem()
            subscription = self._subscriptions.pop(channel_id, None)
            try:
                if channel_id in self._wanted:
                    self._subscriptions[channel_id] = subscription or await self._subscribe(
                        connection, f"channel.{channel_id}", self._received_event
                    )
                elif subscription is not None:
                    await subscription.unsubscribe()
            except nats.errors.Error as failure:
                log.info("subscribing waits for the next connection", kind=type(failure).__name__)

    async def _subscribe(
        self, connection: NatsConnection, name: str, callback: Callable[[Msg], Awaitable[None]]
    ) -> Subscription:
        return await connection.subscribe(f"{self._prefix}.{name}", cb=callback, pending_msgs_limit=PENDING_MESSAGES)

    async def _received_event(self, message: Msg) -> None:
        with self._problems.handling_message(message.subject):
            self._handler.channel_message(
                message.subject.rpartition(".")[2], message.data, message.headers or NO_HEADERS
            )

    async def _received_control(self, message: Msg) -> None:
        with self._problems.handling_message(message.subject):
            self._handler.control_message(message.data)

    async def _received_limits(self, message: Msg) -> None:
        with self._problems.handling_message(message.subject):
            self._handler.limits_message(message.data)

    # --- publishing ----------------------------------------------------------------------------------

    def publish_channel(self, channel_id: str, payload: bytes, headers: Mapping[str, str] = NO_HEADERS) -> None:
        self._publish(f"{self._prefix}.channel.{channel_id}", payload, headers)

    def publish_control(self, payload: bytes) -> None:
        self._publish(f"{self._prefix}.control", payload)

    def publish_limits(self, payload: bytes) -> None:
        if "publish limits" not in self._problems.standing:  # the probe finds out when it is permitted
            self._publish(f"{self._prefix}.limits", payload)

    def _publish(self, subject: str, payload: bytes, headers: Mapping[str, str] = NO_HEADERS) -> None:
        if not self.connected or not self._queue.put(Message(subject, payload, headers)):
            self._metrics.nats_dropped()

    async def _publish_forever(self, connection: NatsConnection) -> None:
        """What one turn of the loop has published goes out together: the events of a commit leave in one write."""
        while True:
            await self._queue.wait()
            await self._publish_queued(connection)

    async def _publish_queued(self, connection: NatsConnection) -> None:
        while (message := self._queue.take()) is not None:
            size = message.nbytes
            if (
                size + HEADER_LINE_BYTES > connection.max_payload
            ):  # a server that gets it all the same ends the connection
                self._metrics.nats_dropped()
                self._problems.record(PAYLOAD, connection.server.name, nbytes=size)
                continue
            try:
                await connection.publish(message.subject, message.payload, headers=dict(message.headers) or None)
            except FAILURES:
                self._metrics.nats_dropped()
