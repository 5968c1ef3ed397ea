"""The logs that a gateway client follows: which frames ask for them."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from openguild_proto.gateway.client import GatewayClient
from openguild_proto.gateway.client_logs import ResumePosition
from openguild_proto.gateway.encoding import Encoding
from openguild_proto.gateway.frames import Post
from openguild_proto.limits import MAX_GATEWAY_LOGS
from tests.proto.gateway.frames import CHANNEL, HELLO, READY
from tests.support.gateway import EPOCH, log_name


def opened() -> GatewayClient:
    client = GatewayClient(Encoding.JSON, jitter=lambda: 0.5, random_bytes=bytes)
    client.start("t", 0.0)
    client.connected(0.0)
    for frame in (HELLO, READY):
        client.received(msgspec.json.encode(frame).decode(), 0.0)
    sent(client)
    return client


def sent(client: GatewayClient) -> list[dict[str, Any]]:
    return [msgspec.json.decode(message) for message in client.messages_to_send()]


def test_logs_that_are_followed_at_once_share_frames() -> None:
    client = opened()
    names = [log_name(number) for number in range(MAX_GATEWAY_LOGS)]
    for name in names:
        client.follow(name)
    frames = sent(client)
    assert len(frames) == 4, "a server closes a socket that sends hundreds in a minute"
    assert [line["log"] for frame in frames for line in frame["logs"]] == names
    assert all(len(msgspec.json.encode(frame)) <= 65_536 for frame in frames)
    assert sent(client) == []


def test_a_log_is_asked_for_before_a_command_that_causes_events_of_it() -> None:
    client = opened()
    client.follow(log_name(1))
    client.send(Post(0, CHANNEL, content="hi"))
    assert [frame["type"] for frame in sent(client)] == ["sub", "post"]


def test_the_server_ends_with_what_the_client_follows() -> None:
    """Whatever is followed, followed from another place and given up between two frames."""
    draws = random.Random(1)
    for _ in range(200):
        client, at_server = opened(), dict[str, int | None]()
        wanted: dict[str, int | None] = {}
        for _ in range(draws.randrange(1, 12)):
            name, place = (
                log_name(draws.randrange(3)),
                draws.choice([None, ResumePosition(EPOCH, 3), ResumePosition(EPOCH, 7)]),
            )
            if draws.random() < 0.5:
                client.follow(name, place)
                wanted[name] = place.sequence if place is not None else None
            else:
                client.unfollow(name)
                wanted.pop(name, None)
            if draws.random() < 0.4:
                apply(sent(client), at_server)
        apply(sent(client), at_server)
        assert at_server == wanted


def apply(frames: list[dict[str, Any]], at_server: dict[str, int | None]) -> None:
    for frame in frames:
        if frame["type"] == "sub":
            at_server |= {line["log"]: line.get("after") for line in frame["logs"]}
        else:
            for name in frame["logs"]:
                del at_server[name]  # it was there
