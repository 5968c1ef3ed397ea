"""Few descriptors: the server uses all of them, and when they run out `/live` and the metrics still answer."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from tests.support.chat import User
from tests.support.raw import RawClient
from tests.support.server import ServerProcess
from tests.support.waiting import wait_until

LIMIT = 64
RAN_OUT = "cannot accept connections: out of descriptors or memory"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    directory = tmp_path_factory.mktemp("descriptors")
    with ServerProcess(directory, "--storage", "memory", descriptors=LIMIT).start() as process:
        yield process
        assert process.stop() == 0, process.tail()


def set_limit(server: ServerProcess, soft: int) -> None:
    assert server.process is not None
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (soft, LIMIT))


def ready(server: ServerProcess) -> dict[str, str]:
    """Return the status of each component and of the whole."""
    answer = httpx.get(server.base_url + "/ready", timeout=5.0, trust_env=False, verify=False).json()
    return {line["name"]: line["status"] for line in answer["components"]} | {"status": answer["status"]}


def holds(server: ServerProcess, alice: User, channel: str, count: int) -> bool:
    """Return whether this many streams can be open. After another test has lowered the limit, the server notices its return within
    seconds.
    """
    try:
        with ExitStack() as streams:
            for _ in range(count):
                streams.enter_context(alice.stream(channel))
    except InvalidStatus:
        return False
    return wait_until(lambda: server.metric("openguild_websocket_connections") == 0)


def test_streams_leave_room_for_everybody_else(server: ServerProcess) -> None:
    alice = server.chat().user()
    channel = alice.channel(alice.guild())
    wait_until(lambda: holds(server, alice, channel, LIMIT // 4 + 1), secs=30.0, what="room for streams")
    with ExitStack() as streams:
        with pytest.raises(InvalidStatus) as refused:
            for _ in range(LIMIT):
                streams.enter_context(alice.stream(channel))
        assert refused.value.response.status_code == 429
        assert server.metric("openguild_websocket_connections") > LIMIT // 4
        for _ in range(10):
            assert server.status("/live") == 200
        alice.say(channel, "hello")
    wait_until(lambda: server.metric("openguild_websocket_connections") == 0, what="the end of the streams")


def test_a_limit_that_is_lowered_while_serving_is_lived_with(server: ServerProcess) -> None:
    assert "descriptors" not in ready(server)
    silent = [RawClient(server.port) for _ in range(20)]
    wait_until(lambda: server.metric("openguild_connections") > 20, what="all connections")
    set_limit(server, 22)
    try:
        more = [RawClient(server.port) for _ in range(20)]
        for _ in range(20):
            assert server.status("/live") == 200
        assert server.metric("openguild_accept_failures_total") > 0
        assert ready(server) | {"descriptors": "error", "status": "degraded"} == ready(server)
        lines = [line for line in server.records() if RAN_OUT in line["message"]]
        assert [(line["level"], line["reason"], line["limit"]) for line in lines] == [
            ("ERROR", "too many open files", 22)
        ]
    finally:
        set_limit(server, LIMIT)
        for client in (*silent, *more):
            client.sock.close()
    wait_until(lambda: "descriptors" not in ready(server), secs=20, what="readiness")
    assert ready(server)["status"] == "ready"
    chat = server.chat()
    wait_until(lambda: chat.http.get("/live").status_code == 200, what="the old bound")


def test_where_there_is_no_room_to_serve_the_start_says_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    with ServerProcess(tmp_path_factory.mktemp("few"), "--storage", "memory", descriptors=30).start(
        ready=False
    ) as server:
        assert server.process is not None
        assert server.process.wait(60) == 1
        (line,) = server.records()
        assert line["message"].startswith("open files: the limit is 30, and at least 40 are needed")
        assert "ulimit -n" in line["message"]
