"""Typing and presence between real replicas, one of which is killed (PROTOCOL 7.12, 7.13)."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection

from openguild_proto.replica.presence import LEASE_SECS
from openguild_runtime.embedded import EmbeddedNats
from tests.support.busy import fair_secs
from tests.support.chat import User
from tests.support.server import ServerProcess
from tests.support.waiting import PATIENCE_SECS


@pytest.fixture
def replicas(
    new_database: Callable[[], str], nats_server: EmbeddedNats, tmp_path: Path
) -> Iterator[list[ServerProcess]]:
    url = new_database()
    servers = [ServerProcess(tmp_path, DATABASE_URL=url, NATS__URL=nats_server.url) for _ in range(2)]
    with servers[0], servers[1]:
        yield servers


def told(stream: ClientConnection) -> dict[str, Any]:
    """Return the next hint."""
    frame: dict[str, Any] = json.loads(stream.recv(timeout=2 * PATIENCE_SECS))
    return frame


def online(user: User, guild: str) -> dict[str, str]:
    found = user.get(f"/guilds/{guild}/presence").json()
    assert found["shown"]
    return {member["user_id"]: member["status"] for member in found["members"]}


def test_typing_and_presence_reach_the_other_replica(replicas: list[ServerProcess]) -> None:
    alice, bob = replicas[0].chat().user(), replicas[1].chat().user()
    guild = alice.guild()
    channel = alice.channel(guild)
    bob.join(alice.invite(guild))
    hers, his = (user.get("/users/me").json()["user_id"] for user in (alice, bob))
    with bob.notifications() as stream:
        with alice.stream(channel):  # a stream of any kind makes a user present
            assert told(stream) == {"kind": "presence", "event": {"user_id": hers, "status": "online"}}
            assert online(bob, guild) == {hers: "online", his: "online"}
            assert alice.request("PUT", "/users/@me/presence", json={"status": "idle"}).status_code == 204
            assert told(stream)["event"] == {"user_id": hers, "status": "idle"}
            assert alice.post(f"/channels/{channel}/typing-preview", {"preview": "こんに"}).status_code == 204
            event = {"user_id": hers, "preview": "こんに"}
            assert told(stream) == {"kind": "typing", "channel_id": channel, "event": event}
        assert told(stream)["event"] == {"user_id": hers, "status": "offline"}
        assert online(alice, guild) == {his: "online"}


def test_users_of_a_killed_replica_are_offline_within_thirty_seconds(replicas: list[ServerProcess]) -> None:
    alice, bob = replicas[0].chat().user(), replicas[1].chat().user()
    guild = alice.guild()
    bob.join(alice.invite(guild))
    with bob.notifications() as stream, alice.notifications():
        assert told(stream)["event"]["status"] == "online"
        replicas[0].stop(signal.SIGKILL)
        killed = fair_secs()
        assert told(stream)["event"]["status"] == "offline"
        assert fair_secs() - killed <= LEASE_SECS + 3
