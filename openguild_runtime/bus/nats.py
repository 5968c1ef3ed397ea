"""NATS as the wire between replicas, on nats-py.

nats-py's own reconnecting is switched off: it retries without jitter, and what is published during a cut is lost
while `flush` may still succeed. Here one task connects, subscribes to what is wanted, waits for the end of the
connection, and begins again with full jitter. Nothing is kept for a server that is away: the log has it, and the
tail check of each replica finds it (architecture, "Many replicas").

Subjects: `openguild.<server>.channel.<channel id>`, `openguild.<server>.control`, `openguild.<server>.limits`.
"""

from __future__ import annotations

import random
import re
import ssl
from collections import deque
from collections.abc import Mapping
from typing import TypeAlias

import anyio
import nats.errors
import structlog
from anyio.abc import TaskGroup
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from openguild_runtime.bus.base import NO_HEADERS, Bus
from openguild_runtime.metrics import Metrics

CONNECT_TIMEOUT_SECS = 2
CLOSE_LIMIT_SECS = 0.5
PING_INTERVAL_SECS = 5  # a black-holed connection is given up after two of them
MAX_OUTSTANDING_PINGS = 2
MAX_BACKOFF_SECS = 2.0
OUTGOING_MESSAGES = 8_192  # waiting for the client library; beyond these bounds publishes are dropped
OUTGOING_BYTES = 8 * 1024 * 1024
PENDING_MESSAGES = 4_096  # per subscription, unprocessed

Outgoing: TypeAlias = tuple[str, bytes, Mapping[str, str]]  # subject, payload, headers

log = structlog.get_logger("openguild.nats")


class NatsBus(Bus):
    """`url` may carry user and password; `credentials_file` is a NATS .creds file, `ca_file` a PEM bundle for TLS."""

    def __init__(
        self,
        url: str,
        server_name: str,
        metrics: Metrics,
        tasks: TaskGroup,
        *,
        credentials_file: str | None = None,
        ca_file: str | None = None,
    ) -> None:
        super().__init__()
        self._url = url
        self._prefix = f"openguild.{re.sub(r'[^A-Za-z0-9_-]', '_', server_name)}"
        self._metrics = metrics
        self._tasks = tasks
        self._credentials_file = credentials_file
        self._tls = ssl.create_default_context(cafile=ca_file) if ca_file or url.startswith("tls://") else None
        self._client: Client | None = None
        self.refusals = 0  # attempts to connect that failed since the last connection
        self._wanted: set[str] = set()
        self._subscriptions: dict[str, Subscription] = {}
        self._outgoing: deque[Outgoing] = deque()
        self._outgoing_bytes = 0
        self._publishable = anyio.Event()
        self._scope = anyio.CancelScope()

    @property
    def connected(self) -> bool:
        return self._client is not None

    async def start(self) -> None:
        self._tasks.start_soon(self._run)

    async def aclose(self) -> None:
        self._scope.cancel()
        client, self._client = self._client, None
        if client is not None:
            await _close(client)

    # --- the connection ------------------------------------------------------------------------------

    async def _run(self) -> None:
        with self._scope:
            async with anyio.create_task_group() as parts:
                parts.start_soon(self._publish_forever)
                await self._keep_connected()

    async def _keep_connected(self) -> None:
        connected_before = False
        while True:
            ended = anyio.Event()
            client = await self._connect(ended)
            if client is None:
                self.refusals += 1
                longest = min(MAX_BACKOFF_SECS, 0.1 * 2 ** min(self.refusals, 8))
                await anyio.sleep(random.uniform(0.05, longest))  # noqa: S311 - jitter
                continue
            self.refusals = 0
            self._client = client
            self._metrics.nats_connected(True)
            log.info("connected to NATS")
            if connected_before:
                self._metrics.nats_reconnected()
                self.on_reconnect()
            connected_before = True
            await ended.wait()
            self._client = None
            self._subscriptions.clear()
            self._metrics.nats_connected(False)
            log.warning("the connection to NATS has ended: events reach other replicas by their tail check")

    async def _connect(self, ended: anyio.Event) -> Client | None:
        """A connection with every wanted subscription, or None."""
        client = Client()

        async def on_closed() -> None:
            ended.set()

        async def on_error(failure: Exception) -> None:
            log.debug("NATS client error", kind=type(failure).__name__)

        try:
            await client.connect(
                servers=[self._url],
                allow_reconnect=False,
                no_echo=True,  # what this replica published it has already
                max_reconnect_attempts=0,
                connect_timeout=CONNECT_TIMEOUT_SECS,
                ping_interval=PING_INTERVAL_SECS,
                max_outstanding_pings=MAX_OUTSTANDING_PINGS,
                pending_size=OUTGOING_BYTES,
                user_credentials=self._credentials_file,
                tls=self._tls,
                closed_cb=on_closed,
                error_cb=on_error,
            )
            await client.subscribe(
                f"{self._prefix}.control", cb=self._received_control, pending_msgs_limit=PENDING_MESSAGES
            )
            await client.subscribe(
                f"{self._prefix}.limits", cb=self._received_limits, pending_msgs_limit=PENDING_MESSAGES
            )
            for channel_id in list(self._wanted):
                await self._subscribe(client, channel_id)
            await client.flush(CONNECT_TIMEOUT_SECS)
        except (OSError, nats.errors.Error, TimeoutError) as failure:
            log.info("NATS cannot be reached", kind=type(failure).__name__)
            self._subscriptions.clear()
            await _close(client)
            return None
        return client

    # --- receiving -----------------------------------------------------------------------------------

    async def subscribe_channel(self, channel_id: str) -> None:
        self._wanted.add(channel_id)
        if self._client is not None:
            try:
                await self._subscribe(self._client, channel_id)
            except nats.errors.Error as failure:
                log.info("subscribing waits for the next connection", kind=type(failure).__name__)

    async def _subscribe(self, client: Client, channel_id: str) -> None:
        if channel_id not in self._subscriptions:
            self._subscriptions[channel_id] = await client.subscribe(
                f"{self._prefix}.channel.{channel_id}", cb=self._received_event, pending_msgs_limit=PENDING_MESSAGES
            )

    async def unsubscribe_channel(self, channel_id: str) -> None:
        self._wanted.discard(channel_id)
        subscription = self._subscriptions.pop(channel_id, None)
        if subscription is not None and self._client is not None:
            try:
                await subscription.unsubscribe()
            except nats.errors.Error as failure:
                log.debug("the subscription had ended", kind=type(failure).__name__)

    async def _received_event(self, message: Msg) -> None:
        try:
            self.on_channel(message.subject.rpartition(".")[2], message.data, message.headers or NO_HEADERS)
        except ValueError:
            log.warning("a NATS message was not an event", subject=message.subject)

    async def _received_control(self, message: Msg) -> None:
        try:
            self.on_control(message.data)
        except ValueError:
            log.warning("a NATS message was not a control message", subject=message.subject)

    async def _received_limits(self, message: Msg) -> None:
        try:
            self.on_limits(message.data)
        except ValueError:
            log.warning("a NATS message was not about limits", subject=message.subject)

    # --- publishing ----------------------------------------------------------------------------------

    def publish_channel(self, channel_id: str, payload: bytes, headers: Mapping[str, str] = NO_HEADERS) -> None:
        self._publish(f"{self._prefix}.channel.{channel_id}", payload, headers)

    def publish_control(self, payload: bytes) -> None:
        self._publish(f"{self._prefix}.control", payload)

    def publish_limits(self, payload: bytes) -> None:
        self._publish(f"{self._prefix}.limits", payload)

    def _publish(self, subject: str, payload: bytes, headers: Mapping[str, str] = NO_HEADERS) -> None:
        size = len(payload)
        full = len(self._outgoing) >= OUTGOING_MESSAGES or self._outgoing_bytes + size > OUTGOING_BYTES
        if self._client is None or full:
            self._metrics.nats_dropped()
            return
        self._outgoing.append((subject, payload, headers))
        self._outgoing_bytes += size
        self._publishable.set()

    async def _publish_forever(self) -> None:
        """What one turn of the loop has published goes out together: the events of a commit leave in one write."""
        while True:
            await self._publishable.wait()
            self._publishable = anyio.Event()
            while self._outgoing:
                subject, payload, headers = self._outgoing.popleft()
                self._outgoing_bytes -= len(payload)
                await self._publish_now(subject, payload, headers)

    async def _publish_now(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        if self._client is None:
            self._metrics.nats_dropped()
            return
        try:
            await self._client.publish(subject, payload, headers=dict(headers) or None)
        except (nats.errors.Error, OSError):
            self._metrics.nats_dropped()


async def _close(client: Client) -> None:
    """After TLS, or a TLS handshake that failed, nats-py closes the socket and then waits for an end nobody reports."""
    with anyio.move_on_after(CLOSE_LIMIT_SECS, shield=True):
        await client.close()
