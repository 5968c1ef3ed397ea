"""What a request and a message cost in the core: parsing, framing, canonical bytes, tokens, a whole operation."""

from __future__ import annotations

from typing import Any

import pytest

from openguild_proto.canonical.event import build_event
from openguild_proto.canonical.keys import EventSigner
from openguild_proto.canonical.signing import SigningKey
from openguild_proto.http.message import Response
from openguild_proto.ws.frames import text_frame
from tests.support.wire import HANDSHAKE, connection, drive, masked
from tests.support.world import World, decoded, request

POST = (
    b"POST /channels/3b7f3e93-7c9c-47f5-91d3-cbf09dc5a8f6/messages HTTP/1.1\r\nHost: localhost:8080\r\n"
    b"Authorization: Bearer " + b"a" * 330 + b"\r\nContent-Type: application/json\r\nAccept: */*\r\n"
    b"Content-Length: 34\r\n\r\n" + b'{"content":"hello, how are you..."}'[:34]
)


@pytest.mark.benchmark(group="frame 300 bytes")
def test_frame(benchmark: Any) -> None:
    benchmark(text_frame, b"x" * 300)


@pytest.mark.benchmark(group="request in, response out")
def test_request(benchmark: Any) -> None:
    conn = connection()

    def one() -> bytes:
        for _ in conn.receive_data(POST, 0.0):
            conn.respond(Response.json({"sequence": 1}), 0.0)
        conn.next_events(0.0)
        return b"".join(conn.data_to_send())

    assert benchmark(one).startswith(b"HTTP/1.1 200")


@pytest.mark.benchmark(group="connection set-up to 101")
def test_handshake(benchmark: Any) -> None:
    benchmark(lambda: drive(connection(), [HANDSHAKE]))


@pytest.mark.benchmark(group="client ping answered")
def test_ping(benchmark: Any) -> None:
    conn = connection()
    drive(conn, [HANDSHAKE])
    benchmark(drive, conn, [masked(0x89, b"")])


ALICE = "ec7c5138-ee1a-4112-95ef-e53514b670c2"


@pytest.mark.benchmark(group="build an event")
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_event(benchmark: Any, signed: bool) -> None:
    signer = EventSigner("example.org", "1", SigningKey(bytes(32))) if signed else None
    benchmark(
        build_event, server_name="example.org", room_id="3b7f3e93-7c9c-47f5-91d3-cbf09dc5a8f6", event_type="message",
        sender=ALICE, content={"author": {"id": ALICE, "username": "alice"}, "content": "hello, how are you?", "nonce": "abc"},
        origin_ts_ms=0, signer=signer,
    )  # fmt: skip


@pytest.mark.benchmark(group="a post through the operation, memory tables")
def test_post(benchmark: Any) -> None:
    world = World()
    world.service.user_messages.limit = world.service.address_messages.limit = 10**9
    alice = world.user("alice")
    guild = decoded(world.ask("POST", "/guilds", {"name": "g"}, alice))["guild_id"]
    channel = decoded(world.ask("POST", f"/guilds/{guild}/channels", {"name": "c"}, alice))["channel_id"]
    post = request("POST", f"/channels/{channel}/messages", {"content": "hello"}, alice)
    answer = benchmark(world.run, post)
    assert answer.status == 200
