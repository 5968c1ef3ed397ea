"""The live streams of this replica: joins sockets to the hub, replays the log to them, and ends them.

A channel's stream is the ring named by its id, a user's notification stream that of notifications.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import structlog
from anyio.abc import TaskGroup

from openguild_proto.effects import StorageUnavailable
from openguild_proto.fanout.hub import Hub, Lagged, Subscriber, SubscriberState
from openguild_proto.http.message import OpenStream
from openguild_proto.limits import FEW_AT_ONCE, MAX_PAGE_EVENTS
from openguild_proto.operations.consequences import CloseStreams
from openguild_proto.records import StoredEvent
from openguild_proto.schemas.stream import (
    event_frame_payload,
)
from openguild_proto.ws import reasons
from openguild_proto.ws.close_codes import CloseCode
from openguild_proto.ws.frames import text_frame
from openguild_runtime.bus.base import Bus
from openguild_runtime.net.flusher import Flusher
from openguild_runtime.net.transport import SEND_BYTES, Transport
from openguild_runtime.net.work_queue import WorkQueue
from openguild_runtime.observability.metrics import Depths, Metrics
from openguild_runtime.observability.tracing import Tracing
from openguild_runtime.replica.epochs import Epochs
from openguild_runtime.replica.feeds import ChannelGone, Feeds
from openguild_runtime.replica.notifications import USER_RING, Notifications, user_ring
from openguild_runtime.replica.replay import ReplayPages
from openguild_runtime.storage.base import Storage

log = structlog.get_logger("openguild.streams")


class Streams:
    """Everything a socket needs after its upgrade, and everything an event needs to reach its sockets."""

    def __init__(
        self,
        *,
        hub: Hub,
        storage: Storage,
        bus: Bus,
        metrics: Metrics,
        tasks: TaskGroup,
        clock: Callable[[], float],
        replay_window: int,
        tracing: Tracing | None = None,
    ) -> None:
        self.hub = hub
        flushed = tracing.flushed if tracing is not None else None
        self.flusher = Flusher(hub, metrics, clock, lagged=self._close_lagged, flushed=flushed)
        self.epochs = Epochs(storage)
        self.epochs.renewed.append(self._begin_anew)
        self.feeds = Feeds(
            storage,
            bus,
            metrics,
            tasks,
            epochs=self.epochs,
            released=self.released,
            restarted=self.log_went_back,
            has_room=hub.has_room,
        )
        self.turns = WorkQueue(tasks, clock)
        self.notifications = Notifications(hub, self.flusher, self.feeds, storage, self.turns)
        self.replay_window = replay_window
        self.changes = 0  # control records applied: who joins compares it with what it was when access was checked
        self.recheck: Callable[[Transport], None]  # set by the app: controls know how
        self._ending_lagged = False
        self._tracing = tracing
        self._storage = storage
        self._metrics = metrics
        self._tasks = tasks
        self._pages = ReplayPages(storage)
        self._transports: dict[
            str, dict[Transport, None]
        ] = {}  # user id -> stream sockets, in the order of their coming

    # --- joining and leaving -----------------------------------------------------------------------

    async def prepare(self, stream: OpenStream) -> None:
        """Before the upgrade is accepted: make this replica hear what the stream needs. Raises StorageUnavailable, ChannelGone."""
        if stream.channel_id is not None:
            if not await self.feeds.hold([stream.channel_id]):
                raise ChannelGone
            try:
                await self.feeds.catch_up(stream.channel_id, stream.head)
                feed = self.feeds.get(stream.channel_id)
                if feed is not None and feed.head < (stream.since or 0):
                    raise StorageUnavailable  # the log went back meanwhile: asked again, the client is told so
            except BaseException:
                self.feeds.release([stream.channel_id])
                raise
        else:
            await self.notifications.retain(stream.user_id)

    def abandon(self, stream: OpenStream) -> None:
        """Undo `prepare`: the upgrade was not accepted, or the socket is gone."""
        if stream.channel_id is not None:
            self.feeds.release([stream.channel_id])
        else:
            self.notifications.release(stream.user_id)

    def join(self, transport: Transport, stream: OpenStream, changes: int) -> None:
        """Subscribe the accepted socket; from here it misses nothing and gets nothing twice.

        `changes`: the count when its access was checked. What came since has not seen this socket, so it is checked again.
        """
        transport.stream = stream
        transport.streams = self
        self._transports.setdefault(stream.user_id, {})[transport] = None
        if stream.channel_id is None:
            ring = user_ring(stream.user_id)
            if not self.hub.is_open(ring):
                self.hub.open(ring, 0)
            since = self.hub.head(ring)
        else:
            ring = stream.channel_id
            feed = self.feeds.get(ring)
            head = feed.head if feed is not None else stream.head
            if not self.hub.is_open(ring):
                self.hub.open(ring, head)
            since = stream.since if stream.since is not None else max(0, head - self.replay_window)
        transport.subscriber = self.hub.subscribe(ring, since, owner=transport, handle=transport.socket.fileno())
        self._metrics.subscriber_joined()
        if transport.subscriber.state is SubscriberState.REPLAYING:
            transport.park()
        else:
            self.flusher.mark(ring)
        if changes != self.changes:
            self.recheck(transport)

    def leave(self, transport: Transport) -> None:
        """The socket is going: out of its ring and out of the indexes."""
        stream, subscriber = transport.stream, transport.subscriber
        if stream is None:
            return
        transport.stream = None
        transports = self._transports.get(stream.user_id)
        if transports is not None:
            transports.pop(transport, None)
            if not transports:
                del self._transports[stream.user_id]
        if subscriber is not None:
            self.hub.unsubscribe(subscriber)
            transport.subscriber = None
            self._metrics.subscriber_left()
            if self.hub.is_open(subscriber.stream) and self.hub.subscriber_count(subscriber.stream) == 0:
                self.hub.close(subscriber.stream)
        self.abandon(stream)

    # --- what a parked socket gets -----------------------------------------------------------------

    async def feed_parked(self, transport: Transport) -> bool:
        """One step for a socket owned by its pump: a replay page, or a span of the ring. False: nothing is left."""
        subscriber = transport.subscriber
        if subscriber is None:
            return False
        if subscriber.state is SubscriberState.REPLAYING:
            hole = self.hub.replay_range(subscriber)
            if hole is not None:
                await self._replay(transport, hole)
            subscriber.parked = True  # live by now, perhaps, and still the pump's
            return True
        if subscriber.state is not SubscriberState.LIVE:
            return False
        span = self.hub.take(subscriber, SEND_BYTES)
        if not span:
            return False
        sent = transport.send(span)
        if sent < 0:
            if not transport.closing:
                await transport.socket.writable()
            return True
        rest = self.hub.sent(subscriber, sent)
        if rest:
            transport.connection.outbox.append(rest)
        return True

    async def _replay(self, transport: Transport, hole: tuple[int, int]) -> None:
        subscriber, after = transport.subscriber, hole[0]
        if subscriber is None:
            return
        pieces = await self._pages.read(subscriber.stream, after, min(hole[1] - after, MAX_PAGE_EVENTS))
        if not pieces:
            transport.close(CloseCode.INTERNAL_ERROR, reasons.log_unreadable(after))
            return
        for last, piece in pieces:
            if not subscriber.replaying:
                return  # left or closed while the log was read
            transport.connection.outbox.append(piece)
            at_once = transport.push()
            self._metrics.replayed(last - subscriber.position)
            self.hub.replayed(subscriber, last)
            if not at_once:
                return  # a slow reader holds one piece; when it has taken that, the rest is read again

    # --- what happens ------------------------------------------------------------------------------

    def committed(self, event: StoredEvent) -> bytes:
        """This replica stored an event: to its own subscribers at once. Returns the payload, for other replicas."""
        payload = event_frame_payload(event)
        if not self.feeds.committed(event.channel_id, event.sequence, payload):
            self._metrics.messaging_event("no_subscribers")
        return payload

    def released(self, channel_id: str, sequence: int, payload: bytes) -> None:
        """The next event of a channel, in order and once."""
        reached = False
        if self.hub.is_open(channel_id):
            if self._tracing is not None:
                self._tracing.flush_begins(channel_id)
            self.flusher.publish(channel_id, text_frame(payload), sequence)
            reached = True
        reached = self.notifications.released(channel_id, payload) or reached
        self._metrics.messaging_event("delivered" if reached else "no_subscribers")

    # --- ending streams ----------------------------------------------------------------------------

    def _close_lagged(self) -> None:
        """Whoever has to wait for their end has left the ring or is passed over by the flush."""
        if self._ending_lagged:
            return
        lagged = self.hub.take_lagged(FEW_AT_ONCE)
        if len(lagged) == FEW_AT_ONCE:
            self._ending_lagged = True
            self.turns.each(self._more_lagged(lagged), self._end_lagged)
        elif lagged:
            self.turns.each(lagged, self._end_lagged)

    def _more_lagged(self, lagged: list[Lagged]) -> Iterator[Lagged]:
        while lagged:
            yield from lagged
            lagged = self.hub.take_lagged(FEW_AT_ONCE)
        self._ending_lagged = False

    def _end_lagged(self, lagged: Lagged) -> None:
        self._metrics.lagged(lagged.missed)
        transport = lagged.subscriber.owner
        if isinstance(transport, Transport):
            log.info("stream lagged", missed=lagged.missed, **transport.described)
            notifications = transport.stream is not None and transport.stream.channel_id is None
            reason = reasons.lagged(lagged.missed, None if notifications else lagged.resume_from)
            transport.close(CloseCode.POLICY_VIOLATION, reason)

    def count_missed(self, transport: Transport) -> None:
        """The socket ends by a deadline: what it had not got is dropped (A11)."""
        subscriber = transport.subscriber
        if subscriber is not None and subscriber.state is SubscriberState.LIVE:
            self._metrics.messaging_event("dropped", self.hub.head(subscriber.stream) - subscriber.position)

    def close_streams(self, ended: CloseStreams) -> None:
        """End the streams that are meant: at once where they are few, else in the next turns of the loop."""

        def end(transport: Transport) -> None:
            if transport.stream is not None and ended.means(transport.stream):
                transport.close(ended.code, ended.reason)

        self.turns.each(self.transports() if ended.user_id is None else self.transports_of(ended.user_id), end)

    def forget_channel(self, channel_id: str) -> None:
        """What is kept of a channel that is gone, and who was to be notified of it."""
        self._pages.drop_channel(channel_id)
        self.notifications.forget_channel(channel_id)

    def log_went_back(self, channel_id: str) -> None:
        """The database was restored to an earlier state: who comes back with a later `since` is told so by a 400."""
        self.forget_pages()
        self.turns.each(self.hub.close(channel_id), _end_restarted)

    async def _begin_anew(self) -> None:
        """Every channel has a new epoch. Counted as a change first, so that who is joining just now is looked at again."""
        self.changes += 1
        self.forget_pages()
        await self.feeds.restart_all()

    def forget_pages(self) -> None:
        """Of all channels: what one has shown is true of the database."""
        self._pages.drop_all()

    def keys_replaced(self, trusts: Callable[[bytes], bool]) -> None:
        """The key ring has changed: streams whose token was signed by a key that has left it end with 4401.

        Counted as a change, so that who is joining just now is looked at again.
        """
        self.changes += 1

        def end(transport: Transport) -> None:
            if transport.stream is not None and not trusts(transport.stream.verified_by):
                transport.close(CloseCode.TOKEN_ENDED, reasons.KEY_WITHDRAWN)

        self.turns.each(self.transports(), end)

    def depths(self) -> Depths:
        """What is waiting here, for metrics and operators."""
        deep = self.hub.depths()
        channels = [(ring, depth) for ring, depth in deep if not ring.startswith(USER_RING)]
        notifications = next((depth for ring, depth in deep if ring.startswith(USER_RING)), 0)
        return Depths(channels, notifications)

    def transports(self) -> list[Transport]:
        """Every stream socket of this replica."""
        return [transport for transports in self._transports.values() for transport in transports]

    def transports_of(self, user_id: str) -> list[Transport]:
        """The user's stream sockets, in the order of their coming."""
        return list(self._transports.get(user_id, ()))


def _end_restarted(subscriber: Subscriber) -> None:
    if isinstance(subscriber.owner, Transport):
        subscriber.owner.close(CloseCode.SERVICE_RESTART, reasons.LOG_WENT_BACK)
