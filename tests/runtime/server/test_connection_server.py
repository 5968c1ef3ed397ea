"""What the connection server answers, counts and logs for streams, over a socket pair."""

from __future__ import annotations

import socket
from typing import TypeVar

import anyio
import pytest
import structlog

from openguild_proto.effects import GrantServerRole, Overloaded, ReadVisible, StorageEffect, StorageUnavailable
from openguild_proto.policy.waiting import WaitingAnswers
from openguild_proto.replica.notifications import user_ring
from openguild_proto.ws.frames import text_frame
from openguild_runtime.storage.memory import MemoryStorage
from tests.support.deeds import NOW, add_channel, add_guild, add_user, append
from tests.support.line import Line, connected
from tests.support.waiting import eventually

pytestmark = pytest.mark.anyio
CAPACITY = 4
T = TypeVar("T")


class Failing(MemoryStorage):
    """Cannot tell what a user sees."""

    def __init__(self, failure: Exception) -> None:
        super().__init__()
        self._failure = failure

    async def perform(self, effect: StorageEffect[T]) -> T:
        if isinstance(effect, ReadVisible):
            raise self._failure
        return await super().perform(effect)


@pytest.mark.parametrize(
    ("failure", "code"), [(Overloaded(), "overloaded"), (StorageUnavailable(), "database_unavailable")]
)
async def test_a_stream_that_cannot_be_prepared_is_refused_by_its_reason(failure: Exception, code: str) -> None:
    async with connected(Failing(failure)) as line:
        answer = await line.upgrade()
        assert answer.startswith("HTTP/1.1 503 ")
        assert "retry-after: 1\r\n" in answer
        assert f'"error":"{code}"' in answer
        assert line.server.service.sockets.total == 0


async def test_a_browser_s_preflight_is_not_counted() -> None:
    async with connected() as line:
        assert (await line.ask("OPTIONS", "/guilds")).startswith("HTTP/1.1 200 ")
        assert (await line.ask("GET", "/live")).startswith("HTTP/1.1 200 ")
        counted = [
            text for text in line.server.metrics.render().decode().splitlines() if "http_requests_total{" in text
        ]
        assert counted == ['openguild_http_requests_total{route="/live",status="200"} 1.0']


async def test_records_about_a_stream_name_its_request_its_user_and_its_channel() -> None:
    async with connected(queue_capacity=CAPACITY) as line:
        assert (await line.upgrade()).startswith("HTTP/1.1 101 ")
        (transport,) = line.server.replica.transports()
        assert transport.stream is not None
        expected = {
            "peer": "192.0.2.1", "request_id": "the-upgrade", "user_id": transport.stream.user_id, "channel_id": None,
        }  # fmt: skip
        with structlog.testing.capture_logs() as records:
            hub, ring = line.server.replica.hub, user_ring(transport.stream.user_id)
            for number in range(2 * CAPACITY):
                hub.publish(ring, text_frame(b"x"), number + 1)
            line.server.replica.flusher.mark(ring)
            assert "lagged by" in await line.read()
            deadline = transport.connection.next_deadline()  # for the answer to the close
            assert deadline is not None
            transport.deadline_passed(deadline)
        lagged, passed = (record for record in records if record["event"] in {"stream lagged", "deadline passed"})
        assert lagged == expected | {"event": "stream lagged", "log_level": "info", "missed": 2 * CAPACITY}
        assert passed == expected | {"event": "deadline passed", "log_level": "info", "deadline": passed["deadline"]}


async def test_of_too_many_waiting_answers_the_one_that_waits_longest_is_given_up() -> None:
    """Each page is bounded; readers that take none of it are bounded together."""
    storage = MemoryStorage()
    owner = await add_user(storage)
    channel = await add_channel(storage, await add_guild(storage, owner), owner)
    for _ in range(100):
        await storage.perform(append(channel, text="x" * 10_000))
    async with connected(storage) as line, anyio.create_task_group() as tasks:
        server, path = line.server, f"/channels/{channel}/events?limit=200"
        await storage.perform(GrantServerRole(user_id=line.user, role="moderator", now_ms=NOW))
        server.connection_server.waiting = WaitingAnswers(1_200_000)
        ends = [line.end]
        for _ in range(2):
            ours, theirs = socket.socketpair()
            for end in (ours, theirs):
                end.setblocking(False)
            tasks.start_soon(server.connection_server.serve, ours, "192.0.2.1")
            ends.append(theirs)
        for end in ends:
            await Line(server, line.token, line.user, end).ask("GET", path)  # and reads no more than the beginning
        await eventually(lambda: len(server.connection_server.transports) == 1)
        total = server.connection_server.waiting.total_bytes
        assert 0 < total <= 1_200_000
        rejected = server.metrics.render().decode()
        assert 'openguild_messaging_rejections_total{reason="slow_reader"} 2.0' in rejected
        for end in ends[1:]:
            end.close()
        await eventually(lambda: server.connection_server.waiting.total_bytes == 0)
