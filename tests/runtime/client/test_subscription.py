"""A stream across disconnects, expired tokens and outages during a refresh."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.abc import ByteStream

from openguild_proto import Response
from openguild_proto.client import Delivered, Disconnected, Opened, Session
from openguild_proto.http.message import Request
from openguild_proto.ws.close_codes import CloseCode
from openguild_runtime.client import Address, ApiError, Client, StreamEnded, Subscription
from openguild_runtime.client.subscription import QUIET_SECS
from openguild_runtime.client.transport import connect_tcp
from tests.support.clocks import Clocks
from tests.support.scripted import Scripted, scripted
from tests.support.waiting import eventually, free_port

pytestmark = pytest.mark.anyio

PAIR = {
    "access_token": "new", "access_expires_at": "2026-01-01T00:00:00Z", "refresh_token": "r2",
    "refresh_expires_at": "2026-01-01T00:00:00Z",
}  # fmt: skip


class Service:
    """Takes the token "new" alone; `refreshes` are the answers to come, last first, then a new pair."""

    def __init__(self, refreshes: list[Response] | None = None) -> None:
        self.refreshes = refreshes or []
        self.pages: list[Response] = []

    def answer(self, request: Request) -> Response | None:
        if request.path == "/sessions/refresh":
            return self.refreshes.pop() if self.refreshes else Response.json(PAIR)
        if request.header("authorization") != "Bearer new":
            return Response.json({"error": "unauthorized", "message": "m"}, status=401)
        return self.pages.pop() if request.path.endswith("/events") else None


@asynccontextmanager
async def subscribed(
    service: Service,
    session: Session,
    since: int | None = None,
    *,
    nobody: str | None = None,
    clocks: Clocks | None = None,
) -> AsyncIterator[tuple[Scripted, Subscription]]:
    """A client without retries and jitter: failed attempts and delays end at once.

    `nobody`: an address that is tried first.
    """
    async with scripted(service.answer) as server, Client(
        (nobody, server.url) if nobody is not None else server.url, retry_secs=-1, jitter=lambda: 0.0, session=session,
        sources=(clocks or Clocks()).sources,
    ) as client, client.subscribe("c", since) as events:  # fmt: skip
        with anyio.fail_after(20):
            yield server, events


STALE, GOOD = Session("old", "r", refresh_at=0.0), Session("new", "r")
OUTAGES = [Response.text("", status=status) for status in (500, 503, 429, 502)]


@pytest.mark.parametrize("session", [STALE, Session("old", "r")], ids=["stale", "refused"])
async def test_an_outage_during_a_refresh_does_not_end_a_stream(session: Session) -> None:
    async with subscribed(Service(list(OUTAGES)), session) as (server, events):
        seen = [await events.next_event()]
        while isinstance(seen[-1], Disconnected):
            seen.append(await events.next_event())
        assert isinstance(seen[-1], Opened)
        assert server.paths().count("/sessions/refresh") == len(OUTAGES) + 1
        assert len(seen) >= len(OUTAGES) + 1, "each failure was told"


async def test_an_unreachable_server_during_a_refresh_is_a_disconnect() -> None:
    async with subscribed(Service(), STALE, nobody=f"http://127.0.0.1:{free_port()}") as (server, events):
        assert isinstance(await events.next_event(), Disconnected)
        assert isinstance(await events.next_event(), Opened)
        assert server.paths() == ["/sessions/refresh", "/channels/c/ws"]


async def test_an_ended_session_ends_the_stream() -> None:
    refused = Response.json({"error": "invalid_refresh_token", "message": "m"}, status=401)
    async with subscribed(Service([refused]), STALE) as (_, events):
        with pytest.raises(ApiError) as over:
            await events.next_event()
        assert over.value.code == "invalid_refresh_token"


async def test_a_stream_resumes_after_its_token_expires() -> None:
    async with subscribed(Service(), GOOD, since=4) as (server, events):
        assert await events.next_event() == Opened(4)
        await server.say(5)
        assert isinstance(await events.next_event(), Delivered)
        await server.end(CloseCode.TOKEN_ENDED, "token expired")
        ended = await events.next_event()
        assert isinstance(ended, Disconnected)
        assert ended.needs_token
        assert await events.next_event() == Opened(5)
        assert server.paths() == ["/channels/c/ws?since=4", "/sessions/refresh", "/channels/c/ws?since=5"]


async def test_a_disconnect_before_the_first_event_replays_the_newest() -> None:
    async with subscribed(Service(), GOOD) as (server, events):
        assert await events.next_event() == Opened(None)
        await server.sockets[-1].aclose()
        assert isinstance(await events.next_event(), Disconnected)
        assert await events.next_event() == Opened(None)
        assert server.paths() == ["/channels/c/ws", "/channels/c/ws"]


@pytest.mark.parametrize(
    ("answer", "since"),
    [
        (Response.json([]), 0),
        (Response.json([{"sequence": 7, "channel_id": "c", "event": {}}]), None),
        (Response.text("", status=503), None),
    ],
    ids=["empty", "with a log", "no answer"],
)
async def test_a_disconnect_on_an_empty_channel_loses_nothing(answer: Response, since: int | None) -> None:
    """More than the replay window may be posted meanwhile, and all of it is after 0."""
    service, clocks = Service(), Clocks()
    service.pages.append(answer)
    async with subscribed(service, GOOD, clocks=clocks) as (server, events), anyio.create_task_group() as tasks:

        async def disconnect() -> None:
            await eventually(lambda: not service.pages, what="the question whether the channel is empty")
            await server.sockets[-1].aclose()

        for expected in (None, since):
            assert await events.next_event() == Opened(expected)
            clocks.passed += QUIET_SECS
            tasks.start_soon(disconnect)
            assert isinstance(await events.next_event(), Disconnected)
        assert [path for path in server.paths() if "/events" in path] == ["/channels/c/events?limit=1"], "asked once"


async def test_a_replay_sets_the_position() -> None:
    clocks = Clocks()
    async with subscribed(Service(), GOOD, clocks=clocks) as (server, events):
        await events.next_event()
        await server.say(5)
        await events.next_event()
        clocks.passed += QUIET_SECS
        await server.say(6)
        assert await events.next_event() == Delivered(6, '{"sequence":6,"channel_id":"c","event":{}}')
        assert server.paths() == ["/channels/c/ws"]


async def test_short_cancelled_reads_keep_the_reconnect_delay() -> None:
    async with subscribed(Service(), GOOD) as (server, events):
        await events.next_event()
        await server.end(CloseCode.SERVICE_RESTART, "server restarting; reconnect in 60000 ms")
        assert await events.next_event() == Disconnected(60.0, "1012 server restarting; reconnect in 60000 ms")
        for _ in range(3):
            with anyio.move_on_after(0.02):
                await events.next_event()
        assert server.connections == 1


@pytest.mark.parametrize("hanging", ["connect", "send"])
async def test_a_cancelled_connect_counts_as_failed(hanging: str) -> None:
    hung = False

    async def hang(*anything: object) -> None:
        await anyio.sleep_forever()

    async def connect(address: Address) -> ByteStream:
        nonlocal hung
        first, hung = not hung, True
        if first and hanging == "connect":
            await hang()
        stream = await connect_tcp(address)
        if first:
            stream.send = hang
        return stream

    async with (
        scripted(Service().answer) as server,
        Client(server.url, connect=connect, jitter=lambda: 0.0, session=GOOD) as client,
        client.subscribe("c") as events,
    ):
        with anyio.move_on_after(0.05):
            await events.next_event()
        assert not events.state.connected
        with anyio.fail_after(5):
            assert await events.next_event() == Disconnected(0.0, "cancelled while it connected")
            assert await events.next_event() == Opened(None)


async def test_a_final_close_is_raised_with_its_code() -> None:
    async with subscribed(Service(), GOOD) as (server, events):
        await events.next_event()
        await server.end(CloseCode.MEMBERSHIP_LOST, "removed")
        with pytest.raises(StreamEnded) as ended:
            await anext(events)
        assert (ended.value.code, ended.value.reason) == (4403, "removed")
