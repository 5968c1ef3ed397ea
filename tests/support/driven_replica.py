"""A replica of the core, driven by hand without a loop, clock or sockets, on an in-memory store.

Time passes only in `sleep`. Effects are performed at once, unless their kind is held or fails. `elsewhere` is another replica on
the same store, whose messages this one receives when the test delivers them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from openguild_proto.bus.topics import Topic
from openguild_proto.canonical.keys import KeyRing
from openguild_proto.canonical.signing import SigningKey
from openguild_proto.effects import Effect, StorageEffect, StorageUnavailable
from openguild_proto.effects.replica import SubscribeChannels, UnsubscribeChannels
from openguild_proto.fanout.hub import Hub, Subscriber, SubscriberState
from openguild_proto.fanout.ring import Ring
from openguild_proto.gateway.feeds import Feeds
from openguild_proto.http.message import OpenStream
from openguild_proto.memory import MemoryTables
from openguild_proto.procedures import Procedure
from openguild_proto.records import ControlRecord, StoredEvent
from openguild_proto.replica.actions import (
    AnyAction,
    Broadcast,
    Close,
    Flush,
    Join,
    Log,
    Pass,
    Prepared,
    Publish,
    Query,
    Replay,
)
from openguild_proto.replica.replica import Replica
from openguild_proto.schemas.payloads import encode_control, event_frame_payload
from openguild_proto.sessions.tokens import TokenAuthority
from openguild_proto.settings.sections import PresenceSettings
from openguild_proto.ws.frames import FIN_PONG
from tests.support.elsewhere import Elsewhere

T = TypeVar("T")
SPAN_BYTES = 65_536


class Socket:
    """A client's end of a stream. While `stuck` its kernel accepts no bytes; while `away` it asks for no page of the log."""

    def __init__(self, *, away: bool = False) -> None:
        self.stream: OpenStream | None = None
        self.subscriber: Subscriber | None = None
        self.away = away
        self.stuck = False
        self.closed: Close | None = None
        self.frames: list[dict[str, Any]] = []
        self._data = b""

    @property
    def sequences(self) -> list[int]:
        """The sequences of the received events, in order of arrival."""
        return [frame["sequence"] for frame in self.frames if "sequence" in frame]

    def receive(self, data: bytes) -> None:
        """Decode the complete frames; keep an incomplete one."""
        self._data += data
        while len(self._data) > 1:
            size, begin = self._data[1], 2
            if size > 125:
                begin = 4 if size == 126 else 10
                size = int.from_bytes(self._data[2:begin], "big")
            if len(self._data) < begin + size:
                return
            if self._data[0] != FIN_PONG:
                self.frames.append(json.loads(self._data[begin : begin + size]))
            self._data = self._data[begin + size :]


class Held:
    """Effects of one kind that wait for `release` or `fail`. `early`: the store is read when asked, and not when released."""

    def __init__(self, driven: Driven, *, early: bool) -> None:
        self._driven = driven
        self._early = early
        self.queries: list[tuple[Query, Any]] = []

    def take(self, query: Query) -> None:
        """Hold a query."""
        self.queries.append((query, self._driven.result_of(query.effect) if self._early else None))

    def release(self, count: int | None = None) -> None:
        """Answer the first `count` queries, or all."""
        for _ in range(len(self.queries) if count is None else count):
            query, result = self.queries.pop(0)
            result = result if self._early else self._driven.result_of(query.effect)
            self._driven.replica.answered(query.number, result, now=self._driven.now)
        self._driven.perform_actions()

    def fail(self, error: Exception | None = None) -> None:
        """Fail all queries, with an outage by default."""
        while self.queries:
            query, _ = self.queries.pop(0)
            self._driven.replica.failed(query.number, error or StorageUnavailable(), now=self._driven.now)
        self._driven.perform_actions()


class Driven:
    """One replica. With `flushing` False, rings are flushed only by `flush`."""

    def __init__(
        self,
        tables: MemoryTables | None = None,
        *,
        capacity: int = 256,
        replay_window: int = 0,
        jitter: Callable[[], float] = lambda: 0.5,
        started: bool = True,
        replica_id: str = "here",
        presence: PresenceSettings = PresenceSettings(),  # noqa: B008 - frozen
    ) -> None:
        self.elsewhere = Elsewhere(tables if tables is not None else MemoryTables())
        self.keys = KeyRing(SigningKey(bytes(32)))
        self.tokens = TokenAuthority(self.keys)
        self.hub = Hub(capacity_events=capacity, ring_type=Ring)
        feeds = Feeds(Hub(capacity_events=capacity, ring_type=Ring))
        self.replica = Replica(self.hub, feeds, self.tokens, jitter, replica_id=replica_id, presence=presence)
        self.replay_window = replay_window
        self.now = 1_000.0
        self.wall = 0.0
        self.answers: dict[type[Effect[Any]], Callable[[Any], Any]] = {}  # replaces the store's results
        self.failing: dict[type[Effect[Any]], Exception] = {}
        self.asked: list[Effect[Any]] = []
        self.wire: set[str] = set()  # the subscribed channels
        self.databases: list[str] = []  # the databases whose replicas it has talked to, the current one last
        self.actions: list[AnyAction] = []  # all actions but queries, in the order they were carried out
        self.prepared: dict[int, Any] = {}  # ticket -> refusal
        self.flushing = True
        self._held: dict[type[Effect[Any]], Held] = {}
        self._dirty: dict[str, None] = {}
        self._is_carrying_out = False
        if started:
            self.run(self.replica.start())

    # --- inputs --------------------------------------------------------------------------------------

    def run(self, procedure: Procedure[Any]) -> list[Any]:
        """Run a procedure of the replica. Return a list, which gets [result, error] at its end."""
        ended: list[Any] = []
        self.replica.run(procedure, "the test's", lambda *end: ended.extend(end), now=self.now)
        self.perform_actions()
        return ended

    def sleep(self, secs: float) -> None:
        """Let time pass; deadlines run at their times."""
        until = self.now + secs
        while (due := self.replica.next_deadline()) is not None and due <= until:
            self.now = max(self.now, due)
            self.replica.handle_deadline(now=self.now)
            self.perform_actions()
        self.now = until

    def hold(self, kind: type[Effect[Any]], *, early: bool = False) -> Held:
        """Hold effects of this kind from now on. With `early` the store is read at once, and the answer comes late."""
        held = self._held[kind] = Held(self, early=early)
        return held

    def let_pass(self, kind: type[Effect[Any]]) -> None:
        """Release the held effects of this kind, and hold no more."""
        self._held.pop(kind).release()

    def deliver(self, event: StoredEvent) -> None:
        """Deliver an event of another replica."""
        self.replica.channel_message(event.log_id, event_frame_payload(event), now=self.now)
        self.perform_actions()

    def deliver_control(self, record: ControlRecord) -> None:
        """Deliver a control record of another replica."""
        self.replica.broadcast_message(Topic.CONTROL, encode_control(record), now=self.now)
        self.perform_actions()

    def commit(self, channel: str, text: str = "hi") -> StoredEvent:
        """Store an event through this replica."""
        event = self.elsewhere.append(channel, text)
        self.replica.committed(event, "request", now=self.now)
        self.perform_actions()
        return event

    def change(self, effect: StorageEffect[T]) -> T:
        """Store a change through this replica."""
        before = len(self.elsewhere.records)
        result = self.elsewhere.perform(effect)
        for record in self.elsewhere.records[before:]:
            self.replica.stored(record, now=self.now)
        self.perform_actions()
        return result

    # --- streams -------------------------------------------------------------------------------------

    def stream(self, user: str, channel: str | None = None, **members: Any) -> OpenStream:
        """Return a stream whose access has just been checked."""
        if channel is not None and "head" not in members:
            members["head"] = self.elsewhere.tables.heads([channel]).get(channel, 0)
        members.setdefault("expires_ms", 0)
        members.setdefault("session_id", "session")
        members.setdefault("replay_window", self.replay_window)
        members.setdefault("verified_by", self.keys.signing.public)
        return OpenStream(user_id=user, channel_id=channel, **members)

    def prepare(self, stream: OpenStream) -> int:
        """Prepare a stream and return the ticket; its outcome appears in `prepared`."""
        ticket = self.replica.prepare(stream, now=self.now)
        self.perform_actions()
        return ticket

    def cancel(self, ticket: int) -> None:
        """Cancel the stream of this ticket."""
        self.replica.cancel(ticket, now=self.now)
        self.perform_actions()

    def join(self, stream: OpenStream, socket: Socket | None = None, changes: int | None = None) -> Socket:
        """Join a prepared stream. `changes`: the count at the access check, the current one by default."""
        socket = socket or Socket()
        changes = self.replica.changes if changes is None else changes
        self.replica.join(socket, stream, handle=-1, changes=changes, wall=self.wall, now=self.now)
        self.perform_actions()
        return socket

    def open(self, user: str, channel: str | None = None, *, socket: Socket | None = None, **members: Any) -> Socket:
        """Prepare and join a stream."""
        stream = self.stream(user, channel, **members)
        ticket = self.prepare(stream)
        assert self.prepared[ticket] is None
        return self.join(stream, socket)

    def leave(self, socket: Socket) -> None:
        """Disconnect the client."""
        self.replica.leave(socket, now=self.now)
        self.perform_actions()

    # --- effects -------------------------------------------------------------------------------------

    def perform_actions(self) -> None:
        """Carry out actions until there are none and no deadline is due."""
        if self._is_carrying_out:
            return
        self._is_carrying_out = True
        try:
            while True:
                while (action := self.replica.next_action()) is not None:
                    self._do(action)
                due = self.replica.next_deadline()
                if due is None or due > self.now:
                    return
                self.replica.handle_deadline(now=self.now)
        finally:
            self._is_carrying_out = False

    def _do(self, action: AnyAction) -> None:
        if isinstance(action, Query):
            self._query(action)
            return
        if isinstance(action, Join):
            self.databases.append(action.database)
            return
        if not isinstance(action, Pass):
            self.actions.append(action)
        match action:
            case Flush(ring=ring):
                self._dirty[ring] = None
                if self.flushing:
                    self.flush()
            case Replay(socket=socket) if not socket.away:
                self.read_pages(socket)
            case Close(socket=socket) if socket.closed is None:
                socket.closed = action
                self.replica.leave(socket, now=self.now)
            case Prepared(ticket=ticket, refusal=refusal):
                self.prepared[ticket] = refusal

    def _query(self, query: Query) -> None:
        kind = type(query.effect)
        self.asked.append(query.effect)
        if kind in self._held:
            self._held[kind].take(query)
        elif kind in self.failing:
            self.replica.failed(query.number, self.failing[kind], now=self.now)
        else:
            self.replica.answered(query.number, self.result_of(query.effect), now=self.now)

    def result_of(self, effect: Effect[Any]) -> Any:
        """Perform an effect and return its result."""
        match effect:
            case _ if type(effect) in self.answers:
                return self.answers[type(effect)](effect)
            case SubscribeChannels(channel_ids=channel_ids):
                self.wire.update(channel_ids)
            case UnsubscribeChannels(channel_ids=channel_ids):
                self.wire.difference_update(channel_ids)
            case StorageEffect():
                return self.elsewhere.tables.perform(effect)
        return None

    def flush(self) -> None:
        """Flush every ring that has events, as far as its readers accept them."""
        dirty, self._dirty = self._dirty, {}
        for ring in dirty:
            if not self.hub.is_open(ring):
                continue
            while readers := self.hub.flush_plan(ring, 8):
                for reader in readers:
                    self._give(reader)
            self.hub.flushed(ring)
        self.replica.flushed(now=self.now)
        self.perform_actions()

    def _give(self, reader: Subscriber) -> None:
        socket = reader.owner
        assert isinstance(socket, Socket)
        if socket.stuck:
            reader.parked = True
            return
        span = self.hub.take(reader, SPAN_BYTES)
        socket.receive(span)
        assert self.hub.sent(reader, len(span)) == b""

    def read_pages(self, socket: Socket) -> None:
        """Read pages of the log for a socket until it is live, ends, or must wait."""
        while socket.subscriber is not None and socket.subscriber.state is SubscriberState.REPLAYING:
            pieces = self.replica.next_pages(socket, now=self.now)
            if not pieces:
                self.perform_actions()
                return
            for last, piece in pieces:
                socket.receive(piece)
                if not self.replica.replayed(socket, last):
                    break
        if socket.subscriber is not None and socket.subscriber.state is SubscriberState.LIVE:
            self._dirty[socket.subscriber.ring] = None
            self.flush()
        self.perform_actions()

    # --- outcomes ------------------------------------------------------------------------------------

    def taken(self, kind: type[T]) -> list[T]:
        """Return the actions of this kind since the last call."""
        taken = [action for action in self.actions if isinstance(action, kind)]
        self.actions = [action for action in self.actions if not isinstance(action, kind)]
        return taken

    @property
    def published(self) -> list[bytes]:
        """Return the payloads of events published for the other replicas."""
        return [action.payload for action in self.actions if isinstance(action, Publish)]

    @property
    def controls_published(self) -> list[bytes]:
        """Return the control messages published for the other replicas."""
        return self.broadcasts(Topic.CONTROL)

    def broadcasts(self, topic: Topic) -> list[bytes]:
        """Return the messages of a topic published for the other replicas."""
        return [action.payload for action in self.actions if isinstance(action, Broadcast) and action.topic is topic]

    @property
    def lines(self) -> list[str]:
        """Return the log lines."""
        return [action.message for action in self.actions if isinstance(action, Log)]

    @property
    def defects(self) -> list[Log]:
        """Return the log lines with a traceback."""
        return [action for action in self.actions if isinstance(action, Log) and action.failure is not None]

    def count(self, kind: type[Effect[Any]]) -> int:
        """Return how often the store was asked for this kind of effect."""
        return sum(isinstance(effect, kind) for effect in self.asked)

    def leftovers(self) -> dict[str, Any]:
        """Return the state that is kept for streams; empty when no stream is left."""
        replica, watchers, pages = self.replica, self.replica.notifications.watchers, self.replica.streams.pages
        kept = {
            "feeds": replica.channels._feeds,
            "watchers": watchers.users(),
            "retained": watchers._sockets,
            "wire": self.wire,
            "tickets": replica._preparing.tickets,
            "refreshes": replica.notifications._refreshing,
            "sockets": replica.streams.sockets(),
            "rings": self.hub._rings,
            "unreadable": pages._unreadable,
            "waiting": pages._waiting,
        }
        return {name: what for name, what in kept.items() if what}
