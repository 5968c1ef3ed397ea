"""A replica that was stopped for a while, as by a suspended machine, reads a ban together with the messages after it."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from openguild_runtime.embedded import EmbeddedNats
from tests.support.chat import User
from tests.support.server import ServerProcess
from tests.support.waiting import PATIENCE_SECS

SECRETS = 100


@pytest.fixture
def replicas(
    new_database: Callable[[], str], nats_server: EmbeddedNats, tmp_path: Path
) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    url, settings = new_database(), {"MESSAGING__MAX_MESSAGES_PER_USER_PER_WINDOW": 1_000}
    one, other = (ServerProcess(tmp_path, DATABASE_URL=url, NATS__URL=nats_server.url, **settings) for _ in range(2))
    with one.start(), other.start():
        yield one, other
        for server in (one, other):
            assert server.stop() == 0


def gateway_of(server: ServerProcess, user: User) -> ClientConnection:
    return connect(
        f"ws://127.0.0.1:{server.port}/gateway",
        additional_headers=user.auth,
        subprotocols=["openguild.v2"],  # type: ignore[list-item]  # a NewType
        compression=None,
        proxy=None,
        open_timeout=PATIENCE_SECS,
    )


def read_until(socket: ClientConnection, is_last: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Return the frames up to the first one for which `is_last` is true, or to the end."""
    found: list[dict[str, Any]] = []
    try:
        while not found or not is_last(found[-1]):
            found.append(json.loads(socket.recv(PATIENCE_SECS)))
    except ConnectionClosed:
        pass
    return found


def test_what_is_said_behind_a_ban_reaches_nobody_who_is_banned(replicas: tuple[ServerProcess, ServerProcess]) -> None:
    one, other = replicas
    alice, bob = one.chat().user(), one.chat().user()
    guild = alice.guild()
    channel = alice.channel(guild)
    bob.join(alice.invite(guild))
    there = User(other.chat(), bob.name, bob.token, bob.refresh_token, bob.user_id)
    with gateway_of(other, bob) as gateway, there.stream(channel) as stream, there.notifications() as notifications:
        gateway.send(json.dumps({"type": "sub", "ref": 1, "logs": [{"log": f"channel:{channel}"}]}))
        read_until(gateway, lambda frame: frame["type"] == "sub_ok")
        alice.say(channel, "hello")
        read_until(gateway, lambda frame: frame["type"] == "ev")
        read_until(stream, lambda frame: "sequence" in frame)
        read_until(notifications, lambda frame: "sequence" in frame)
        assert other.process is not None
        other.process.send_signal(signal.SIGSTOP)
        try:
            alice.ok(alice.request("PUT", f"/guilds/{guild}/bans/{bob.user_id}"))
            for number in range(SECRETS):
                alice.say(channel, f"secret {number}")
        finally:
            other.process.send_signal(signal.SIGCONT)
        told = read_until(gateway, lambda frame: frame["type"] == "gone")
        assert told[-1]["code"] == "access_lost"
        told += read_until(stream, lambda frame: False)
        bobs = bob.channel(bob.guild())
        bob.say(bobs, "the end")
        told += read_until(notifications, lambda frame: "sequence" in frame and frame["channel_id"] == bobs)
    assert "secret" not in json.dumps(told)
