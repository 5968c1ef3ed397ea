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
from openguild_runtime.bus.nats_faults import CA_FILE, CLOSED, PAYLOAD, SILENT, SUBSCRIPTIONS, UNREACHABLE, Fault
from openguild_runtime.bus.nats_link import CLOSE_LIMIT_SECS, FAILURES, Link, Unusable
from openguild_runtime.bus.nats_trouble import Troubles
from openguild_runtime.bus.outgoing import Message, Outgoing
from openguild_runtime.config.nats_servers import NatsServer, parse_servers
from openguild_runtime.observability.metrics import Metrics
from openguild_runtime.system.background import log_exceptions

CONNECT_LIMIT_SECS = 8  # all of it: greeting, TLS, subscriptions and the answer to a ping
WATCH_SECS = 1.0
PING_INTERVAL_SECS = 5  # a black-holed connection is given up after two of them
ASK_SECS = 1.0  # from an answer of the server to the next question
PROVE_ASKS = 3  # each third question finds out which subjects the server takes
RESUBSCRIBE_ASKS = 30  # where it takes too few subscriptions: all of them are tried again
MAX_SEARCH_SECS = 2.0  # the longest wait for a server that nobody greets for: an attempt costs nobody anything
MAX_RETURN_SECS = 15.0  # the longest wait where a server had greeted: each return is two questions to the database
LASTED_SECS = MAX_RETURN_SECS  # how long a connection must have held before its end counts as the first one again
PENDING_MESSAGES = 4_096  # per subscription, unprocessed
HEADER_LINE_BYTES = 14  # "NATS/1.0", its line ends and the empty line; `max_payload` counts headers

log = structlog.get_logger("openguild.nats")


class NatsBus(Bus):
    """`url`: one or several, by commas, each with its user and password; they are tried in turn, from a random one on.

    `credentials_file` is a NATS .creds file, read again for each connection; `ca_file` a PEM bundle for TLS. A connection
    that answers no ping for two of `ping_interval_secs` is given up.
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
        ask_secs: float = ASK_SECS,
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
        self._ping_interval_secs = ping_interval_secs
        self._ask_secs = ask_secs
        self._tls: ssl.SSLContext | None = None
        self._link: Link | None = None
        self.refusals = 0  # attempts to connect that failed since the last connection
        self._searching = Backoff(random.random, base_secs=0.1, max_secs=MAX_SEARCH_SECS)
        self._returning = Backoff(random.random, base_secs=0.5, max_secs=LASTED_SECS)
        self._troubles = Troubles(self._prefix, metrics)
        self._away: Fault = UNREACHABLE  # why there is no connection
        self._answered_at = float("-inf")
        self._wanted: set[str] = set()
        self._subscriptions: dict[str, Subscription] = {}  # of channels
        self._fixed: dict[str, Subscription] = {}  # "control", "limits", and "channel" for the probe's
        self._unsettled: dict[str, None] = {}  # channels whose subscription may not be what is wanted
        self._changed = anyio.Event()
        self._outgoing = Outgoing()
        self._scope = anyio.CancelScope()

    @property
    def connected(self) -> bool:
        return self._link is not None and self._link.alive

    @property
    def trouble(self) -> str | None:
        fault = self._troubles.standing.first
        if not self.connected:
            fault = self._away
        elif self._is_silent():
            fault = SILENT
        return fault.cause if fault is not None else None

    @property
    def limits_travel(self) -> bool:
        return self.connected and not {"publish limits", "subscribe limits"} & self._troubles.standing.keys()

    async def start(self, handler: BusHandler) -> None:
        self._handler = handler
        self._tasks.start_soon(self._run)

    async def aclose(self) -> None:
        link = self._link
        if link is not None:
            with anyio.move_on_after(CLOSE_LIMIT_SECS, shield=True), suppress(Unusable, *FAILURES):
                await self._publish_queued(link)
                await link.answer()
        self._scope.cancel()
        if link is not None:
            await link.let_go()

    # --- the connection ------------------------------------------------------------------------------

    async def _run(self) -> None:
        connected_before = False
        start = random.randrange(len(self._servers))  # noqa: S311 - replicas spread over the servers
        with self._scope:
            for server in itertools.cycle(self._servers[start:] + self._servers[:start]):
                link = await self._connect(server)
                if link is None:
                    self.refusals += 1
                    backoff = self._searching if self._away in (UNREACHABLE, SILENT) else self._returning
                else:
                    self.refusals = 0
                    self._searching.reset()
                    made_at = anyio.current_time()
                    await self._serve(link, reconnected=connected_before)
                    connected_before = True
                    backoff = self._returning
                    backoff.lasted(anyio.current_time() - made_at)
                await anyio.sleep(backoff.next_delay(0.05))

    async def _connect(self, server: NatsServer) -> Link | None:
        """A connection with every subscription that was wanted when it was made, or None."""
        link = Link(server, denied=self._denied, told=self._told, many=len(self._servers) > 1)
        try:
            with anyio.fail_after(CONNECT_LIMIT_SECS):
                await self._greet(link)
        except Unusable as failure:
            self._away = failure.fault
        except TimeoutError:
            self._away = SILENT
        except FAILURES:
            self._away = link.fault
        except Exception:
            self._away = CLOSED
            log.exception("connecting to NATS failed")
        except BaseException:
            await link.let_go()
            raise
        else:
            return link
        self._troubles.forget()
        self._troubles.report(self._away, server.name)
        await link.let_go()
        return None

    async def _greet(self, link: Link) -> None:
        self._subscriptions.clear()
        self._troubles.forget()
        self._unsettled = dict.fromkeys(self._wanted)
        await link.open(
            tls=self._tls_context(link.server),
            credentials=self._credentials,
            ping_interval_secs=self._ping_interval_secs,
        )
        self._fixed = {
            "control": await self._subscribe(link, "control", self._received_control),
            "limits": await self._subscribe(link, "limits", self._received_limits),
            "channel": await self._subscribe(link, f"channel.{self._probe_channel}", self._received_event),
        }
        await self._settle(link)
        await self._publish_probes(link)
        await link.answer()
        self._answered_at = anyio.current_time()

    def _tls_context(self, server: NatsServer) -> ssl.SSLContext | None:
        """None: none is asked for."""
        if not (server.tls or self._ca_file):
            return None
        if self._tls is None:
            try:
                self._tls = ssl.create_default_context(cafile=self._ca_file)
            except OSError:
                raise Unusable(CA_FILE) from None
        return self._tls

    async def _serve(self, link: Link, *, reconnected: bool) -> None:
        """Until the connection ends.

        One whose peer does not read is given up by nats-py after its pings, but it then waits for what is still to be
        sent and never reports the end: so its state is looked at, too.
        """
        self._link = link
        self._metrics.nats_connected(True)
        log.info("connected to NATS", server=link.server.name)
        try:
            if reconnected:
                self._metrics.nats_reconnected()
                self._missed_something()
            async with anyio.create_task_group() as parts:
                parts.start_soon(self._publish_forever, link)
                parts.start_soon(self._settle_forever, link)
                parts.start_soon(self._ask_forever, link)
                while link.alive:
                    with anyio.move_on_after(WATCH_SECS):
                        await link.ended.wait()
                    if self._is_silent() and not link.ended.is_set():
                        self._troubles.report(SILENT, link.server.name)
                parts.cancel_scope.cancel()
            self._away = link.fault
            self._troubles.report(self._away, link.server.name, "the connection to NATS has ended. ")
        finally:
            self._link = None
            self._troubles.forget()
            self._metrics.nats_connected(False)
            while self._outgoing.take() is not None:
                self._metrics.nats_dropped()
            await link.let_go()

    def _missed_something(self) -> None:
        with log_exceptions("what follows a reconnect to NATS"):
            self._handler.bus_reconnected()

    # --- what the server takes -------------------------------------------------------------------------

    async def _ask_forever(self, link: Link) -> None:
        """A connection that is dead looks alive until it is given up; whoever must know sooner waits for the answers."""
        self._handler.bus_answered()  # the connection was made with one
        for asked in itertools.count(1):
            await anyio.sleep(self._ask_secs)
            with log_exceptions("asking NATS"), suppress(Unusable, *FAILURES):
                prove = asked % PROVE_ASKS == 0
                if prove:
                    await self._begin_round(link, all_channels=asked % RESUBSCRIBE_ASKS == 0)
                await link.answer()
                self._answered_at = anyio.current_time()
                if prove:
                    await self._end_round(link)
                self._handler.bus_answered()

    def _is_silent(self) -> bool:
        return anyio.current_time() - self._answered_at >= SILENT_SECS

    async def _begin_round(self, link: Link, *, all_channels: bool) -> None:
        standing = self._troubles.standing
        standing.begin()
        for kind, subscription in self._fixed.items():
            if f"subscribe {kind}" in standing:
                await link.subscribe_again(subscription)
        if "subscriptions" in standing:
            if all_channels:
                await self._subscribe_channels_again(link)
            else:
                standing.tell("subscriptions", SUBSCRIPTIONS)
        await self._publish_probes(link)

    async def _end_round(self, link: Link) -> None:
        over = self._troubles.over()
        refused = [key for key in over if key.startswith(("publish", "subscri"))]
        if refused:
            log.info("NATS takes again what it had refused", refused=refused)
        if "subscribe channel" in refused:
            await self._subscribe_channels_again(link)
        if any(key.startswith("subscri") for key in refused):
            self._missed_something()

    async def _subscribe_channels_again(self, link: Link) -> None:
        for subscription in (*self._fixed.values(), *self._subscriptions.values()):
            await link.subscribe_again(subscription)

    async def _publish_probes(self, link: Link) -> None:
        probes = {
            "control": self._handler.control_probe,
            "limits": self._handler.limits_probe,
            f"channel.{self._probe_channel}": b"{}",
        }
        for name, payload in probes.items():
            if payload:
                await link.publish(f"{self._prefix}.{name}", payload)

    def _denied(self, link: Link, action: str, subject: str) -> None:
        self._troubles.denied(action, subject, link.server.name)

    def _told(self, link: Link, fault: Fault) -> None:
        self._troubles.tell(fault, link.server.name)

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

    async def _settle_forever(self, link: Link) -> None:
        while True:
            await self._settle(link)  # first of all what was asked for while the connection was being made
            await self._changed.wait()
            self._changed = anyio.Event()

    async def _settle(self, link: Link) -> None:
        """Make the subscriptions what is wanted. One task at a time does this, so no request overtakes another."""
        while self._unsettled:
            channel_id, _ = self._unsettled.popitem()
            subscription = self._subscriptions.pop(channel_id, None)
            try:
                if channel_id in self._wanted:
                    self._subscriptions[channel_id] = subscription or await self._subscribe(
                        link, f"channel.{channel_id}", self._received_event
                    )
                elif subscription is not None:
                    await subscription.unsubscribe()
            except nats.errors.Error as failure:
                log.info("subscribing waits for the next connection", kind=type(failure).__name__)

    async def _subscribe(self, link: Link, name: str, heard: Callable[[Msg], Awaitable[None]]) -> Subscription:
        return await link.subscribe(f"{self._prefix}.{name}", cb=heard, pending_msgs_limit=PENDING_MESSAGES)

    async def _received_event(self, message: Msg) -> None:
        with self._troubles.one_message(message.subject):
            self._handler.channel_message(
                message.subject.rpartition(".")[2], message.data, message.headers or NO_HEADERS
            )

    async def _received_control(self, message: Msg) -> None:
        with self._troubles.one_message(message.subject):
            self._handler.control_message(message.data)

    async def _received_limits(self, message: Msg) -> None:
        with self._troubles.one_message(message.subject):
            self._handler.limits_message(message.data)

    # --- publishing ----------------------------------------------------------------------------------

    def publish_channel(self, channel_id: str, payload: bytes, headers: Mapping[str, str] = NO_HEADERS) -> None:
        self._publish(f"{self._prefix}.channel.{channel_id}", payload, headers)

    def publish_control(self, payload: bytes) -> None:
        self._publish(f"{self._prefix}.control", payload)

    def publish_limits(self, payload: bytes) -> None:
        if "publish limits" not in self._troubles.standing:  # the probe finds out when it is permitted
            self._publish(f"{self._prefix}.limits", payload)

    def _publish(self, subject: str, payload: bytes, headers: Mapping[str, str] = NO_HEADERS) -> None:
        if not self.connected or not self._outgoing.put(Message(subject, payload, headers)):
            self._metrics.nats_dropped()

    async def _publish_forever(self, link: Link) -> None:
        """What one turn of the loop has published goes out together: the events of a commit leave in one write."""
        while True:
            await self._outgoing.wait()
            await self._publish_queued(link)

    async def _publish_queued(self, link: Link) -> None:
        while (message := self._outgoing.take()) is not None:
            size = message.nbytes
            if size + HEADER_LINE_BYTES > link.max_payload:  # a server that gets it all the same ends the connection
                self._metrics.nats_dropped()
                self._troubles.tell(PAYLOAD, link.server.name, nbytes=size)
                continue
            try:
                await link.publish(message.subject, message.payload, headers=dict(message.headers) or None)
            except FAILURES:
                self._metrics.nats_dropped()
