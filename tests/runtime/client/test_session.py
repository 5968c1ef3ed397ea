"""Tokens and retries of one client against scripted responses, with manual clocks."""

from __future__ import annotations

import inspect
import time
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

import anyio
import msgspec
import pytest
from anyio.abc import ByteStream

from openguild_proto import Response, ServerConnection
from openguild_proto.canonical.keys import KeyRing
from openguild_proto.canonical.signing import SigningKey
from openguild_proto.http.message import Request
from openguild_proto.sessions.tokens import Claims, TokenAuthority
from openguild_runtime.client import ApiError, Client, OutcomeUnknown, Session
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy
from tests.support.scripted import Scripted, scripted
from tests.support.waiting import free_port

pytestmark = pytest.mark.anyio

LIFE_SECS = 600


class Tokens:
    """Issues pairs and knows the newest; `refreshes` counts, `refusals` are answered first."""

    def __init__(self) -> None:
        self._authority = TokenAuthority(KeyRing(SigningKey(bytes(32))))
        self.current = ""
        self.refreshes = 0
        self.refusals: list[Response] = []

    def answer(self, request: Request) -> Response:
        if request.path in {"/sessions/login", "/sessions/refresh"}:
            self.refreshes += request.path == "/sessions/refresh"
            return self.refusals.pop() if self.refusals else Response.json(self.pair())
        if request.header("authorization") != f"Bearer {self.current}":
            return Response.json({"error": "unauthorized", "message": "m"}, status=401)
        return Response.json({"sequence": 1, "event_id": "e", "created_at": "t"})

    def pair(self) -> dict[str, str]:
        issued = datetime.now(UTC) + timedelta(microseconds=self.refreshes)  # so that no two tokens are the same
        expires = issued + timedelta(seconds=LIFE_SECS)
        micros = [int(moment.timestamp() * 1_000_000) for moment in (issued, expires)]
        self.current = self._authority.issue(Claims("s", "u", "name", *micros))
        return {
            "access_token": self.current, "access_expires_at": expires.isoformat(), "refresh_token": "r",
            "refresh_expires_at": expires.isoformat(),
        }  # fmt: skip


class Hanging(Scripted):
    """Ends the connection where there is no answer."""

    async def _feed(self, conn: ServerConnection, stream: ByteStream, data: bytes) -> None:
        count = len(self.requests)
        await super()._feed(conn, stream, data)
        if len(self.requests) > count and conn.awaits_response:
            await stream.aclose()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def sources(self, *, ahead_secs: float = 0.0) -> ClocksAndEntropy:
        return ClocksAndEntropy(monotonic=lambda: self.now, wall=lambda: time.time() + ahead_secs)


@pytest.mark.parametrize("ahead_secs", [0, 86_400, -86_400])
async def test_the_machines_wall_clock_is_not_used(ahead_secs: float) -> None:
    tokens, clock = Tokens(), Clock()
    async with (
        scripted(tokens.answer) as server,
        Client(server.url, sources=clock.sources(ahead_secs=ahead_secs)) as client,
    ):
        await client.login("name", "secret")
        for _ in range(3):
            await client.request("GET", "/users/me")
        assert tokens.refreshes == 0
        clock.now = LIFE_SECS - 59
        for _ in range(3):
            await client.request("GET", "/users/me")
        assert tokens.refreshes == 1, "a minute ahead of the end, once"


async def test_concurrent_requests_share_one_refresh() -> None:
    tokens, clock = Tokens(), Clock()
    async with scripted(tokens.answer) as server, Client(server.url, sources=clock.sources()) as client:
        await client.login("name", "secret")
        clock.now = LIFE_SECS
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(client.request, "GET", "/users/me")
        assert tokens.refreshes == 1


async def test_a_stored_pair_is_refreshed_after_a_401() -> None:
    tokens = Tokens()
    async with scripted(tokens.answer) as server, Client(server.url, session=Session("old", "r")) as client:
        await client.request("GET", "/users/me")
        assert tokens.refreshes == 1
        tokens.current = "revoked"
        tokens.refusals = [Response.json({"error": "invalid_refresh_token", "message": "m"}, status=401)]
        with pytest.raises(ApiError) as refused:
            await client.request("GET", "/users/me")
        assert (refused.value.status, refused.value.code) == (401, "invalid_refresh_token")
        client.session = None
        with pytest.raises(RuntimeError, match="log in"):
            await client.request("GET", "/users/me")


async def test_a_post_keeps_its_nonce_and_others_are_sent_once() -> None:
    answers = [Response.json({"sequence": 7, "event_id": "e", "created_at": "t"}), Response.text("", status=503)]
    retried: list[str] = []

    def answer(request: Request) -> Response:
        return answers.pop() if request.path == "/channels/c/messages" else Response.text("", status=503)

    async with (
        scripted(answer) as server,
        Client(server.url, session=Session("t", "r"), jitter=lambda: 0.0, on_retry=retried.append) as client,
    ):
        assert (await client.post("c", "text")).sequence == 7
        nonces = [request.header("idempotency-key") for request in server.requests]
        assert len(nonces) == 2
        assert len(set(nonces)) == 1
        assert retried == ["HTTP 503"]
        with pytest.raises(ApiError) as refused:
            await client.register("name", "secret")
        assert refused.value.status == 503
        assert server.paths().count("/users/register") == 1


REFUSED = Response.json(
    {"error": "validation_error", "message": "m", "details": [{"field": "content", "message": "is bad"}]}, status=400
)


@pytest.mark.parametrize(
    ("answers", "stored"),
    [([503], None), ([None, 503], None), ([None, 400], None), ([503, 404], None), ([502, 429], None),
     ([400], False), ([429], False), ([429, 404], False), ([None, 503, 200], True)],
)  # fmt: skip
async def test_a_post_reports_what_is_known(answers: list[int | None], stored: bool | None) -> None:
    """None: the connection ends without a response. Only a refusal of every attempt means that nothing was stored."""
    left, now = list(answers), 1_000.0

    def answer(request: Request) -> Response | None:
        nonlocal now
        now += 0.05
        status = left.pop(0) if len(left) > 1 else left[0]
        if status == 200:
            return Response.json({"sequence": 7, "event_id": "e", "created_at": "t"})
        return Response.text("", status=status) if status is not None else None

    async with (
        scripted(answer, Hanging) as server,
        Client(
            server.url,
            retry_secs=0.2,
            session=Session("t", "r"),
            jitter=lambda: 0.1,
            sources=ClocksAndEntropy(monotonic=lambda: now),
        ) as client,
    ):
        if stored:
            assert (await client.post("c", "text", nonce="n")).sequence == 7
            return
        with pytest.raises(ApiError if stored is False else OutcomeUnknown) as end:
            await client.post("c", "text", nonce="n")
        if isinstance(end.value, OutcomeUnknown):
            assert end.value.nonce == "n"
        assert {request.header("idempotency-key") for request in server.requests} == {"n"}


@pytest.mark.parametrize("seen", [False, True], ids=["ended before", "ended under the post"])
async def test_an_ended_idle_connection_causes_no_delay(seen: bool) -> None:
    """The outcome is unknown only if the server may have received the request."""
    answers = [Response.text("", status=200), None, Response.text("", status=404)]
    if not seen:
        del answers[1]
    async with (
        scripted(lambda request: answers.pop(0), Hanging) as server,
        Client(server.url, retry_secs=0, session=Session("t", "r"), jitter=lambda: 0.5) as client,
    ):
        await client.send("GET", "/users/me", authorized=False)
        if not seen:
            await server.end_all()
        with pytest.raises(OutcomeUnknown if seen else ApiError, match="404"):
            await client.post("c", "text")
        assert not answers
        assert server.connections == 2


async def test_outcome_unknown_has_the_generated_nonce() -> None:
    async with (
        scripted(lambda request: Response.text("", status=503)) as server,
        Client(server.url, retry_secs=0, session=Session("t", "r"), jitter=lambda: 0.5) as client,
    ):
        with pytest.raises(OutcomeUnknown) as end:
            await client.post("c", "text")
        assert end.value.nonce == server.requests[0].header("idempotency-key")


async def test_an_error_names_the_field() -> None:
    async with scripted(lambda request: REFUSED) as server, Client(server.url, session=Session("t", "r")) as client:
        with pytest.raises(ApiError, match=r"^400 validation_error: m \(content is bad\)$"):
            await client.post("c", "text")


@pytest.mark.parametrize(("status", "kept"), [(503, True), (429, True), (401, False), (204, False)])
async def test_a_session_is_kept_until_the_server_has_ended_it(status: int, kept: bool) -> None:
    async with (
        scripted(lambda request: Response.empty(status)) as server,
        Client(server.url, retry_secs=0, session=Session("t", "r"), jitter=lambda: 0.5) as client,
    ):
        with nullcontext() if status == 204 else pytest.raises(ApiError):
            await client.logout()
        assert (client.session is not None) is kept
        assert msgspec.json.decode(server.requests[0].body) == {"refresh_token": "r"}
        assert len(server.requests) == 1
    async with Client(f"http://127.0.0.1:{free_port()}", retry_secs=0, session=Session("t", "r")) as client:
        with pytest.raises(OutcomeUnknown):
            await client.logout()
        assert client.session is not None


async def test_each_client_is_a_separate_device() -> None:
    tokens = Tokens()
    async with scripted(tokens.answer) as server, Client(server.url) as one, Client(server.url) as other:
        for client in (one, one, other):
            await client.login("name", "secret")
        await other.login("name", "secret", "laptop")
        async with Client(server.url, device_id="phone") as third:
            await third.login("name", "secret")
        devices = [msgspec.json.decode(request.body)["device"]["device_id"] for request in server.requests]
    assert devices == [one.device_id, one.device_id, other.device_id, "laptop", "phone"]
    assert len(set(devices)) == 4


async def test_a_stored_session_is_resumed() -> None:
    tokens, kept = Tokens(), [Session("none", "none").to_dict()]
    async with scripted(tokens.answer) as server:
        async with Client(server.url, on_session=lambda session: kept.append(session.to_dict())) as client:
            await client.login("name", "secret")
            await client.refresh(tokens.current)
        assert len(kept) == 3
        async with Client(
            server.url, session=Session.from_dict(msgspec.json.decode(msgspec.json.encode(kept[-1])))
        ) as client:
            await client.request("GET", "/users/me")
        assert tokens.refreshes == 1, "it needed no other"


async def test_an_unreachable_server_is_an_unknown_outcome() -> None:
    async with Client(f"http://127.0.0.1:{free_port()}", retry_secs=0, jitter=lambda: 0.5) as client:
        with pytest.raises(OutcomeUnknown):
            await client.request("GET", "/health", authorized=False)


def test_private_fields_are_not_arguments() -> None:
    assert not [name for name in inspect.signature(Client).parameters if name.startswith("_")]
