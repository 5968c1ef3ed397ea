"""Operations without an event loop: a service, memory tables, a clock that tests set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from openguild_proto.canonical.keys import KeyRing
from openguild_proto.canonical.signing import SigningKey
from openguild_proto.effects import Effect, StorageEffect
from openguild_proto.effects.handovers import AbsorbHistory, StartAbsorbing
from openguild_proto.effects.process import (
    Announce,
    CheckReadiness,
    FindPresence,
    HashPassword,
    LetOthersRun,
    Readiness,
    RenderMetrics,
    VerifyPassword,
    WarnOperator,
)
from openguild_proto.hints import AnyHint, PresenceStatus
from openguild_proto.http.message import OpenGateway, OpenStream, Request, Response
from openguild_proto.memory import MemoryTables
from openguild_proto.operations.context import Context, Service, Settings, rates
from openguild_proto.operations.dispatch import dispatch
from openguild_proto.operations.router import BadParameter, Matched
from openguild_proto.operations.routes import match
from openguild_proto.policy.quotas import StreamLimiter
from openguild_proto.sessions.tokens import TokenAuthority

START_MS = 1_700_000_000_000
PASSWORD = "correct horse"


class World:
    """One server's core over memory tables. `ask` runs one request to its end."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.tables = MemoryTables()
        self.wall_ms = START_MS
        self.announced: list[AnyHint] = []
        self.present: dict[str, PresenceStatus] = {}
        self.warned: list[WarnOperator] = []
        self._entropy = 0
        self.service = Service.create(settings or Settings(), TokenAuthority(KeyRing(SigningKey(bytes(32)))))
        for name in rates(self.service.settings):  # high limits, so that a test meets only the limit that it sets
            counter = type(getattr(self.service, name))
            setattr(self.service, name, counter(1_000_000 if name in {"user_writes", "user_queries"} else 1_000, 60))
        self.service.sockets = StreamLimiter(100, 10, 50)

    def context(self) -> Context:
        return Context(now=self.wall_ms / 1000, wall_ms=self.wall_ms, entropy=self._bytes, service=self.service)

    def _bytes(self, count: int) -> bytes:
        self._entropy += 1
        return self._entropy.to_bytes(count, "big")

    def perform(self, effect: Effect[Any]) -> Any:
        match effect:
            case StorageEffect():
                return self.tables.perform(effect)
            case HashPassword(password=password):
                return f"hashed {password}"
            case VerifyPassword(password_hash=password_hash, password=password):
                return password_hash == f"hashed {password}"
            case CheckReadiness():
                return Readiness("ready", 0, ())
            case RenderMetrics():
                return b"metrics"
            case Announce(hint=hint):
                self.announced.append(hint)
                return None
            case FindPresence(user_ids=user_ids):
                return {user_id: self.present[user_id] for user_id in user_ids if user_id in self.present}
            case StartAbsorbing():
                return self.tables.perform(AbsorbHistory(effect.owner, effect.log_id))
            case LetOthersRun():
                return None
            case WarnOperator():
                self.warned.append(effect)
                return None
            case _:
                raise TypeError(type(effect).__name__)

    def run(
        self,
        request: Request,
        before: Callable[[int, Effect[Any]], None] = lambda place, effect: None,
        after: Callable[[int, Effect[Any]], None] = lambda place, effect: None,
    ) -> Response | OpenStream | OpenGateway:
        """Run an operation. `before` and `after` see each effect; an exception that they raise is thrown into the operation."""
        operation = dispatch(self.context(), request)
        place = 0
        try:
            effect = next(operation)
            while True:
                try:
                    before(place, effect)
                    result = self.perform(effect)
                    after(place, effect)
                except Exception as failure:
                    effect = operation.throw(failure)
                else:
                    effect = operation.send(result)
                place += 1
        except StopIteration as end:
            answer: Response | OpenStream | OpenGateway = end.value
            check_described(request, answer)
            return answer

    def ask(self, method: str, path: str, body: Any = None, token: str | None = None, **hooks: Any) -> Response:
        answer = self.run(request(method, path, body, token), **hooks)
        assert isinstance(answer, Response)
        return answer

    def user(self, name: str) -> str:
        """Register and log in; return the access token."""
        assert self.ask("POST", "/users/register", {"username": name, "password": PASSWORD}).status == 201
        answer = self.ask(
            "POST", "/sessions/login", {"identifier": name, "secret": PASSWORD, "device": {"device_id": "d"}}
        )
        return str(decoded(answer)["access_token"])


def check_described(request: Request, answer: Response | OpenStream | OpenGateway) -> None:
    """Check that the route declares the answer's status and code."""
    matched = match(request.method, request.path)
    if isinstance(answer, OpenStream | OpenGateway) or not isinstance(matched, Matched | BadParameter):
        return
    route = matched.route
    if request.method != "OPTIONS" and answer.status not in route.responses:
        named = {code.spec.code for code in route.error_codes} | {"payload_too_large"}
        assert decoded(answer)["error"] in named, (route.method, route.template)


def request(method: str, path: str, body: Any = None, token: str | None = None, *, upgrade: bool = False) -> Request:
    path, _, query = path.partition("?")
    headers: tuple[tuple[str, str], ...] = ()
    if token is not None:
        headers += (("authorization", f"Bearer {token}"),)
    if body is not None:
        headers += (("content-type", "application/json"),)
    if upgrade:
        headers += (("sec-websocket-protocol", "openguild.v1, openguild.v2"),)
    return Request(
        method=method, path=path, query=query, headers=headers, request_id="r", client_address="192.0.2.1",
        body=msgspec.json.encode(body) if body is not None else b"", is_upgrade=upgrade,
    )  # fmt: skip


def decoded(answer: Response) -> Any:
    return msgspec.json.decode(answer.body)
