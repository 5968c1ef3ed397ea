"""The live streams of a replica: which socket follows which ring, from which position, and when it ends.

A channel's stream follows the ring named by the channel id, a notification stream the user's ring (notifications.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

from openguild_proto.diagnosis.closed_readers import LAGGED, SLOW_REASONS, ClosedReader, ClosedReaders
from openguild_proto.effects.base import StorageUnavailable
from openguild_proto.fanout.hub import Hub, Lagged, Subscriber, SubscriberState
from openguild_proto.http.message import OpenStream
from openguild_proto.limits import FEW_AT_ONCE, MAX_PAGE_EVENTS
from openguild_proto.operations.consequences import CloseStreams
from openguild_proto.policy.clock_watch import ClockWatch, deadline_of
from openguild_proto.procedures import Procedure
from openguild_proto.replica.actions import Close, ExpireAt, Level, Replay, StreamSocket
from openguild_proto.replica.channels import ChannelGone, Channels
from openguild_proto.replica.notifications import Notifications, user_ring
from openguild_proto.replica.outputs import Outputs
from openguild_proto.replica.pages import Pages, Pieces
from openguild_proto.replica.presence import Presence
from openguild_proto.ws import reasons
from openguild_proto.ws.close_codes import CloseCode


class Streams:
    """All stream sockets of a replica.

    `changes` counts events that may have changed a right. A joining socket compares it with the count when its access was
    checked.
    """

    def __init__(
        self,
        hub: Hub,
        outputs: Outputs,
        channels: Channels,
        notifications: Notifications,
        pages: Pages,
        presence: Presence | None,
    ) -> None:
        self.notifications = notifications
        self.pages = pages
        self.closed_readers = ClosedReaders()
        self.changes = 0
        self._hub = hub
        self._outputs = outputs
        self._channels = channels
        self._presence = presence
        self._is_ending_lagged = False
        self._clock_watch = ClockWatch()
        self._sockets: dict[str, dict[StreamSocket, None]] = {}  # user id -> sockets, in the order of arrival

    # --- joining and leaving -------------------------------------------------------------------------

    def prepare(self, stream: OpenStream) -> Procedure[None]:
        """Follow what the stream needs, before the upgrade is accepted. Raises StorageUnavailable and ChannelGone."""
        if stream.channel_id is None:
            yield from self.notifications.retain(stream.user_id)
            return
        if not (yield from self._channels.follow([stream.channel_id])):
            raise ChannelGone
        try:
            yield from self._channels.reach_epoch(stream.channel_id, stream.epoch)
            yield from self._channels.catch_up(stream.channel_id, stream.head)
            if self._is_beyond_log(stream):
                raise StorageUnavailable  # the log went back; when the client retries, the access check tells it so
        except BaseException:
            self._channels.unfollow([stream.channel_id])
            raise

    def abandon(self, stream: OpenStream) -> None:
        """Undo `prepare`, because the upgrade was not accepted or the socket has left."""
        if stream.channel_id is not None:
            self._channels.unfollow([stream.channel_id])
        else:
            self.notifications.release(stream.user_id)

    def join(self, socket: StreamSocket, stream: OpenStream, *, handle: int, wall: float) -> None:
        """Subscribe the accepted socket. From here on it gets every event once.

        `handle`: its file descriptor. `wall`: UTC seconds; the stream ends when its token expires.
        """
        socket.stream = stream
        self._sockets.setdefault(stream.user_id, {})[socket] = None
        if self._presence is not None:
            self._presence.opened(stream.user_id, stream.session_id)
        if self._is_beyond_log(stream):
            self._outputs.add(Close(socket, CloseCode.SERVICE_RESTART, reasons.LOG_WENT_BACK))
            return
        self._outputs.add(self._expiry(socket, stream, wall))
        ring, since = self._place(stream)
        socket.subscriber = self._hub.subscribe(ring, since, owner=socket, handle=handle)
        self._outputs.counters.subscribers += 1
        if socket.subscriber.state is SubscriberState.REPLAYING:
            self._outputs.add(Replay(socket))
        else:
            self._outputs.mark(ring)

    def _is_beyond_log(self, stream: OpenStream) -> bool:
        """Return whether the log went back behind the stream's `since` after its access was checked."""
        feed = self._channels.get(stream.channel_id) if stream.channel_id is not None else None
        return feed is not None and feed.head < (stream.since or 0)

    def _place(self, stream: OpenStream) -> tuple[str, int]:
        """Return the ring, which is open then, and the sequence after which the stream begins."""
        if stream.channel_id is None:
            ring = user_ring(stream.user_id)
            if not self._hub.is_open(ring):
                self._hub.open(ring, 0)
            return ring, self._hub.head(ring)
        feed = self._channels.get(stream.channel_id)
        head = feed.head if feed is not None else stream.head
        if not self._hub.is_open(stream.channel_id):
            self._hub.open(stream.channel_id, head)
        since = stream.since if stream.since is not None else max(0, head - stream.replay_window)
        return stream.channel_id, since

    def leave(self, socket: StreamSocket) -> None:
        """Remove the socket from its ring and the indexes. Idempotent."""
        stream, subscriber = socket.stream, socket.subscriber
        if stream is None:
            return
        socket.stream = None
        if self._presence is not None:
            self._presence.closed(stream.user_id, stream.session_id)
        self.pages.left(socket)
        sockets = self._sockets.get(stream.user_id)
        if sockets is not None:
            sockets.pop(socket, None)
            if not sockets:
                del self._sockets[stream.user_id]
        if subscriber is not None:
            self._hub.unsubscribe(subscriber)
            socket.subscriber = None
            self._outputs.counters.subscribers -= 1
            if self._hub.is_open(subscriber.ring) and self._hub.subscriber_count(subscriber.ring) == 0:
                self._hub.close(subscriber.ring)
        self.abandon(stream)

    # --- replays -------------------------------------------------------------------------------------

    def next_pages(self, socket: StreamSocket) -> Pieces | None:
        """Return the next frames of a replaying socket. Empty: it is live, or ends. None: wait for its `Replay`."""
        subscriber = socket.subscriber
        if subscriber is not None and subscriber.held:
            return None
        hole = self._hub.replay_range(subscriber) if subscriber is not None else None
        if subscriber is None or hole is None:
            return []
        after, upto = hole
        epoch = socket.stream.epoch if socket.stream is not None else None
        pieces = self.pages.get(subscriber.ring, epoch, after, min(upto - after, MAX_PAGE_EVENTS), socket)
        if pieces == []:
            self._outputs.add(Close(socket, CloseCode.INTERNAL_ERROR, reasons.log_unreadable(after)))
        return pieces

    def replayed(self, socket: StreamSocket, upto: int) -> bool:
        """Record that the socket has the events up to `upto`. Return False if it has left its ring and must get no more."""
        subscriber = socket.subscriber
        if subscriber is None or not subscriber.replaying:
            return False
        self._outputs.counters.replayed += upto - subscriber.position
        self._hub.replayed(subscriber, upto)
        return True

    # --- ending --------------------------------------------------------------------------------------

    def _expiry(self, socket: StreamSocket, stream: OpenStream, wall: float) -> ExpireAt:
        deadline = deadline_of(stream.expires_ms, self._outputs.procedures.now, wall)
        return ExpireAt(socket, deadline, CloseCode.TOKEN_ENDED, reasons.EXPIRED)

    def wall_clock(self, wall: float) -> bool:
        """Check the wall clock, given in UTC seconds. Return whether it was set; then all streams get new deadlines."""
        by = self._clock_watch.moved(self._outputs.procedures.now, wall)
        if not by:
            return False
        what = f"the wall clock was moved by {by:+.1f} s: tokens expire by it; make sure that only NTP sets it, in small steps"
        self._outputs.log(Level.WARNING, what)

        def expiry(socket: StreamSocket) -> ExpireAt | None:
            return None if socket.stream is None else self._expiry(socket, socket.stream, wall)

        self._outputs.add_each(self.sockets(), expiry)
        return True

    def end_lagged(self) -> None:
        """Close the readers that the rings have overrun with 1008, and tell them where to resume."""
        if self._is_ending_lagged:
            return
        lagged = self._hub.take_lagged(FEW_AT_ONCE)
        if lagged:
            self._is_ending_lagged = True
            self._outputs.add_each(self._all_lagged(lagged), self._end_lagged)

    def _all_lagged(self, lagged: list[Lagged]) -> Iterator[Lagged]:
        try:
            while lagged:
                yield from lagged
                lagged = self._hub.take_lagged(FEW_AT_ONCE)
        finally:  # also if it fails, so that the next flush can start it again
            self._is_ending_lagged = False

    def _end_lagged(self, lagged: Lagged) -> Close:
        self._outputs.counters.lagged += 1
        self._outputs.counters.missed += lagged.missed
        socket = cast("StreamSocket", lagged.subscriber.owner)
        self._remember(socket, lagged.missed, LAGGED)
        has_log = socket.stream is None or socket.stream.channel_id is not None
        reason = reasons.lagged(lagged.missed, lagged.resume_from if has_log else None)
        return Close(socket, CloseCode.POLICY_VIOLATION, reason, missed=lagged.missed)

    def count_missed(self, socket: StreamSocket, reason: str | None) -> None:
        """Count the events that a socket closed by a deadline has missed. `reason`: rejection reason of the metric."""
        subscriber = socket.subscriber
        if subscriber is None or not self._hub.is_open(subscriber.ring):
            return
        missed = self._hub.head(subscriber.ring) - subscriber.position
        if subscriber.state is SubscriberState.LIVE:
            self._outputs.counters.dropped += missed
        # `_end_lagged` has already recorded lagged subscribers.
        if missed and reason in SLOW_REASONS and subscriber.state is not SubscriberState.LAGGED:
            self._remember(socket, missed, str(reason))

    def _remember(self, socket: StreamSocket, missed: int, cause: str) -> None:
        stream = socket.stream
        if stream is not None:
            now = self._outputs.procedures.now
            reader = ClosedReader(now, stream.user_id, stream.address, stream.channel_id, missed, cause)
            self.closed_readers.add(reader)

    def close_streams(self, ended: CloseStreams) -> None:
        """Close the streams that `ended` matches."""

        def end(socket: StreamSocket) -> Close | None:
            if socket.stream is None or not ended.matches(socket.stream):
                return None
            return Close(socket, ended.code, ended.reason)

        self._outputs.add_each(self.sockets() if ended.user_id is None else self.sockets_of(ended.user_id), end)

    def keys_replaced(self, trusts: Callable[[bytes], bool]) -> None:
        """Close the streams whose token was signed by a key that is no longer in the key ring, with 4401."""
        self.changed()

        def end(socket: StreamSocket) -> Close | None:
            if socket.stream is None or trusts(socket.stream.verified_by):
                return None
            return Close(socket, CloseCode.TOKEN_ENDED, reasons.KEY_WITHDRAWN)

        self._outputs.add_each(self.sockets(), end)

    def log_went_back(self, channel_id: str) -> None:
        """End the channel's streams because its log was replaced. A client that returns with a later `since` gets a 400."""
        self.pages.drop_all()
        self._outputs.add_each(self._hub.close(channel_id), _end_restarted)

    def forget_channel(self, channel_id: str) -> None:
        """Remove a deleted channel and its watchers."""
        self.pages.drop_channel(channel_id)
        self.notifications.forget_channel(channel_id)

    def changed(self) -> None:
        """Count a possible change of rights. A stream that is being opened is checked again when it joins."""
        self.changes += 1

    # --- getters -------------------------------------------------------------------------------------

    def sockets(self) -> list[StreamSocket]:
        """Return every stream socket of this replica."""
        return [socket for sockets in self._sockets.values() for socket in sockets]

    def sockets_of(self, user_id: str) -> list[StreamSocket]:
        """Return the user's stream sockets, in the order of arrival."""
        return list(self._sockets.get(user_id, ()))


def _end_restarted(subscriber: Subscriber) -> Close:
    return Close(subscriber.owner, CloseCode.SERVICE_RESTART, reasons.LOG_WENT_BACK)
