"""A gateway socket on a real server (PROTOCOL 15)."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from openguild_proto.gateway.close_codes import GatewayClose
from openguild_proto.limits import LOGS_PER_READ
from tests.support.chat import Chat, User
from tests.support.server import ServerProcess
from tests.support.waiting import PATIENCE_SECS

JSON, MSGPACK = "openguild.v2", "openguild.v2.msgpack"


class Gateway:
    """A client's end of a gateway socket."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    def say(self, **frame: Any) -> None:
        text = self.socket.subprotocol == JSON
        self.socket.send(json.dumps(frame) if text else msgspec.msgpack.encode(frame))

    def hear(self, kind: str, **members: Any) -> dict[str, Any]:
        """Return the next frame of this type with these members; earlier frames are dropped."""
        while True:
            payload = self.socket.recv(timeout=PATIENCE_SECS)
            frame: dict[str, Any] = json.loads(payload) if isinstance(payload, str) else msgspec.msgpack.decode(payload)
            if frame["type"] == kind and all(frame.get(name) == value for name, value in members.items()):
                return frame

    def closed_with(self) -> int:
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                self.socket.recv(timeout=PATIENCE_SECS)
        assert closed.value.rcvd is not None
        return closed.value.rcvd.code


@contextmanager
def gateway(
    user: User, subprotocol: str = JSON, *, token: str | None = "", path: str = "/gateway"
) -> Iterator[Gateway]:
    """Yield an authenticated socket; with `token` None it sends nothing."""
    url = user.chat.base_url.replace("http", "ws") + path
    with connect(url, subprotocols=[subprotocol], proxy=None) as socket:  # type: ignore[list-item]  # a NewType
        opened = Gateway(socket)
        opened.hear("hello")
        if token is not None:
            opened.say(type="auth", token=token or user.token)
        yield opened


@pytest.mark.parametrize("subprotocol", [JSON, MSGPACK])
def test_logs_and_commands_on_one_socket(chat: Chat, subprotocol: str) -> None:
    alice, bob = chat.user(), chat.user()
    guild = alice.guild()
    channel = alice.channel(guild)
    bob.join(alice.invite(guild))
    his = bob.get("/users/me").json()["user_id"]
    logs = [f"channel:{channel}", f"guild:{guild}", f"user:{his}"]
    with gateway(bob, subprotocol, path="/client/v1/gateway") as socket:
        ready = socket.hear("ready")
        assert ready["user"]["user_id"] == his
        assert {head["log"] for head in ready["heads"]} == set(logs[1:])
        socket.say(type="sub", ref=1, logs=[{"log": log} for log in logs])
        assert [line["log"] for line in socket.hear("sub_ok", ref=1)["logs"]] == logs
        alice.say(channel, "hello")
        assert socket.hear("ev", log=logs[0])["event"]["content"]["content"] == "hello"
        socket.say(type="post", ref=2, channel_id=channel, content="こんにちは", key="one")
        posted = socket.hear("ok", ref=2)["result"]
        socket.say(type="post", ref=3, channel_id=channel, content="こんにちは", key="one")
        assert socket.hear("ok", ref=3)["result"] == posted
        socket.say(type="react", ref=4, channel_id=channel, event_id=posted["event_id"], emoji="👍")
        assert socket.hear("ev", log=logs[0], seq=3)["event"]["event_type"] == "reaction.added"
        socket.say(type="edit", ref=5, channel_id=channel, event_id=posted["event_id"], content="y")
        socket.say(type="redact", ref=6, channel_id=channel, event_id=posted["event_id"])
        socket.say(type="read", ref=7, channel_id=channel)
        assert socket.hear("ok", ref=7)["result"]["unread"] == 0
        assert socket.hear("ev", log=logs[2])["event"]["event_type"] == "channel.read"
        alice.request("PATCH", f"/guilds/{guild}", json={"name": "another"})
        assert socket.hear("ev", log=logs[1])["event"]["content"]["name"] == "another"
        assert alice.post(f"/channels/{channel}/typing").status_code == 204
        assert socket.hear("eph", log=logs[0])["kind"] == "typing"
        alice.request("DELETE", f"/guilds/{guild}/members/{his}")
        assert {socket.hear("gone")["log"] for _ in range(2)} == set(logs[:2])
        socket.say(type="post", ref=8, channel_id=channel, content="x")
        assert socket.hear("err", ref=8)["code"] == "not_found"


def test_a_client_resumes_where_it_was(chat: Chat, alice: User, channel: str) -> None:
    log = f"channel:{channel}"
    with gateway(alice) as socket:
        socket.say(type="sub", ref=1, logs=[{"log": log}])
        epoch = socket.hear("sub_ok")["logs"][0]["epoch"]
        alice.say(channel, "1")
        assert socket.hear("ev")["seq"] == 1
    for number in range(2, 302):
        alice.say(channel, str(number))
    with gateway(alice) as socket:
        socket.say(type="sub", ref=1, logs=[{"log": log, "epoch": epoch, "after": 1}])
        line = socket.hear("sub_ok")["logs"][0]
        assert (line["after"], line["head"], line["recovered"]) == (1, 301, True)
        assert [socket.hear("ev")["seq"] for _ in range(300)] == list(range(2, 302))
        alice.say(channel, "now")
        assert socket.hear("ev")["seq"] == 302


def test_the_socket_says_what_is_wrong_with_a_token(chat: Chat) -> None:
    user = chat.user()
    for token in ("nonsense", "", "x" * 3_000):
        with gateway(user, token=None) as socket:
            socket.say(type="auth", token=token, ref=7)
            assert socket.hear("err", ref=7)["code"] == "unauthorized"
            assert socket.closed_with() == GatewayClose.TOKEN_REFUSED
    with gateway(user, token=None) as socket:
        socket.say(type="sub", ref=1, logs=[{"log": "user:" + "0" * 36}])
        assert socket.closed_with() == GatewayClose.MALFORMED_FRAME
    with gateway(user, token=None) as socket:
        socket.say(type="read", ref=1, channel_id="00000000-0000-4000-8000-000000000000")
        assert socket.closed_with() == GatewayClose.OUT_OF_ORDER
    with gateway(user) as socket:
        socket.hear("ready")
        socket.say(type="auth", ref=9, token=chat.user().token)
        assert socket.hear("err", ref=9)["code"] == "unauthorized"
        socket.say(type="auth", ref=10, token=chat.login(user.name, "another device").token)
        socket.hear("ok", ref=10)
        user.request("DELETE", "/sessions/devices/another device")
        assert socket.closed_with() == GatewayClose.SESSION_ENDED


def test_half_an_emoji_is_refused_as_over_http(chat: Chat, alice: User, channel: str) -> None:
    headers = {**alice.auth, "content-type": "application/json"}
    over_http = chat.http.post(f"/channels/{channel}/messages", content=rb'{"content":"\ud83d"}', headers=headers)
    with gateway(alice) as socket:
        socket.hear("ready")
        socket.say(type="post", ref=1, channel_id=channel, content="\ud83d")
        assert socket.hear("err", ref=1)["code"] == over_http.json()["error"] == "invalid_json"
        socket.say(type="post", ref=2, channel_id=channel, content="\N{THUMBS UP SIGN}")
        socket.hear("ok", ref=2)


def test_a_read_position_is_clamped_as_over_http(chat: Chat, alice: User, channel: str) -> None:
    alice.say(channel, "hi")
    with gateway(alice) as socket:
        for ref, sequence in enumerate((-1, 10**30), start=1):
            over_http = alice.ok(alice.post(f"/channels/{channel}/read", {"sequence": sequence}))
            socket.say(type="read", ref=ref, channel_id=channel, sequence=sequence)
            assert socket.hear("ok", ref=ref)["result"] == over_http


def test_a_client_without_subprotocols_speaks_json(chat: Chat) -> None:
    user = chat.user()
    with connect(chat.base_url.replace("http", "ws") + "/gateway", proxy=None) as socket:
        assert json.loads(socket.recv(timeout=PATIENCE_SECS))["type"] == "hello"
    assert user.get("/gateway").status_code == 426


def test_commands_ahead_of_their_answers_wait_in_order(chat: Chat, alice: User, channel: str) -> None:
    with gateway(alice) as socket:
        socket.hear("ready")
        for number in range(100):
            socket.say(type="read", ref=number, channel_id=channel)
        answers = [socket.hear("ok", ref=number)["ref"] for number in range(100)]
        assert answers == list(range(100))


def test_following_logs_waits_for_its_share_of_the_reads(tmp_path: Path) -> None:
    window_secs = 1
    settings = {
        "MESSAGING__MAX_QUERIES_PER_USER_PER_WINDOW": 10, "MESSAGING__QUERY_WINDOW_SECS": window_secs,
    }  # fmt: skip
    logs = [{"log": f"channel:{uuid.uuid4()}"} for _ in range(10 * LOGS_PER_READ)]
    server = ServerProcess(tmp_path, "--storage", "memory", **settings)
    with server.start(), gateway(server.chat().user()) as socket:
        socket.hear("ready")
        began = time.monotonic()
        for ref in range(3):
            socket.say(type="sub", ref=ref, logs=logs)
        for ref in range(3):
            for log in logs:
                assert socket.hear("err", ref=ref, log=log["log"])["code"] == "not_found"
        assert time.monotonic() - began >= 2 * window_secs, "the first one takes all reads that there are at once"
        socket.say(type="sub", ref=3, logs=logs[:1])
        assert socket.hear("err", ref=3)["code"] == "not_found"
