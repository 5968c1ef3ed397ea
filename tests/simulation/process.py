"""One process of a replica, from its start to its end: it carries out the actions of the core's replica."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from openguild_proto.bus.topics import Topic
from openguild_proto.effects import Effect, StorageEffect
from openguild_proto.effects.replica import SubscribeChannels, UnsubscribeChannels
from openguild_proto.fanout.hub import Hub, Subscriber
from openguild_proto.fanout.ring import Ring
from openguild_proto.gateway.feeds import Feeds
from openguild_proto.hints import AnyHint
from openguild_proto.http.message import OpenStream, Request
from openguild_proto.operations.context import Context, Service, Settings, rates
from openguild_proto.policy.quotas import StreamLimiter
from openguild_proto.policy.ratelimit import SlidingWindow
from openguild_proto.records import ControlRecord, StoredEvent
from openguild_proto.replica.actions import (
    AnyAction,
    Broadcast,
    Close,
    ExpireAt,
    Flush,
    FlushFeed,
    Join,
    Level,
    Log,
    Prepared,
    Publish,
    Query,
    Replay,
    Urgency,
)
from openguild_proto.replica.pages import Pieces
from openguild_proto.replica.replica import Replica
from openguild_proto.sessions.tokens import TokenAuthority
from openguild_proto.settings.sections import SessionSettings
from tests.simulation.bus import Link
from tests.simulation.calls import Call, Reply
from tests.simulation.clock import Clock
from tests.simulation.flush import Flusher
from tests.simulation.gateways import Gateways
from tests.simulation.keys import Keys
from tests.simulation.pipes import Pipe
from tests.simulation.sockets import StreamSocket
from tests.simulation.storage import Storage
from tests.support.world import START_MS

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster

TURN_SECS = 0.0003  # until the remaining actions are carried out
MANY = 1_000_000


def make_service(keys: Keys, token_secs: int) -> Service:
    """Return a service whose limits no run reaches."""
    settings = Settings(session=SessionSettings(access_ttl_secs=token_secs))
    service = Service.create(settings, TokenAuthority(keys))
    for name in rates(settings):
        setattr(service, name, SlidingWindow(MANY, 60))
    service.sockets = StreamLimiter(MANY, MANY, MANY)
    return service


class Process:
    """Gives inputs to the replica with the time, and carries out its actions after each one, a bounded number at once."""

    def __init__(self, cluster: Cluster, number: int, few: int) -> None:
        self.alive = self.listening = True
        self.serving = self.is_rolled = self.draining = False
        self.number = number
        self.clock: Clock = cluster.clock
        self.rng: Random = cluster.rng
        self.database = cluster.database
        self.send_bytes = cluster.send_bytes
        self.violation = cluster.violation
        self.service = make_service(cluster.keys, cluster.token_secs)
        self.hub = Hub(capacity_events=cluster.capacity, ring_type=Ring)
        name = f"{number} since {self.clock.now}"
        feeds = Feeds(Hub(capacity_events=cluster.capacity, ring_type=Ring))
        self.replica = Replica(self.hub, feeds, self.service.tokens, self.rng.random, replica_id=name)
        self.storage = Storage(self.clock, self.rng, self.database, self.stored)
        self.link = Link(cluster.bus, self)
        self.flusher = Flusher(self.clock, self.hub, self.send_bytes, self._flushed)
        self.sockets: dict[StreamSocket, None] = {}
        self.gateways = Gateways(self)
        self.calls: dict[Call, None] = {}
        self.queries: dict[int, Effect[Any]] = {}  # that are being performed
        self.lagged = self.missed = 0  # as the close reasons say
        self._cluster = cluster
        self._few = few  # actions carried out at once
        self._tickets: dict[int, Call] = {}
        self._is_busy = False
        self._turn_is_due = False
        self._armed: float | None = None
        cluster.plant(self)
        self._start()

    # --- lifetime ------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self.alive:
            self.replica.run(self.replica.start(), "the start of the replica", self._started, now=self.clock.now)
            self.perform_actions()

    def _started(self, _: object, error: Exception | None) -> None:
        if error is not None:
            self.clock.later(self.rng.uniform(0.1, 0.5), self._start)
        else:
            self.clock.later(0.0, self._serve)

    def _serve(self) -> None:
        if self.alive:
            self.serving = True
            self.replica.follow(now=self.clock.now)
            self.perform_actions()

    def kill(self) -> None:
        """Kill as with SIGKILL: nothing more is stored, sent or logged; queries on their way to the database may still arrive."""
        if self.alive:
            self.alive = self.listening = False
            self.storage.dead = self.flusher.dead = True
            self.link.end()
            for call in list(self.calls):
                call.cut()
            for socket in (*self.sockets, *self.gateways):
                socket.abort()

    def kill_at(self, number: int, moment: str, killed: Callable[[], None]) -> None:
        """Kill at the `number`th effect from now, `before` or `after` it is performed."""
        target = self.storage.effects + number

        def look(effect: int, when: str) -> None:
            if effect == target and when == moment and self.alive:
                self.kill()
                killed()

        self.storage.at_effect = look

    def cut(self, share: float) -> None:
        """Reset a random share of the clients' connections."""
        for call in list(self.calls):
            if self.rng.random() < share:
                call.cut()
        for socket in (*self.sockets, *self.gateways):
            if self.rng.random() < share:
                socket.abort()

    def drain(self, window_secs: float) -> None:
        """Refuse new requests, and send every stream to another replica."""
        self.listening = False
        self.draining = True
        self.replica.drain(window_secs, now=self.clock.now)
        self.perform_actions()

    @property
    def request_secs(self) -> float:
        """The timeout of a request."""
        return self._cluster.request_secs

    @property
    def control_failed_at(self) -> float:
        """When the control log was last unreadable."""
        return self.storage.failed_control_at

    # --- requests ------------------------------------------------------------------------------------

    def serve(self, request: Request, reply: Reply, pipe: Pipe | None) -> None:
        call = Call(self, request, reply, pipe)
        self.calls[call] = None
        call.go_on()

    def context(self) -> Context:
        now = self.clock.now
        return Context(now=now, wall_ms=START_MS + int(now * 1000), entropy=self.rng.randbytes, service=self.service)

    def delay(self) -> float:
        """Return the delay of an answer."""
        return 0.001 + 0.004 * self.rng.random()

    # --- inputs of the replica -----------------------------------------------------------------------

    def committed(self, event: StoredEvent) -> None:
        self.replica.committed(event, "r", now=self.clock.now)
        self.perform_actions()

    def stored(self, record: ControlRecord | StoredEvent) -> None:
        if isinstance(record, StoredEvent):
            self.replica.log_grew(record, now=self.clock.now)
        else:
            self.replica.stored(record, now=self.clock.now)
        self.perform_actions()

    def announce(self, hint: AnyHint) -> None:
        self.replica.announce(hint, now=self.clock.now)
        self.perform_actions()

    def delivered(self, channel_id: str | Topic, payload: bytes) -> None:
        if isinstance(channel_id, Topic):
            self.replica.broadcast_message(channel_id, payload, now=self.clock.now)
        else:
            self.replica.channel_message(channel_id, payload, now=self.clock.now)
        self.perform_actions()

    def bus_back(self) -> None:
        self.replica.catch_up(now=self.clock.now)
        self.perform_actions()

    def keys_replaced(self, keys: Keys) -> None:
        self.service.tokens.replace_keys(keys)
        self.replica.keys_replaced(self.service.tokens.trusts, now=self.clock.now)
        self.perform_actions()

    def _flushed(self) -> None:
        self.replica.flushed(now=self.clock.now)
        self.perform_actions()

    # --- streams -------------------------------------------------------------------------------------

    def prepare(self, stream: OpenStream, call: Call) -> int:
        ticket = self.replica.prepare(stream, now=self.clock.now)
        self._tickets[ticket] = call
        self.perform_actions()
        return ticket

    def cancel(self, ticket: int) -> None:
        del self._tickets[ticket]
        self.replica.cancel(ticket, now=self.clock.now)
        self.perform_actions()

    def abandon(self, stream: OpenStream) -> None:
        self.replica.abandon(stream, now=self.clock.now)
        self.perform_actions()

    def join(self, pipe: Pipe, stream: OpenStream, changes: int) -> StreamSocket:
        """Accept the upgrade; the stream ends when its token expires."""
        socket = StreamSocket(self, pipe, stream)
        pipe.accepted(socket, stream.headers)
        self.sockets[socket] = None
        self.subscribe(socket, stream, changes)
        self.perform_actions()
        return socket

    def subscribe(self, socket: StreamSocket, stream: OpenStream, changes: int) -> None:
        now = self.clock.now
        self.replica.join(socket, stream, handle=1, changes=changes, wall=START_MS / 1000 + now, now=now)

    def _expire(self, socket: StreamSocket, code: int, reason: str) -> None:
        if self.alive:
            socket.close(code, reason)

    def gone(self, socket: StreamSocket) -> None:
        stream = socket.stream
        self.sockets.pop(socket, None)
        if self.alive and stream is not None:
            self.replica.leave(socket, now=self.clock.now)
            self.service.sockets.release(stream.user_id, stream.address)
            self.perform_actions()

    def next_pages(self, socket: StreamSocket) -> Pieces | None:
        pieces = self.replica.next_pages(socket, now=self.clock.now)
        self.perform_actions()
        return pieces

    def replayed(self, socket: StreamSocket, upto: int) -> bool:
        return self.replica.replayed(socket, upto)

    def take(self, subscriber: Subscriber) -> bytes:
        return self.hub.take(subscriber, self.send_bytes)

    # --- actions -------------------------------------------------------------------------------------

    def perform_actions(self) -> None:
        """Carry out some actions now, and the rest in the next turn."""
        if self._is_busy or not self.alive:
            return
        self._is_busy = True
        left = self._few
        while self.alive and (left > 0 or self.replica.is_pressed):
            action = self.replica.next_action()
            if action is None:
                break
            left -= 1
            self._do(action)
        else:
            if not self._turn_is_due:
                self._turn_is_due = True
                self.clock.later(TURN_SECS, self._next_turn)
        self._is_busy = False
        self._arm()

    def _next_turn(self) -> None:
        self._turn_is_due = False
        self.perform_actions()

    def _do(self, action: AnyAction) -> None:
        match action:
            case Flush(ring=ring, urgency=urgency):
                self.flusher.flush(ring, urgency)
            case FlushFeed(key=key, urgency=urgency) if urgency is Urgency.NOW or urgency is Urgency.COMPLETELY:
                self.gateways.flush(key, urgency)
            case FlushFeed(key=key, urgency=urgency):
                self.clock.later(TURN_SECS, self.gateways.flush, key, urgency)
            case Publish(channel_id=channel_id, payload=payload):
                self.link.publish(channel_id, payload)
            case Broadcast(topic=topic, payload=payload):
                self.link.publish(topic, payload)
            case Join(database=database):
                self.link.join(database)
            case Query(number=number, effect=effect):
                self.queries[number] = effect
                self._perform(number, effect)
            case Close(socket=socket, code=code, reason=reason, missed=missed):
                self.lagged += missed is not None
                self.missed += missed or 0
                socket.close(code, reason)
            case ExpireAt(socket=socket, deadline=deadline, code=code, reason=reason):
                self.clock.later(max(0.0, deadline - self.clock.now), self._expire, socket, code, reason)
            case Replay(socket=socket):
                socket.park()
            case Prepared(ticket=ticket, refusal=refusal):
                self._tickets.pop(ticket).prepared(refusal)
            case Log(level=level, message=message, failure=failure):
                if level is Level.ERROR and (failure is not None or not self.database.restores):
                    self.violation(f"replica {self.number} logged: {message} {failure!r}")

    def _perform(self, number: int, effect: Effect[Any]) -> None:
        match effect:
            case SubscribeChannels(channel_ids=channel_ids):
                self.link.subscribe(channel_ids, lambda: self._performed(number, None, None))
            case UnsubscribeChannels(channel_ids=channel_ids):
                self.link.unsubscribe(channel_ids, lambda: self._performed(number, None, None))
            case StorageEffect():
                self.storage.submit(effect, lambda result, error: self._performed(number, result, error))
            case _:
                self.violation(f"the replica asks for {effect!r}")

    def _performed(self, number: int, result: Any, error: Exception | None) -> None:
        if not self.alive:
            return
        del self.queries[number]
        if error is None:
            self.replica.answered(number, result, now=self.clock.now)
        else:
            self.replica.failed(number, error, now=self.clock.now)
        self.perform_actions()

    def _arm(self) -> None:
        deadline = self.replica.next_deadline()
        if deadline is not None and (self._armed is None or deadline < self._armed):
            self._armed = deadline
            self.clock.at(max(deadline, self.clock.now), self._due, deadline)

    def _due(self, deadline: float) -> None:
        if self._armed != deadline or not self.alive:
            return  # an earlier deadline was set since, and has set the next one
        self._armed = None
        self.replica.bus_state(self.link.is_up, now=self.clock.now)
        self.replica.handle_deadline(now=self.clock.now)
        self.perform_actions()
