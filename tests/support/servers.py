"""Servers that send each other requests in memory: each is a `World` with keys, joined by a network that a test can distort."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from openguild_proto.canonical.keys import EventSigner
from openguild_proto.canonical.signing import SigningKey
from openguild_proto.effects import Effect, Operation
from openguild_proto.effects.federation import (
    AskPeer,
    Discover,
    Exchange,
    Exchanged,
    Fetch,
    Fetched,
    PeerAnswer,
    PeerUnavailable,
    RecordOwnKey,
)
from openguild_proto.federation.asking import ask_peer
from openguild_proto.federation.discovery import discover
from openguild_proto.federation.keys import OVERLAP_MS
from openguild_proto.federation.policy import FederationPolicy, Mode
from openguild_proto.federation.signatures import sign_request
from openguild_proto.http.message import Headers, Request, Response
from openguild_proto.operations.context import Settings
from tests.support.world import World, decoded

PING = "/federation/v1/ping"


class Network:
    """authority -> server. `bend` may change a request; None: it is lost."""

    def __init__(self) -> None:
        self.servers: dict[str, ServerWorld] = {}
        self.bend: Callable[[Request], Request | None] = lambda request: request
        self.bend_answer: Callable[[Response], Response] = lambda answer: answer
        self.fetched: list[str] = []
        self.last: ServerWorld | None = None  # the server that answered last

    def send(self, server: str, authority: str, request: Request) -> Response:
        bent = self.bend(request)
        if bent is None or authority not in self.servers:
            raise PeerUnavailable(server, "connect")
        answer = self.servers[authority].run(bent)
        self.last = self.servers[authority]
        assert isinstance(answer, Response)
        return self.bend_answer(answer)


class ServerWorld(World):
    """A server with a name and a key on a network."""

    def __init__(self, network: Network, name: str, *, mode: Mode = Mode.OPEN, **policy: Any) -> None:
        self.policy = FederationPolicy(mode=mode, server_name=name, **policy)
        super().__init__(Settings(server_name=name, federation=self.policy))
        self.network = network
        self.name = name
        network.servers[name] = self
        self.use_key("1", SigningKey(name.encode().ljust(32)[:32]))

    def use_key(self, key_id: str, key: SigningKey) -> None:
        """Sign with this key from now on; the earlier one vouches for it."""
        if self.service.signer is not None:
            self.service.retired_signers = (self.service.signer,)
        self.service.signer = EventSigner(self.name, key_id, key)
        self.record_key()

    def record_key(self) -> None:
        """Record the key, as the runtime does each hour."""
        signer = self.service.signer
        assert signer is not None
        not_after = self.wall_ms + OVERLAP_MS
        self.tables.perform(
            RecordOwnKey(key_id=signer.key_id, public_key=signer.public, now_ms=self.wall_ms, not_after=not_after)
        )

    def change_policy(self, **changes: Any) -> None:
        self.policy = msgspec.structs.replace(self.policy, **changes)
        self.service.settings = msgspec.structs.replace(self.service.settings, federation=self.policy)

    def perform(self, effect: Effect[Any]) -> Any:
        now = self.wall_ms / 1_000
        match effect:
            case Discover():
                return self.drive(discover(effect.server, self.policy, self.wall_ms))
            case AskPeer():
                return self.drive(ask_peer(effect, self.policy, self.service.peers, now, self.wall_ms))
            case Fetch():
                self.network.fetched.append(f"{effect.base_url}{effect.target}")
                sent = Request(method="GET", path=effect.target, query="", headers=(("host", effect.authority),))
                answer = self.network.send(effect.server, effect.authority, sent)
                return Fetched(answer.status, dict(answer.headers).get("location"), answer.body)
            case Exchange():
                sent, signature = self.signed(effect.method, effect.target, effect.body, authority=effect.authority)
                answer = self.network.send(effect.server, effect.authority, sent)
                return Exchanged(answer.status, answer.headers, answer.body, signature)
            case _:
                return super().perform(effect)

    def drive(self, operation: Operation[Any]) -> Any:
        try:
            effect = next(operation)
            while True:
                try:
                    result = self.perform(effect)
                except PeerUnavailable as failure:
                    effect = operation.throw(failure)
                else:
                    effect = operation.send(result)
        except StopIteration as end:
            return end.value

    def signed(
        self, method: str, target: str, body: bytes = b"", *, authority: str, created: int | None = None, nonce: str | None = None
    ) -> tuple[Request, bytes]:  # fmt: skip
        """Return a request signed by this server, and its signature."""
        assert self.service.signer is not None
        headers, signature = sign_request(
            method, target, authority, body, signer=self.service.signer,
            created=self.wall_ms // 1_000 if created is None else created,
            nonce=nonce or self._bytes(16).hex(),
        )  # fmt: skip
        path, _, query = target.partition("?")
        more: Headers = (("host", authority), *((("content-type", "application/json"),) if body else ()))
        return Request(
            method=method, path=path, query=query, headers=(*more, *headers), body=body, client_address="192.0.2.7"
        ), signature  # fmt: skip

    def ask_server(self, server: str, method: str, target: str, body: bytes = b"") -> PeerAnswer:
        """Send a request to another server. Raises PeerUnavailable."""
        answer = self.perform(AskPeer(server=server, method=method, target=target, body=body))
        assert isinstance(answer, PeerAnswer)
        return answer


def failure(world: ServerWorld, server: str = "b.example", target: str = PING) -> str:
    with pytest.raises(PeerUnavailable) as unavailable:
        world.ask_server(server, "GET", target)
    return unavailable.value.reason


def refusal(world: ServerWorld, request: Request) -> tuple[int, str, str | None]:
    """Return the status, code and signature fault of the answer."""
    answer = world.run(request)
    assert isinstance(answer, Response)
    body = decoded(answer)
    return answer.status, body["error"], body["details"][0]["message"] if "details" in body else None
