"""A replica between the log and its sockets, as one state machine without I/O.

`Replica` is for a replica what `ServerConnection` is for a socket. The call contract: call an input with the time, then take the
actions until there are none and carry them out in order, and call `handle_deadline` at `next_deadline`:

    replica.committed(event, request_id, now=clock())
    while (action := replica.next_action()) is not None:
        ...                                  # a Query is answered later, with `answered` or `failed`
    wait_until = replica.next_deadline()

Inputs: `run` (with `start`), `follow`, `share_limits`, `committed`, `log_grew`, `channel_message`, `stored`, `announce`,
`broadcast_message`, `bus_state`, `bus_answered`, `catch_up`, `prepare`, `cancel`, `abandon`, `join`, `leave`, `next_pages`,
`replayed`, `flushed`, `keys_replaced`, `wall_clock`, `drain`, `answered`, `failed`, `handle_deadline`; for gateway sockets:
`gateway_at`. `now` is monotonic seconds and never goes back. `jitter` returns numbers in [0, 1). No input raises because of
another replica or the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import msgspec

from openguild_proto.bus.topics import Topic
from openguild_proto.fanout.hub import Hub
from openguild_proto.gateway.feeds import Feeds
from openguild_proto.hints import HINT_PROBE, HINT_START, AnyHint, PresenceStatus
from openguild_proto.http.message import OpenStream
from openguild_proto.policy.limit_sharing import PUBLISH_SECS, LimitSharing
from openguild_proto.procedures import Procedure, Sleep
from openguild_proto.records import ControlRecord, StoredEvent
from openguild_proto.replica.actions import (
    AnyAction,
    Broadcast,
    FlushFeed,
    Level,
    Prepared,
    Publish,
    StreamSocket,
)
from openguild_proto.replica.backlogs import Depths, GatewayTotals, depths
from openguild_proto.replica.channels import Channels
from openguild_proto.replica.controls import Controls
from openguild_proto.replica.draining import Draining
from openguild_proto.replica.epochs import Epochs
from openguild_proto.replica.gateway import Gateway
from openguild_proto.replica.hints import Hints
from openguild_proto.replica.notifications import Notifications
from openguild_proto.replica.outputs import Counters, Outputs
from openguild_proto.replica.pages import Pages, Pieces
from openguild_proto.replica.preparing import Preparing
from openguild_proto.replica.presence import Presence
from openguild_proto.replica.redactions import redacted_frame, redaction_in
from openguild_proto.replica.streams import Streams
from openguild_proto.replica.tail_checks import TailChecks
from openguild_proto.schemas.payloads import CONTROL_PROBE, decode_control, encode_control, event_frame_payload
from openguild_proto.sessions.tokens import TokenAuthority
from openguild_proto.settings.sections import PresenceSettings
from openguild_proto.ws.frames import text_frame

DEFAULT_PRESENCE = PresenceSettings()


class Replica:
    """The state machine of one replica. `replica_id` is unique; `tokens` is told of revoked sessions.

    `hub`, `feeds`: the rings, whose frames the caller sends when it carries out `Flush` and `FlushFeed`. `sharing`: of the
    message limits with the other replicas; None: there are no others.
    """

    def __init__(
        self,
        hub: Hub,
        feeds: Feeds,
        tokens: TokenAuthority,
        jitter: Callable[[], float],
        sharing: LimitSharing | None = None,
        *,
        replica_id: str,
        presence: PresenceSettings = DEFAULT_PRESENCE,
    ) -> None:
        self.hub = hub
        self._outputs = outputs = Outputs(hub)
        self._procedures = outputs.procedures
        self.epochs = Epochs(outputs, self._begin_anew, replica_id)
        self.channels = Channels(outputs, self.epochs, self)
        self.notifications = Notifications(hub, outputs, self.channels)
        self.presence = (
            Presence(outputs, self.notifications, feeds, replica_id, presence.max_guild_members)
            if presence.enabled
            else None
        )
        self.streams = Streams(hub, outputs, self.channels, self.notifications, Pages(outputs), self.presence)
        self.gateway = Gateway(feeds, outputs, self.channels, self.streams, self.presence, tokens)
        self.controls = Controls(outputs, self.epochs, self.channels, self.streams, self.gateway, tokens)
        self._sharing = sharing
        self._limits_delivered = True
        self._draining = Draining(outputs, jitter)
        self._jitter = jitter
        self._tail_checks = TailChecks(outputs, self.epochs, self.channels, self.controls, jitter)
        self._hints = Hints(outputs, self.notifications, self.presence, self.gateway)
        self._preparing = Preparing(outputs, self.streams)

    # --- the start -----------------------------------------------------------------------------------

    def start(self) -> Procedure[None]:
        """Read the epochs and the head of the control log. Call it through `run`. Raises StorageUnavailable; then retry."""
        yield from self.epochs.check()
        if not self.controls.follower.begun:
            yield from self.controls.start()

    def run(
        self, procedure: Procedure[Any], what: str, done: Callable[[Any, Exception | None], None], *, now: float
    ) -> None:
        """Run a procedure of this replica, such as `start`. Calls `done(result, error)` when it ends."""
        self._at(now)
        self._procedures.start(procedure, what, done)

    def follow(self, *, now: float) -> None:
        """Start the tail checks."""
        self._at(now)
        self._tail_checks.follow()

    def share_limits(self, *, now: float) -> None:
        """Start telling the other replicas what this one admits."""
        self._at(now)
        if self._sharing is not None:
            self._procedures.start(self._share_limits(self._sharing), "sharing limits")

    def _share_limits(self, sharing: LimitSharing) -> Procedure[None]:
        while True:
            connected, delivered = self._tail_checks.is_bus_up, self._limits_delivered
            payload = sharing.tick(self._procedures.now, connected=connected, heard=delivered)
            if payload is not None:
                self._outputs.add(Broadcast(Topic.LIMITS, payload))
            yield from Sleep(PUBLISH_SECS).wait()

    # --- events and messages -------------------------------------------------------------------------

    def committed(self, event: StoredEvent, request_id: str, *, now: float) -> None:
        """Send an event that this replica stored to its own subscribers and to the other replicas."""
        self._at(now)
        payload = event_frame_payload(event)
        if not self.channels.committed(event.log_id, event.sequence, payload):
            self._outputs.counters.undelivered += 1
        self._outputs.add(Publish(event.log_id, payload, request_id))

    def log_grew(self, event: StoredEvent, *, now: float) -> None:
        """Send an event of a guild's or user's log that this replica stored to its followers, here and elsewhere."""
        self._at(now)
        payload = event_frame_payload(event)
        self.channels.committed(event.log_id, event.sequence, payload)
        self._outputs.add(Publish(event.log_id, payload, ""))

    def channel_message(self, channel_id: str, payload: bytes, *, now: float) -> None:
        """Handle another replica's message about a channel: an event that it stored, or a hint."""
        self._at(now)
        if payload.startswith(HINT_START):
            self._hints.received(payload)
            return
        try:
            self.channels.received(channel_id, payload)
        except msgspec.DecodeError:
            self._outputs.log(Level.WARNING, "an event from another replica is malformed", channel_id=channel_id)

    def stored(self, record: ControlRecord, *, now: float) -> None:
        """Apply a change that this replica stored, and send its record to the others."""
        self._at(now)
        self._outputs.add(Broadcast(Topic.CONTROL, encode_control(record)))
        self.controls.offer(record)

    def announce(self, hint: AnyHint, *, now: float) -> None:
        """Send a hint of a local client to the users concerned on every replica. Best effort."""
        self._at(now)
        self._hints.announce(hint)

    def broadcast_message(self, topic: Topic, payload: bytes, *, now: float) -> None:
        """Handle another replica's message to all replicas."""
        self._at(now)
        try:
            match topic:
                case Topic.CONTROL:
                    self.controls.offer(decode_control(payload))
                case Topic.LIMITS if self._sharing is not None:
                    self._sharing.received(payload, now)
                case Topic.HINTS:
                    self._hints.received(payload)
        except msgspec.DecodeError:
            self._outputs.log(Level.WARNING, f"a {topic.value} message from another replica is malformed")

    def bus_state(self, connected: bool, *, limits_delivered: bool = True, now: float) -> None:
        """Set whether the bus is connected and delivers the messages about limits. Lost events are read after a reconnect."""
        self._at(now)
        self._limits_delivered = limits_delivered
        self._tail_checks.bus_state(connected)
        if self.presence is not None:
            self.presence.bus_state(connected)

    def bus_answered(self, *, now: float) -> None:
        """Record that the bus has accepted everything published before."""
        if self._sharing is not None:
            self._sharing.answered(now)

    def catch_up(self, *, now: float) -> None:
        """Check every tail now, or `CATCH_UP_SECS` after the last such check. Checks never overlap."""
        self._at(now)
        self._tail_checks.catch_up()

    # --- streams -------------------------------------------------------------------------------------

    @property
    def changes(self) -> int:
        """The count of events that may have changed a right. Pass `join` the count from before the access check."""
        return self.streams.changes

    def prepare(self, stream: OpenStream, *, now: float) -> int:
        """Prepare a stream whose access was checked. Return a ticket; a `Prepared` follows unless `cancel` is called first."""
        self._at(now)
        return self._preparing.begin(stream)

    def cancel(self, ticket: int, *, now: float) -> None:
        """Cancel this ticket and release everything held for it. Only before its `Prepared` is taken."""
        self._at(now)
        self._preparing.cancel(ticket)

    def abandon(self, stream: OpenStream, *, now: float) -> None:
        """Release a prepared stream that is not joined."""
        self._at(now)
        self.streams.abandon(stream)

    def join(
        self, socket: StreamSocket, stream: OpenStream, *, handle: int, changes: int, wall: float, now: float
    ) -> None:
        """Subscribe a socket whose upgrade was accepted. `handle`: its file descriptor. `wall`: UTC seconds.

        `changes`: the count when its access was checked. If it has changed since, the access is checked again.
        """
        self._at(now)
        self.streams.join(socket, stream, handle=handle, wall=wall)
        if changes != self.streams.changes:
            self.controls.recheck_joined(socket, changes)

    def leave(self, socket: StreamSocket, *, now: float) -> None:
        """Remove a closing socket. Idempotent."""
        self._at(now)
        self.streams.leave(socket)

    def next_pages(self, socket: StreamSocket, *, now: float) -> Pieces | None:
        """Return frames from the log for a socket with a `Replay` action.

        Empty: it is live, or ends. None: wait for its next `Replay`.
        """
        self._at(now)
        return self.streams.next_pages(socket)

    def replayed(self, socket: StreamSocket, upto: int) -> bool:
        """Record that the socket has the events up to `upto`. Return False if it must get no more."""
        return self.streams.replayed(socket, upto)

    def flushed(self, *, now: float) -> None:
        """Close readers that the rings have overrun, after rings were flushed."""
        self._at(now)
        self.streams.end_lagged()

    def keys_replaced(self, trusts: Callable[[bytes], bool], *, now: float) -> None:
        """Close the streams whose token was signed by a key that is no longer in the key ring."""
        self._at(now)
        self.streams.keys_replaced(trusts)
        self.gateway.keys_replaced()

    def wall_clock(self, wall: float, *, now: float) -> None:
        """Check the wall clock, in UTC seconds; call it about once a second. If it was set, all deadlines of streams change."""
        self._at(now)
        if self.streams.wall_clock(wall):
            self.gateway.clock_moved(wall)

    def drain(self, window_secs: float, *, now: float) -> None:
        """Disconnect every stream in waves over half of the window, and tell each when to reconnect."""
        self._at(now)
        self._draining.begin(self.streams.sockets(), window_secs)
        self.gateway.drain(window_secs, self._jitter)

    # --- answers and time ----------------------------------------------------------------------------

    def answered(self, number: int, result: Any, *, now: float) -> None:
        """Handle the result of this query's effect."""
        self._at(now)
        self._procedures.answered(number, result)

    def failed(self, number: int, error: Exception, *, now: float) -> None:
        """Handle the exception of this query's effect: StorageUnavailable is expected, any other is a defect."""
        self._at(now)
        self._procedures.failed(number, error)

    def next_deadline(self) -> float | None:
        """Return when `handle_deadline` is due, in monotonic seconds, or None."""
        return self._procedures.next_deadline()

    def handle_deadline(self, *, now: float) -> None:
        """Do what is due at `now`. Early calls do nothing."""
        self._procedures.handle_deadline(now)

    def next_action(self, *, works: bool = True) -> AnyAction | None:
        """Return the next action, or None. `works`: include works on many sockets, which can wait."""
        while isinstance(action := self._outputs.next_action(works=works), Prepared):
            if self._preparing.is_wanted(action):
                break
        if isinstance(action, FlushFeed):
            self.gateway.taken(action)
        return action

    @property
    def is_pressed(self) -> bool:
        """Whether so many works are queued that they must be carried out now, to bound the queue."""
        return self._outputs.is_pressed

    @property
    def counters(self) -> Counters:
        """Totals since the start."""
        return self._outputs.counters

    def probe(self, topic: Topic) -> bytes:
        """Return a message without effect, to test whether the bus permits the topic; b"" if the topic is not used."""
        match topic:
            case Topic.CONTROL:
                return CONTROL_PROBE
            case Topic.LIMITS:
                return b"" if self._sharing is None else self._sharing.probe()
            case Topic.HINTS:
                return HINT_PROBE

    def presence_of(self, user_ids: Iterable[str], reader_id: str = "") -> dict[str, PresenceStatus]:
        """Return the statuses of those users who are not offline; empty if presence is not shown."""
        return {} if self.presence is None else self.presence.status_of(user_ids, reader_id)

    @property
    def limit_divisor(self) -> int:
        """The number by which shared limits are divided now."""
        return 1 if self._sharing is None else self._sharing.divisor

    def depths(self) -> Depths:
        """Return the backlogs of channels and notification streams."""
        return depths(self.hub, self.gateway.feeds)

    def gateway_totals(self) -> GatewayTotals:
        """Return totals of the gateway's sockets and subscriptions."""
        feeds = self.gateway.feeds
        return GatewayTotals(len(self.gateway.sockets()), feeds.followed, feeds.read_from_log)

    def gateway_at(self, now: float) -> Gateway:
        """Return the gateway, for inputs at this time."""
        self._at(now)
        return self.gateway

    def _at(self, now: float) -> None:
        self._procedures.now = now

    # --- the feeds' handler --------------------------------------------------------------------------

    def release(self, channel_id: str, sequence: int, payload: bytes) -> None:
        """Send the next event of a channel to its ring, to gateway sockets and to notification streams."""
        redaction = redaction_in(payload)
        if redaction is not None:
            self.hub.rewrite(channel_id, partial(redacted_frame, redaction=redaction))
            self.streams.pages.drop_channel(channel_id)
            self.notifications.redacted(channel_id, redaction)
            self.gateway.redacted(channel_id, redaction)
        reached = self.gateway.released(channel_id, sequence, payload)
        if self.hub.is_open(channel_id):
            flush = self._outputs.publish(channel_id, text_frame(payload), sequence)
            if flush is not None:
                self._outputs.add(flush)
            reached = True
        reached = self.notifications.released(channel_id, payload) or reached
        if reached:
            self._outputs.counters.delivered += 1
        else:
            self._outputs.counters.undelivered += 1

    def restarted(self, channel_id: str) -> None:
        """Close the streams of a channel whose log was replaced."""
        self.streams.log_went_back(channel_id)
        self.gateway.log_ended(channel_id, "restarted")

    def unfollowed(self, channel_id: str) -> None:
        """Drop the channel's cached pages: they could contain what is redacted later, unnoticed here."""
        self.streams.pages.drop_channel(channel_id)

    def has_room(self, channel_id: str) -> bool:
        """Return whether the channel's readers can accept more events now."""
        return self.hub.has_room(channel_id) and self.gateway.has_room(channel_id)

    def _begin_anew(self) -> Procedure[None]:
        """Restart all logs with new epochs. Counts a change first, so that streams that are joining are checked again."""
        self.streams.changed()
        self.streams.pages.drop_all()
        yield from self.channels.restart_all()
        yield from self.controls.begin_anew()
