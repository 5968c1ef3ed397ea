"""Proxies and captive portals: typed errors, correct retries, and no leaked token."""

from __future__ import annotations

import anyio
import pytest

from openguild_proto import Response
from openguild_proto.client import Disconnected, Opened
from openguild_proto.http.message import Request
from openguild_runtime.client import Client, OutcomeUnknown, Session, StreamEnded
from openguild_runtime.client.messages import Posted
from tests.support.scripted import scripted

pytestmark = pytest.mark.anyio
PORTAL = Response(status=200, body=b"<html>log in to the hotel</html>", content_type="text/html")
POSTED = {"sequence": 1, "event_id": "e", "created_at": "t"}


def redirect(url: str) -> Response:
    return Response(status=307, headers=(("location", url),))


def client(url: str, retry_secs: float = 60.0) -> Client:
    return Client(url, session=Session("access", "refresh"), jitter=lambda: 0.0, retry_secs=retry_secs)


class First:
    """Some answers first, then one for good."""

    def __init__(self, *first: Response, last: Response | None) -> None:
        self._first = list(first)
        self._last = last

    def __call__(self, request: Request) -> Response | None:
        return self._first.pop(0) if self._first else self._last


async def test_repeatable_requests_succeed_after_the_portal() -> None:
    first = First(PORTAL, redirect("http://portal.example/"), last=Response.json(POSTED))
    async with scripted(first) as server, client(server.url) as ours:
        assert await ours.post("c", "hi") == Posted(**POSTED)
    assert len(server.requests) == 3
    assert len({request.body for request in server.requests}) == 1, "one nonce"


async def test_a_response_that_is_not_json_is_described() -> None:
    async with scripted(lambda request: Response.text("<html>")) as server, client(server.url) as ours:
        with pytest.raises(OutcomeUnknown, match="unexpected response"):
            await ours.request("GET", "/users/me")


async def test_a_post_through_a_portal_has_an_unknown_outcome() -> None:
    async with scripted(lambda request: PORTAL) as server, client(server.url, retry_secs=0.0) as ours:
        ours.jitter = lambda: 1.0
        with pytest.raises(OutcomeUnknown, match="text/html") as doubt:
            await ours.post("c", "hi")
    assert doubt.value.nonce is not None


@pytest.mark.parametrize("answer", [PORTAL, Response.json({"captive": True}), Response.json([1]), Response.text("ok")])
async def test_an_unrepeatable_request_is_sent_once(answer: Response) -> None:
    async with scripted(lambda request: answer) as server, client(server.url) as ours:
        with pytest.raises(OutcomeUnknown):
            await ours.register("name", "secret")
    assert len(server.requests) == 1


@pytest.mark.parametrize("answer", [Response.json({"captive": True}), Response.text("{}"), PORTAL])
async def test_invalid_tokens_are_reported(answer: Response) -> None:
    async with scripted(lambda request: answer) as server, client(server.url, retry_secs=0.0) as ours:
        ours.jitter = lambda: 1.0
        session = ours.session
        with pytest.raises(OutcomeUnknown):
            await ours.login("alice", "correct horse")
        assert ours.session is session


async def test_redirects_are_not_followed() -> None:
    async with (
        scripted(lambda request: Response.json(POSTED)) as elsewhere,
        scripted(lambda request: redirect(elsewhere.url + request.path)) as server,
        client(server.url, retry_secs=0.0) as ours,
    ):
        ours.jitter = lambda: 1.0
        for asked in (ours.request("GET", "/users/me"), ours.create_guild("g"), ours.post("c", "hi")):
            with pytest.raises(OutcomeUnknown, match="redirects are not followed"):
                await asked
        async with ours.subscribe("c", 0) as stream:
            event = await stream.next_event()
        assert isinstance(event, Disconnected)
        assert elsewhere.connections == 0


async def test_a_stream_survives_a_portal() -> None:
    first = First(
        PORTAL,
        redirect("http://portal.example/"),
        Response(status=404, body=b"none", content_type="text/html"),
        last=None,
    )
    async with scripted(first) as server, client(server.url) as ours, ours.subscribe("c", 0) as stream:
        events = [await stream.next_event() for _ in range(4)]
        assert [type(event) for event in events] == [Disconnected, Disconnected, Disconnected, Opened]
        await server.say(1)
        assert (await anext(stream)).sequence == 1


async def test_an_undecodable_message_ends_the_stream() -> None:
    async with scripted(lambda request: None) as server, client(server.url) as ours, ours.subscribe("c", 0) as stream:
        assert isinstance(await stream.next_event(), Opened)
        await server.sockets[-1].send(b"\x81\x0e" + b'{"sequence":1}')
        with anyio.fail_after(10), pytest.raises(StreamEnded, match="cannot be read"):
            await anext(stream)
