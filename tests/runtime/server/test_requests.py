"""What is answered, counted and logged for requests and streams, over a socket pair."""

from __future__ import annotations

import json
from typing import TypeVar

import pytest
import structlog

from openguild_proto.effects import Overloaded, StorageEffect, StorageUnavailable
from openguild_proto.effects.replica import ReadVisible
from openguild_proto.events import Event
from openguild_proto.replica.actions import Flush, Urgency
from openguild_proto.replica.notifications import user_ring
from openguild_proto.sessions.tokens import Claims
from openguild_proto.ws.frames import text_frame
from openguild_runtime.net.transport import Transport
from openguild_runtime.observability.log_context import request_id as current_request_id
from openguild_runtime.storage.memory import MemoryStorage
from tests.support.deeds import login
from tests.support.line import connected
from tests.support.waiting import eventually
from tests.support.wire import masked

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


@pytest.mark.parametrize("path", ["/notifications/ws", "/gateway"])
async def test_a_socket_behind_a_proxy_is_read_in_the_turns_of_its_client(path: str) -> None:
    async with connected(trusted_proxies=("192.0.2.1",)) as line:
        (transport,) = line.server.connection_server.transports
        assert transport.socket.turns_of == "192.0.2.1"
        answer = await line.upgrade(path, "x-forwarded-for: 198.51.100.7", "sec-websocket-protocol: openguild.v2")
        assert answer.startswith("HTTP/1.1 101 ")
        assert transport.socket.turns_of == "198.51.100.7"


async def test_records_about_a_stream_name_its_request_its_user_and_its_channel() -> None:
    async with connected(queue_capacity=CAPACITY) as line:
        assert (await line.upgrade()).startswith("HTTP/1.1 101 ")
        (transport,) = line.server.replica.streams.transports()
        assert transport.stream is not None
        expected = {
            "peer": "192.0.2.1", "request_id": "the-upgrade", "user_id": transport.stream.user_id, "channel_id": None,
        }  # fmt: skip
        with structlog.testing.capture_logs() as records:
            hub, ring = line.server.replica.replica.hub, user_ring(transport.stream.user_id)
            for number in range(2 * CAPACITY):
                hub.publish(ring, text_frame(b"x"), number + 1)
            line.server.replica.actions.perform(Flush(ring, Urgency.SOON))
            assert "lagged by" in await line.read()
            deadline = transport.connection.next_deadline()  # for the answer to the close
            assert deadline is not None
            transport._clock = lambda: deadline
            transport.deadline_passed()
        lagged, passed = (record for record in records if record["event"] in {"stream lagged", "deadline passed"})
        assert lagged == expected | {"event": "stream lagged", "log_level": "info", "missed": 2 * CAPACITY}
        assert passed == expected | {"event": "deadline passed", "log_level": "info", "deadline": passed["deadline"]}


async def test_a_stream_that_fails_is_named_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reader runs in no request's context."""

    def fail(transport: Transport, event: Event) -> None:
        raise RuntimeError("a defect")

    async with connected() as line:
        await line.upgrade()
        (transport,) = line.server.replica.streams.transports()
        expected = transport.described
        assert expected["request_id"] == "the-upgrade"
        monkeypatch.setattr(line.server.connection_server._handler, "report", fail)
        with structlog.testing.capture_logs() as records:
            line.end.sendall(masked(0x81, b"hello"))
            await eventually(lambda: not line.server.connection_server.transports)
        (failed,) = (record for record in records if record["event"] == "connection failed")
        assert failed.items() >= expected.items()


class Noting(MemoryStorage):
    """Keeps the id that records about its calls carry."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[str | None] = []

    async def perform(self, effect: StorageEffect[T]) -> T:
        self.noted.append(current_request_id.get())
        return await super().perform(effect)


async def test_a_token_that_a_gateway_socket_sends_is_checked_under_the_id_of_its_upgrade() -> None:
    storage = Noting()
    async with connected(storage) as line:
        await line.upgrade("/gateway")
        while '"type":"ready"' not in await line.read():
            pass
        session = login(line.user, 2, "desktop")  # one that the replica has not seen
        await storage.perform(session)
        now_us = int(line.server.sources.wall() * 1_000_000)
        claims = Claims(session.session_id, line.user, "name", now_us, now_us + 10**9)
        storage.noted.clear()
        token = line.server.service.tokens.issue(claims)
        line.end.sendall(masked(0x81, json.dumps({"type": "auth", "token": token, "ref": 1}).encode()))
        await eventually(lambda: storage.noted)
        assert set(storage.noted) == {"the-upgrade"}
