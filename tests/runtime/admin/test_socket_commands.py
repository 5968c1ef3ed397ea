"""What an operator is told of streams, and what no request can do to the server."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import pytest
from msgspec import convert
from structlog.testing import capture_logs

from openguild_proto.connection.server import ServerConnection
from openguild_proto.connection.timer_wheel import TimerWheel
from openguild_proto.diagnosis.heavy_hitters import HeavyHitters
from openguild_proto.diagnosis.requests import FinishedRequest, RequestHistory
from openguild_proto.diagnosis.snapshot import Snapshot
from openguild_proto.diagnosis.why import Remembered
from openguild_proto.effects.base import StorageEffect, StorageUnavailable
from openguild_proto.effects.process import ComponentState, Readiness
from openguild_proto.fanout.hub import Hub
from openguild_proto.gateway.feeds import Feeds
from openguild_proto.http.message import OpenStream
from openguild_proto.replica.notifications import user_ring
from openguild_proto.replica.replica import Replica
from openguild_runtime.admin import socket_commands
from openguild_runtime.admin.reload import LiveConfig
from openguild_runtime.admin.scope import AdminScope, Response
from openguild_runtime.admin.socket_commands import respond, serve_admin
from openguild_runtime.bus.local import LocalBus
from openguild_runtime.config.server_config import ServerConfig
from openguild_runtime.federation.peer_link import PeerLink
from openguild_runtime.net.nonblocking_socket import NonblockingSocket
from openguild_runtime.net.socket_watch import LoopWatch
from openguild_runtime.net.transport import Transport
from openguild_runtime.observability.metrics import Depths, Metrics
from openguild_runtime.replica.runner import ReplicaRunner
from openguild_runtime.server.parts import make_connections, make_deliveries, make_service
from openguild_runtime.storage.memory import MemoryStorage
from openguild_runtime.system.clocks_and_entropy import ClocksAndEntropy
from openguild_runtime.system.unix_socket import remove_stale_sockets, serve_unix_socket, worker_path, worker_paths
from tests.support.deeds import add_user
from tests.support.line import NoDriver
from tests.support.server import SIGNING_KEY
from tests.support.waiting import connect_unix

pytestmark = pytest.mark.anyio
CAPACITY = 8


class AwayAtTimes(MemoryStorage):
    """A store that cannot be reached while `failing`."""

    failing = False
    hanging = False

    async def perform(self, effect: StorageEffect[Any]) -> Any:
        if self.failing:
            raise StorageUnavailable
        if self.hanging:
            await anyio.sleep_forever()
        return await super().perform(effect)


class Joined:
    """The streams of a replica, with sockets that nobody flushes."""

    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        self.tasks = tasks
        self.watch = LoopWatch(asyncio.get_running_loop())
        self.storage = storage = AwayAtTimes()
        self.metrics = Metrics("0", native_ring=True)
        self.hub = Hub(capacity_events=CAPACITY)
        config = ServerConfig.model_validate({"session": {"signing_key": SIGNING_KEY}})
        self.runner = ReplicaRunner(
            Replica(self.hub, Feeds(Hub()), make_service(config).tokens, random.random, replica_id="here"),
            storage=storage,
            bus=LocalBus(),
            metrics=self.metrics,
            tasks=tasks,
            sources=ClocksAndEntropy(),
        )
        service = make_service(config)
        servers = PeerLink(
            service=service, storage=storage, connections=make_connections(config, time.monotonic, service.response_times),
            sources=ClocksAndEntropy(), tasks=tasks, metrics=self.metrics.federation,
        )  # fmt: skip
        self.replica = AdminScope(
            live=LiveConfig(config, service, self.runner, lambda: config, lambda successful: None),
            replica=self.runner,
            drain=lambda: None,
            storage=storage,
            metrics=self.metrics,
            history=RequestHistory(),
            busy_users=HeavyHitters(),
            readiness=self.ready,
            connections=lambda: 3,
            sources=ClocksAndEntropy(),
            servers=servers,
            deliveries=make_deliveries(
                service, storage, servers.ask, LocalBus(), tasks, ClocksAndEntropy(), holder="here"
            ),
        )  # fmt: skip
        self.sockets: list[socket.socket] = []

    def join(self, user_id: str, channel_id: str | None) -> None:
        ours, theirs = socket.socketpair()
        self.sockets += ours, theirs
        connection = ServerConnection(now=0.0, random_bytes=os.urandom)
        transport = Transport(
            NonblockingSocket(ours, self.watch), "127.0.0.1", connection, clock=time.monotonic, timers=TimerWheel(time.monotonic()),
            tasks=self.tasks, handler=NoDriver(),
        )  # fmt: skip
        stream = OpenStream(user_id=user_id, session_id="s", expires_ms=0, channel_id=channel_id, verified_by=b"")
        self.runner.streams.join(transport, stream, self.runner.replica.changes)

    def publish(self, ring: str, count: int) -> None:
        for _ in range(count):
            self.hub.publish(ring, b"\x81\x01x", self.hub.head(ring) + 1)

    async def ready(self) -> Readiness:
        return Readiness(
            status="ready", uptime_seconds=9, components=(ComponentState("nats", "error", "NATS is away"),)
        )

    async def ask(self, **request: object) -> Response:
        return await respond(self.replica, json.dumps(request).encode(), 0)


@pytest.fixture
async def joined() -> AsyncIterator[Joined]:
    async with anyio.create_task_group() as tasks:
        made = Joined(tasks)
        yield made
        for each in made.sockets:
            each.close()
        tasks.cancel_scope.cancel()


async def test_a_stream_that_was_overrun_is_listed_after_its_ring_has_gone(joined: Joined) -> None:
    joined.join("alice", "general")
    joined.publish("general", 3)
    assert (await joined.ask(command="sessions"))["sessions"][0]["behind"] == 3
    joined.publish("general", 2 * CAPACITY)
    assert len(joined.hub.take_lagged(100)) == 1
    joined.hub.close("general")
    assert (await joined.ask(command="sessions"))["sessions"][0]["behind"] == 0
    assert await joined.ask(command="channels") == {"channels": [], "closed": []}


async def test_notification_streams_are_no_channels(joined: Joined) -> None:
    joined.join("alice", None)
    joined.join("bob", "general")
    joined.publish(user_ring("alice"), 5)
    joined.publish("general", 2)
    channels = (await joined.ask(command="channels"))["channels"]
    assert [(line["channel_id"], line["depth"], line["slowest_user"]) for line in channels] == [("general", 2, "bob")]
    assert [line["behind"] for line in (await joined.ask(command="sessions"))["sessions"]] == [5, 2]
    joined.metrics.depths(Depths(*joined.runner.replica.depths()))
    shown = joined.metrics.render().decode()
    assert 'openguild_websocket_queue_depth{channel_id="general"} 2.0' in shown
    assert "openguild_websocket_queue_depth_max 2.0" in shown
    assert "openguild_notification_queue_depth_max 5.0" in shown
    assert "alice" not in shown


@pytest.mark.parametrize("user", [[], {}, 1, True])
async def test_a_user_is_named_by_a_string(joined: Joined, user: object) -> None:
    for command in ("sessions", "close"):
        assert await joined.ask(command=command, user=user) == {"error": "user: expected a user name or id"}


@pytest.mark.parametrize("command", ["block", "unblock", "close", "log", "why"])
async def test_bytes_that_are_no_text_are_no_request(joined: Joined, command: str) -> None:
    """What the command line makes of them are lone surrogates."""
    for member in ("account", "user", "filter", "request_id"):
        answer = await joined.ask(command=command, **{member: os.fsdecode(b"\xff")})
        assert answer["error"].startswith("expected a command, in a line of UTF-8")


async def test_users_are_taken_and_shown_by_name(joined: Joined) -> None:
    alice = await add_user(joined.storage, "Alice")
    joined.join(alice, "general")
    joined.join("somebody", "general")
    joined.publish("general", 2)
    for user in ("alice", "ALICE", alice, alice.upper()):
        answer = await joined.ask(command="sessions", user=user)
        assert [(line["user_id"], line["username"]) for line in answer["sessions"]] == [(alice, "Alice")]
    assert await joined.ask(command="close", user="nobody") == {"error": "user: there is no 'nobody'"}
    (channel,) = (await joined.ask(command="channels"))["channels"]
    assert channel["slowest_user"] == max(alice, "somebody")
    assert await joined.ask(command="close", user="alice") == {"closed": 1}


async def test_without_its_database_a_server_shows_ids(joined: Joined) -> None:
    alice = await add_user(joined.storage, "alice")
    joined.join(alice, "general")
    joined.storage.failing = True
    assert "does not respond: give the id" in (await joined.ask(command="sessions", user="alice"))["error"]
    (line,) = (await joined.ask(command="sessions", user=alice))["sessions"]
    assert (line["user_id"], "username" in line) == (alice, False)


async def test_a_command_that_takes_too_long_is_answered_and_recorded(
    joined: Joined, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await add_user(joined.storage, "alice")
    monkeypatch.setattr(socket_commands, "COMMAND_SECS", 0.01)
    joined.storage.hanging = True
    with capture_logs() as records, anyio.fail_after(30):
        answer = await joined.ask(command="delete-account", user=alice)
    assert answer == {"error": "not finished within 0.01 seconds and cancelled: run the same command again"}
    assert [record["answer"] for record in records if record["event"] == "admin action"] == [answer]


async def test_closed_readers_stay_listed(joined: Joined) -> None:
    alice = await add_user(joined.storage, "alice")
    joined.join(alice, "general")
    joined.publish("general", 2 * CAPACITY)
    joined.runner.flush_ended()
    (line,) = (await joined.ask(command="channels"))["closed"]
    assert (line["username"], line["channel_id"], line["cause"]) == ("alice", "general", "lagged")
    assert line["missed"] >= CAPACITY
    assert (await joined.ask(command="top"))["closed"][0]["user_id"] == alice


async def test_a_snapshot_has_the_replica_at_a_glance(joined: Joined) -> None:
    scope = joined.replica
    scope.history.add(FinishedRequest(5.0, "failed", "GET", "/version", 500, 0.1, "192.0.2.1"))
    scope.busy_users.count("alice", scope.sources.monotonic())
    scope.metrics.loop_stall(0.3)
    joined.join("alice", "general")
    joined.publish("general", 3)
    found = convert(await joined.ask(command="top"), Snapshot)
    assert (found.status, found.uptime_secs, found.connections, found.streams) == ("ready", 9, 3, 1)
    assert (found.requests, found.failed, found.stall_max_secs) == (1, 1, 0.3)
    assert [(line.channel_id, line.depth) for line in found.channels] == [("general", 3)]
    assert [(line.user_id, line.behind) for line in found.readers] == [("alice", 3)]
    assert [(line.user_id, line.requests) for line in found.users] == [("alice", 1)]
    assert found.components[0].details == "NATS is away"
    assert found.cpu_secs > 0
    assert found.memory_bytes > 1_000_000


async def test_what_is_remembered_of_a_request(joined: Joined) -> None:
    alice = await add_user(joined.storage, "alice")
    request = FinishedRequest(5.0, "failed", "GET", "/version", 500, 0.1, "192.0.2.1", user_id=alice)
    joined.replica.history.add(request)
    found = convert(await joined.ask(command="why", request_id="failed"), Remembered)
    assert (found.requests, found.usernames) == ([request], {alice: "alice"})
    assert (found.kept, found.since, found.troubled_since) == (1, None, 5.0)
    assert not convert(await joined.ask(command="why", request_id="other"), Remembered).requests
    for bad in ("", None, 1):
        assert await joined.ask(command="why", request_id=bad) == {"error": "request_id: expected the id of a request"}


async def test_a_failing_request_ends_alone() -> None:
    async def fail(stream: anyio.abc.SocketStream) -> None:
        await stream.receive()
        raise RecursionError("a defect")

    with TemporaryDirectory(prefix="og-") as directory:
        path = Path(directory) / "local.sock"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve_unix_socket, path, fail)
            for _ in range(3):
                with anyio.fail_after(30):
                    async with await connect_unix(path) as stream:
                        await stream.send(b"x")
                        with pytest.raises(anyio.EndOfStream):
                            await stream.receive()
            tasks.cancel_scope.cancel()
        assert not path.exists()


async def test_a_drain_is_answered_though_it_ends_the_socket(joined: Joined) -> None:
    serving = anyio.CancelScope()

    async def serve(path: Path) -> None:
        with serving:
            await serve_admin(joined.replica._replace(drain=serving.cancel), path)

    with TemporaryDirectory(prefix="og-") as directory:
        path = Path(directory) / "local.sock"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve, path)
            with anyio.fail_after(30):
                async with await connect_unix(path) as stream:
                    await stream.send(b'{"command": "drain"}\n')
                    assert json.loads(await stream.receive()) == {"draining": True}
        assert not path.exists()


def test_sockets_of_workers(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    for each in (path, worker_path(path, 10), worker_path(path, 2), tmp_path / "admin.sock.old", tmp_path / "other.1"):
        each.touch()
    assert list(worker_paths(path)) == [2, 10]
    remove_stale_sockets(path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["admin.sock.old", "other.1"]
