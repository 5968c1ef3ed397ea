"""`/asyncapi.json` describes the frames that the sockets of a running server send (PROTOCOL 8.4, 15.1)."""

from __future__ import annotations

import json
from typing import Any, get_args

import msgspec
import pytest
from jsonschema import Draft202012Validator
from websockets.sync.client import connect

from openguild_proto.gateway.close_codes import GATEWAY_CLOSES
from openguild_proto.gateway.frames import ClientFrame, ServerFrame
from openguild_proto.operations.asyncapi import ANSWERS, SOCKETS, build_asyncapi, tag_of
from openguild_proto.operations.routes import ROUTES
from openguild_proto.ws.close_codes import CLOSE_CODES
from tests.support.chat import Chat, User, receive
from tests.support.waiting import PATIENCE_SECS

DOCUMENT: dict[str, Any] = json.loads(json.dumps(build_asyncapi(ROUTES, "1", "localhost")))
MESSAGES = [
    (socket, name, message)
    for socket, channel in DOCUMENT["channels"].items()
    for name, message in channel["messages"].items()
]


def validate(schema: dict[str, Any], value: Any) -> None:
    whole = {**schema, "components": DOCUMENT["components"]}
    Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(value)


def check(socket: str, name: str, frame: Any) -> None:
    """Check that the frame fits its message and has no member that the schema lacks."""
    payload = DOCUMENT["channels"][socket]["messages"][name]["payload"]
    validate(payload, frame)
    schema = DOCUMENT["components"]["schemas"][payload["$ref"].rpartition("/")[2]]
    assert frame.keys() <= schema["properties"].keys()


@pytest.mark.parametrize(("socket", "name", "message"), MESSAGES, ids=[f"{one} {name}" for one, name, _ in MESSAGES])
def test_examples_fit_their_messages(socket: str, name: str, message: dict[str, Any]) -> None:
    for example in message["examples"]:
        check(socket, name, example["payload"])


def test_every_frame_of_the_gateway_is_described_in_both_encodings() -> None:
    tags = {tag_of(kind) for kind in (*get_args(ClientFrame), *get_args(ServerFrame))}
    for name, content_type in (("gateway", "application/json"), ("gatewayMsgpack", "application/msgpack")):
        messages = DOCUMENT["channels"][name]["messages"]
        assert messages.keys() == tags
        assert {message["contentType"] for message in messages.values()} == {content_type}
        assert DOCUMENT["channels"][name]["x-close-codes"].keys() == {str(int(code)) for code in GATEWAY_CLOSES}
    assert DOCUMENT["channels"]["channelStream"]["x-close-codes"].keys() == {str(int(code)) for code in CLOSE_CODES}


def test_every_frame_has_an_operation_and_answers_are_named() -> None:
    for socket in SOCKETS:
        for action, kinds in (("send", socket.sent), ("receive", socket.received)):
            for kind in kinds:
                operation = DOCUMENT["operations"][f"{socket.name}.{action}.{tag_of(kind)}"]
                assert operation["action"] == action
                assert ("reply" in operation) == (action == "receive" and kind in ANSWERS)


def test_the_server_gives_the_document(chat: Chat) -> None:
    answer = chat.http.get("/asyncapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["channels"].keys() == DOCUMENT["channels"].keys()
    assert answer.json()["servers"]["this"]["variables"]["host"]["default"]


def test_streams_send_what_is_described(alice: User, channel: str) -> None:
    with alice.stream(channel) as stream, alice.notifications() as notifications:
        alice.say(channel, "hello")
        check("channelStream", "event", receive(stream, 1)[0])
        alice.post(f"/channels/{channel}/read")
        for frame in receive(notifications, 2):
            check("notifications", frame["kind"], frame)


@pytest.mark.parametrize(
    ("socket", "subprotocol"), [("gateway", "openguild.v2"), ("gatewayMsgpack", "openguild.v2.msgpack")]
)
def test_the_gateway_sends_what_is_described(alice: User, channel: str, socket: str, subprotocol: str) -> None:
    asked: list[dict[str, Any]] = [
        {"type": "auth", "token": alice.token},
        {"type": "sub", "ref": 1, "logs": [{"log": f"channel:{channel}", "tail": 0}]},
        {"type": "post", "ref": 2, "channel_id": channel, "content": "hello", "key": "k"},
        {"type": "typing", "ref": 3, "channel_id": channel},
        {"type": "read", "ref": 4, "channel_id": channel, "sequence": 1},
        {"type": "sub", "ref": 5, "logs": [{"log": "channel:00000000-0000-4000-8000-000000000000"}]},
        {"type": "hb"},
    ]
    wanted = {"hello", "ready", "sub_ok", "ok", "ev", "err"}
    url = alice.chat.base_url.replace("http", "ws") + "/client/v1/gateway"
    with connect(url, subprotocols=[subprotocol], proxy=None) as opened:  # type: ignore[list-item]  # a NewType
        while wanted:
            while asked and (
                asked[0]["type"] in {"auth", "sub"} or "sub_ok" not in wanted
            ):  # a post may overtake a `sub`
                frame = asked.pop(0)
                check(socket, frame["type"], frame)
                opened.send(json.dumps(frame) if subprotocol == "openguild.v2" else msgspec.msgpack.encode(frame))
            payload = opened.recv(timeout=PATIENCE_SECS)
            heard = json.loads(payload) if isinstance(payload, str) else msgspec.msgpack.decode(payload)
            check(socket, heard["type"], heard)
            wanted.discard(heard["type"])
