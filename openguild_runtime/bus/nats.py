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
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TypeAlias

import anyio
import nats.errors
import structlog
from anyio.abc import TaskGroup
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from openguild_runtime.background import contained
from openguild_runtime.bus.base import NO_HEADERS, Bus
from openguild_runtime.metrics import Metrics

CONNECT_TIMEOUT_SECS = 2
CONNECT_LIMIT_SECS = 8  # all of it: greeting, TLS, subscriptions and the answer to a ping
CLOSE_LIMIT_SECS = 0.2
WATCH_SECS = 1.0
PING_INTERVAL_SECS = 5  # a black-holed connection is given up after two of them
MAX_OUTSTANDING_PINGS = 2
ASK_SECS = 1.0  # from an answer of the server to the next question
ANSWER_LIMIT_SECS = 3_600  # never reached: nats-py stops reading when an answer comes for which nobody waits any more
MAX_BACKOFF_SECS = 2.0
OUTGOING_MESSAGES = 8_192  # waiting for the client library; beyond these bounds publishes are dropped
OUTGOING_BYTES = 8 * 1024 * 1024
PENDING_MESSAGES = 4_096  # per subscription, unprocessed
HEADER_LINE_BYTES = 14  # "NATS/1.0", its line ends and the empty line; `max_payload` counts headers

FAILURES = (OSError, nats.errors.Error, TimeoutError)  # what a connection that ends, or cannot be made, raises

Outgoing: TypeAlias = tuple[str, bytes, Mapping[str, str]]  # subject, payload, headers

log = structlog.get_logger("openguild.nats")


class NatsBus(Bus):
    """`url` may carry user and password; `credentials_file` is a NATS .creds file, `ca_file` a PEM bundle for TLS.

    A connection that answers no ping for two of `ping_interval_secs` is given up.
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
        ping_interval_secs: float = PING_INTERVAL_SECS,
    ) -> None:
        super().__init__()
        self._url = url
        self._prefix = f"openguild.{re.sub(r'[^A-Za-z0-9_-]', '_', server_name)}"
        self._metrics = metrics
        self._tasks = tasks
        self._credentials_file = credentials_file
        self._ping_interval_secs = ping_interval_secs
        self._tls = ssl.create_default_context(cafile=ca_file) if ca_file or url.startswith("tls://") else None
        self._client: Client | None = None
        self.refusals = 0  # attempts to connect that failed since the last connection
        self._wanted: set[str] = set()
        self._subscriptions: dict[str, Subscription] = {}
        self._unsettled: dict[str, None] = {}  # channels whose subscription may not be what is wanted
        self._changed = anyio.Event()
        self._outgoing: deque[Outgoing] = deque()
        self._outgoing_bytes = 0
        self._publishable = anyio.Event()
        self._scope = anyio.CancelScope()

    @property
    def connected(self) -> bool:
        return self._client is not None and self._client.is_connected

    async def start(self) -> None:
        self._tasks.start_soon(self._run)

    async def aclose(self) -> None:
        client = self._client
        if client is not None:
            with anyio.move_on_after(CLOSE_LIMIT_SECS, shield=True), suppress(*FAILURES):
                await self._publish_queued(client)
                await client.flush()
        self._scope.cancel()
        if client is not None:
            await _close(client)

    # --- the connection ------------------------------------------------------------------------------

    async def _run(self) -> None:
        connected_before = False
        with self._scope:
            while True:
                ended = anyio.Event()
                client = await self._connect(ended)
                if client is None:
                    self.refusals += 1
                    longest = min(MAX_BACKOFF_SECS, 0.1 * 2 ** min(self.refusals, 8))
                    await anyio.sleep(random.uniform(0.05, longest))  # noqa: S311 - jitter
                    continue
                self.refusals = 0
                await self._serve(client, ended, reconnected=connected_before)
                connected_before = True

    async def _serve(self, client: Client, ended: anyio.Event, *, reconnected: bool) -> None:
        """Until the connection ends.

        One whose peer does not read is given up by nats-py after its pings, but it then waits for what is still to be
        sent and never reports the end: so its state is looked at, too.
        """
        self._client = client
        self._metrics.nats_connected(True)
        log.info("connected to NATS")
        try:
            if reconnected:
                self._metrics.nats_reconnected()
                with contained("what follows a reconnect to NATS"):
                    self.on_reconnect()
            async with anyio.create_task_group() as parts:
                parts.start_soon(self._publish_forever, client)
                parts.start_soon(self._settle_forever, client)
                parts.start_soon(self._ask_forever, client)
                while client.is_connected:
                    with anyio.move_on_after(WATCH_SECS):
                        await ended.wait()
                parts.cancel_scope.cancel()
            log.warning("the connection to NATS has ended: events reach other replicas by their tail check")
        finally:
            self._client = None
            self._metrics.nats_connected(False)
            while self._outgoing:
                self._next_outgoing()
                self._metrics.nats_dropped()
            await _close(client)

    async def _ask_forever(self, client: Client) -> None:
        """A connection that is dead looks alive until it is given up; whoever must know sooner waits for the answers."""
        while True:
            with contained("asking NATS"), suppress(*FAILURES):
                await client.flush(ANSWER_LIMIT_SECS)
                if client.is_connected:  # where it has just ended, flush returns at once
                    self.on_answer()
            await anyio.sleep(ASK_SECS)

    async def _connect(self, ended: anyio.Event) -> Client | None:
        """A connection with every subscription that was wanted when it was made, or None."""
        client = Client()

        async def on_closed() -> None:
            ended.set()

        async def on_error(failure: Exception) -> None:
            log.debug("NATS client error", kind=type(failure).__name__)

        try:
            with anyio.fail_after(CONNECT_LIMIT_SECS):
                await self._greet(client, on_closed, on_error)
        except FAILURES as failure:
            log.info("NATS cannot be reached", kind=type(failure).__name__)
        except Exception:
            log.exception("connecting to NATS failed")
        except BaseException:
            await _close(client)
            raise
        else:
            return client
        await _close(client)
        return None

    async def _greet(
        self, client: Client, on_closed: Callable[[], Awaitable[None]], on_error: Callable[[Exception], Awaitable[None]]
    ) -> None:
        self._subscriptions.clear()
        self._unsettled = dict.fromkeys(self._wanted)
        await client.connect(
            servers=[self._url],
            allow_reconnect=False,
            no_echo=True,  # what this replica published it has already
            max_reconnect_attempts=0,
            connect_timeout=CONNECT_TIMEOUT_SECS,
            ping_interval=self._ping_interval_secs,  # type: ignore[arg-type]  # it sleeps so long, whole seconds or not
            max_outstanding_pings=MAX_OUTSTANDING_PINGS,
            pending_size=OUTGOING_BYTES,
            user_credentials=self._credentials_file,
            tls=self._tls,
            closed_cb=on_closed,
            error_cb=on_error,
        )
        await self._subscribe(client, "control", self._received_control)
        await self._subscribe(client, "limits", self._received_limits)
        await self._settle(client)
        await client.flush(CONNECT_TIMEOUT_SECS)

    # --- receiving -----------------------------------------------------------------------------------

    async def subscribe_channel(self, channel_id: str) -> None:
        self._wanted.add(channel_id)
        self._unsettle(channel_id)

    async def unsubscribe_channel(self, channel_id: str) -> None:
        self._wanted.discard(channel_id)
        self._unsettle(channel_id)

    def _unsettle(self, channel_id: str) -> None:
        self._unsettled[channel_id] = None
        self._changed.set()

    async def _settle_forever(self, client: Client) -> None:
        while True:
            await self._settle(client)  # first of all what was asked for while the connection was being made
            await self._changed.wait()
            self._changed = anyio.Event()

    async def _settle(self, client: Client) -> None:
        """Make the subscriptions what is wanted. One task at a time does this, so no request overtakes another."""
        while self._unsettled:
            channel_id, _ = self._unsettled.popitem()
            subscription = self._subscriptions.pop(channel_id, None)
            try:
                if channel_id in self._wanted:
                    self._subscriptions[channel_id] = subscription or await self._subscribe(
                        client, f"channel.{channel_id}", self._received_event
                    )
                elif subscription is not None:
                    await subscription.unsubscribe()
            except nats.errors.Error as failure:
                log.info("subscribing waits for the next connection", kind=type(failure).__name__)

    async def _subscribe(self, client: Client, name: str, heard: Callable[[Msg], Awaitable[None]]) -> Subscription:
        return await client.subscribe(f"{self._prefix}.{name}", cb=heard, pending_msgs_limit=PENDING_MESSAGES)

    async def _received_event(self, message: Msg) -> None:
        with _one_message(message):
            self.on_channel(message.subject.rpartition(".")[2], message.data, message.headers or NO_HEADERS)

    async def _received_control(self, message: Msg) -> None:
        with _one_message(message):
            self.on_control(message.data)

    async def _received_limits(self, message: Msg) -> None:
        with _one_message(message):
            self.on_limits(message.data)

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
        if not self.connected or full:
            self._metrics.nats_dropped()
            return
        self._outgoing.append((subject, payload, headers))
        self._outgoing_bytes += size
        self._publishable.set()

    def _next_outgoing(self) -> Outgoing:
        subject, payload, headers = self._outgoing.popleft()
        self._outgoing_bytes -= len(payload)
        return subject, payload, headers

    async def _publish_forever(self, client: Client) -> None:
        """What one turn of the loop has published goes out together: the events of a commit leave in one write."""
        while True:
            await self._publishable.wait()
            self._publishable = anyio.Event()
            await self._publish_queued(client)

    async def _publish_queued(self, client: Client) -> None:
        while self._outgoing:
            subject, payload, headers = self._next_outgoing()
            size = len(payload) + sum(len(name) + len(value) + 4 for name, value in headers.items())
            if size + HEADER_LINE_BYTES > client.max_payload:  # a server that gets it all the same ends the connection
                self._metrics.nats_dropped()
                log.warning("a message is larger than NATS takes (max_payload)", subject=subject, nbytes=size)
                continue
            try:
                await client.publish(subject, payload, headers=dict(headers) or None)
            except FAILURES:
                self._metrics.nats_dropped()


@contextmanager
def _one_message(message: Msg) -> Iterator[None]:
    """Whatever is wrong with it, or with us, the next one is heard."""
    try:
        yield
    except ValueError as failure:
        log.warning("a NATS message was not understood", subject=message.subject, kind=type(failure).__name__)
    except Exception:
        log.exception("a NATS message could not be taken", subject=message.subject)


async def _close(client: Client) -> None:
    """Orderly if that is quick. nats-py may wait for ever: for a peer that does not read, and after TLS."""
    with anyio.move_on_after(CLOSE_LIMIT_SECS, shield=True), suppress(*FAILURES):
        await client.close()
    writer = getattr(client._transport, "_io_writer", None)  # it offers no other way to let go of a socket at once
    if writer is not None:
        writer.transport.abort()
