"""Several servers without an event loop. Requests between them pass through both cores, signatures included."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import msgspec

from openguild_proto.canonical.keys import EventSigner, KeyRing
from openguild_proto.canonical.signing import SigningKey
from openguild_proto.effects import Effect
from openguild_proto.effects.base import Operation
from openguild_proto.effects.federation import (
    AskPeer,
    Discover,
    Exchange,
    Exchanged,
    Fetch,
    Fetched,
    PeerUnavailable,
    RecordOwnKey,
)
from openguild_proto.effects.logs import FindLogHead, ReadLogs
from openguild_proto.effects.mirrors import MirrorEvents
from openguild_proto.federation.asking import ask_peer
from openguild_proto.federation.discovery import discover
from openguild_proto.federation.policy import FederationPolicy, Mode
from openguild_proto.federation.signatures import sign_request
from openguild_proto.http.message import Request, Response
from openguild_proto.memory import MemoryTables
from openguild_proto.operations.context import Service, Settings, rates
from openguild_proto.policy.quotas import StreamLimiter
from openguild_proto.policy.ratelimit import SlidingWindow
from openguild_proto.records import LogPart, StoredEvent
from openguild_proto.schemas.between_servers import DeliveredEvent, Delivery, DeliveryAnswer, LogDelivery
from openguild_proto.schemas.log_writer import LogWriter
from openguild_proto.sessions.tokens import TokenAuthority
from tests.support.world import START_MS, World, decoded

Handler = Callable[[Request, Callable[[], Response]], Response]  # the second argument passes the request on


class Homeserver(World):
    """One server of a `Federation`."""

    def __init__(self, name: str, federation: Federation) -> None:
        self.name = name
        self.federation = federation
        self.signer = EventSigner(name, "1", SigningKey(name.encode().ljust(32, b"k")))
        policy = FederationPolicy(mode=Mode.OPEN, server_name=name)
        super().__init__(Settings(server_name=name, federation=policy))
        self.service = Service.create(
            self.service.settings, TokenAuthority(KeyRing(SigningKey(bytes(32)))), signer=self.signer
        )
        for window in rates(self.service.settings):
            setattr(self.service, window, SlidingWindow(1_000_000, 60))
        self.service.sockets = StreamLimiter(100, 10, 50)
        self.tables = MemoryTables(LogWriter(name, self.signer))
        self._entropy = sum(name.encode()) << 40
        self.told: list[StoredEvent] = []  # events of mirrored channels, in order of arrival
        self.perform(
            RecordOwnKey(key_id="1", public_key=self.signer.public, now_ms=START_MS, not_after=START_MS + 10**12)
        )

    def perform(self, effect: Effect[Any]) -> Any:
        match effect:
            case AskPeer():
                policy, peers = self.service.settings.federation, self.service.peers
                return self.finish(ask_peer(effect, policy, peers, self.wall_ms / 1000, self.wall_ms))
            case Discover(server=server):
                return self.finish(discover(server, self.service.settings.federation, self.wall_ms))
            case Fetch():
                return self._fetch(effect)
            case Exchange():
                return self._exchange(effect)
            case MirrorEvents():
                outcome = super().perform(effect)
                self.told += outcome.events
                return outcome
        return super().perform(effect)

    def finish(self, operation: Operation[Any]) -> Any:
        try:
            effect = next(operation)
            while True:
                try:
                    result = self.perform(effect)
                except Exception as failure:
                    effect = operation.throw(failure)
                else:
                    effect = operation.send(result)
        except StopIteration as end:
            return end.value

    def _fetch(self, effect: Fetch) -> Fetched:
        answer = self.federation.carry(self, effect.server, Request("GET", effect.target, "", ()))
        return Fetched(answer.status, None, answer.body)

    def _exchange(self, effect: Exchange) -> Exchanged:
        headers, signature = sign_request(
            effect.method, effect.target, effect.authority, effect.body, signer=self.signer,
            created=self.wall_ms // 1000, nonce=self._bytes(16).hex(),
        )  # fmt: skip
        if effect.body:
            headers += (("content-type", "application/json"),)
        path, _, query = effect.target.partition("?")
        headers = (("host", effect.authority), *headers)
        sent = Request(effect.method, path, query, headers, effect.body, client_address=self.name)
        answer = self.federation.carry(self, effect.server, sent)
        return Exchanged(answer.status, answer.headers, answer.body, signature)

    def ask_for(self, token: str, method: str, path: str, body: Any = None) -> Any:
        """Send a request as a user, and return the decoded body of a successful answer."""
        answer = self.ask(method, path, body, token)
        assert answer.status < 300, answer.body
        return decoded(answer) if answer.body else None

    def deliver(self, peer: str) -> DeliveryAnswer:
        """Deliver all new events of mirrored logs to `peer`, in one request."""
        state = self.tables._state
        guild_of = {c: channel.record.guild_id for c, channel in state.channels.items()}
        followed = {guild for name, guild in state.peer_guilds if name == peer}
        logs = sorted({*followed, *(c for c, guild in guild_of.items() if guild in followed)})
        parts = []
        for log_id in sorted(logs, key=lambda log_id: log_id not in followed):
            cursor = state.peer_cursors.get((peer, log_id))
            place = self.perform(FindLogHead(log_id))
            is_renewed = cursor is not None and cursor.epoch != place.epoch
            after = place.sequence if is_renewed else cursor.sequence if cursor is not None else 0
            events = self.perform(ReadLogs((LogPart(log_id, after, 100),)))
            lines = [DeliveredEvent(event.wire.decode(), event.created_at_ms) for event in events]
            if lines or is_renewed:
                parts.append(LogDelivery(log_id, guild_of.get(log_id, log_id), place.epoch, after, lines))
        body = msgspec.json.encode(Delivery(parts))
        answer = self.perform(AskPeer(server=peer, method="POST", target="/federation/v1/deliveries", body=body))
        assert answer.status == 200, answer.body
        told = msgspec.json.decode(answer.body, type=DeliveryAnswer)
        for line in told.logs:
            if line.status == "ok":
                head = self.perform(FindLogHead(line.log_id))
                state.peer_cursors[peer, line.log_id] = type(head)(line.log_id, line.epoch, line.sequence)
        return told


class Federation:
    """Carries requests between servers. `cut`: pairs with a broken link. `lost`: methods and paths of requests to drop."""

    def __init__(self, *names: str) -> None:
        self.servers = {name: Homeserver(name, self) for name in names}
        self.cut: set[frozenset[str]] = set()
        self.lost: set[str] = set()
        self.carried: list[tuple[str, str, str]] = []  # sender, receiver, method and path
        self._handlers: list[Handler] = []  # the last one is asked first

    def __getitem__(self, name: str) -> Homeserver:
        return self.servers[name]

    @contextmanager
    def on_the_way(self, handler: Handler) -> Iterator[None]:
        """Let `handler` answer all requests between servers. In signed requests `client_address` is the sender's name."""
        self._handlers.append(handler)
        try:
            yield
        finally:
            self._handlers.pop()

    def carry(self, sender: Homeserver, server: str, request: Request) -> Response:
        carry_on: Callable[[], Response] = partial(self._deliver, sender, server, request)
        for handler in self._handlers:
            carry_on = partial(handler, request, carry_on)
        return carry_on()

    def _deliver(self, sender: Homeserver, server: str, request: Request) -> Response:
        if server not in self.servers or frozenset({sender.name, server}) in self.cut:
            raise PeerUnavailable(server, "connect")
        if f"{request.method} {request.path}" in self.lost:
            raise PeerUnavailable(server, "timeout")
        self.carried.append((sender.name, server, f"{request.method} {request.path}"))
        answer = self.servers[server].run(request)
        assert isinstance(answer, Response)
        return answer
