"""One request traced across replicas: its id in both logs, its trace from the client's header to both flushes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from openguild_runtime.embedded import EmbeddedNats
from openguild_runtime.observability.tracing import MAX_FLUSHES, Tracing, traces_url
from tests.support.chat import User, receive
from tests.support.server import ServerProcess
from tests.support.waiting import free_port, wait_until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Collector:
    """Receives OTLP over HTTP and keeps the spans."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Span]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
                for resource in request.resource_spans:
                    name = {item.key: item.value.string_value for item in resource.resource.attributes}["service.name"]
                    collector.spans += [(name, span) for scope in resource.scope_spans for span in scope.spans]
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                """Log nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def test_a_post_is_followed_to_the_other_replica(
    collector: Collector,
    new_database: Callable[[], str],
    nats_server: EmbeddedNats,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENGUILD_LOG", "info,openguild=debug")
    settings = {"DATABASE_URL": new_database(), "NATS__URL": nats_server.url, "TRACING__OTLP_ENDPOINT": collector.url}
    with ServerProcess(tmp_path, **settings).start() as here, ServerProcess(tmp_path, **settings).start() as there:
        alice = here.chat().user()
        channel = alice.channel(alice.guild())
        elsewhere = User(there.chat(), alice.name, alice.token, "", "")
        with alice.stream(channel) as near, elsewhere.stream(channel) as far:
            path = f"/channels/{channel}/messages"
            headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "x-request-id": "followed-1"}
            assert alice.post(path, {"content": "x"}, **headers).headers["x-request-id"] == "followed-1"
            receive(near, 1)
            receive(far, 1)
        assert here.stop() == there.stop() == 0, "what is left is sent at the end"
        for server in (here, there):
            found = [record["message"] for record in server.records() if record.get("request_id") == "followed-1"]
            assert found[-1] == ("request completed" if server is here else "event from another replica")
    wait_until(lambda: len(traced(collector)) >= 5, what="the spans")
    spans = traced(collector)
    assert sorted(span.name for span in spans) == [
        "POST /channels/{channel_id}/messages",
        "append",
        "flush",
        "flush",
        "publish",
    ]
    by_id = {span.span_id: span for span in spans}
    (request,) = [span for span in spans if span.name.startswith("POST")]
    assert request.parent_span_id.hex() == "00f067aa0ba902b7"
    attributes = {item.key: item.value for item in request.attributes}
    assert attributes["http.response.status_code"].int_value == 200
    assert attributes["openguild.request_id"].string_value == "followed-1"
    parents = sorted(by_id[span.parent_span_id].name.split()[0] for span in spans if span.name == "flush")
    assert parents == ["POST", "publish"], "here within the request, there behind what NATS carried"
    assert all(span.end_time_unix_nano >= span.start_time_unix_nano > 0 for span in spans)


def test_an_event_that_nobody_listens_to_has_no_flush(
    collector: Collector, new_database: Callable[[], str], nats_server: EmbeddedNats, tmp_path: Path
) -> None:
    settings = {"DATABASE_URL": new_database(), "NATS__URL": nats_server.url, "TRACING__OTLP_ENDPOINT": collector.url}
    with ServerProcess(tmp_path, **settings).start() as here, ServerProcess(tmp_path, **settings).start() as there:
        alice = here.chat().user()
        channel = alice.channel(alice.guild())
        elsewhere = User(there.chat(), alice.name, alice.token, "", "")
        with elsewhere.notifications() as heard:  # this replica subscribes to the channel, but has no ring for it
            headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
            assert alice.post(f"/channels/{channel}/messages", {"content": "x"}, **headers).status_code == 200
            receive(heard, 1)
        assert here.stop() == there.stop() == 0, "whatever was begun is ended and sent"
    wait_until(lambda: len(traced(collector)) >= 3, what="the spans")
    assert sorted(span.name.split()[0] for span in traced(collector)) == ["POST", "append", "publish"]


def test_what_waits_for_its_flush_is_bounded() -> None:
    tracing = Tracing(f"http://127.0.0.1:{free_port()}", "0", "here")
    with tracing.step("a request"):
        for number in range(MAX_FLUSHES + 10):
            tracing.flush_started(str(number % 7))
    tracing.flush_started("outside of any trace")
    assert tracing.waiting == MAX_FLUSHES
    tracing.flushed("0")
    assert tracing.waiting == MAX_FLUSHES - 143
    tracing.close()
    assert tracing.waiting == 0


def traced(collector: Collector) -> list[Span]:
    assert {name for name, _ in collector.spans} <= {"openguild-server"}
    return [span for _, span in collector.spans if span.trace_id.hex() == TRACE]


def test_a_collector_that_is_away_stops_nobody(database_url: str, tmp_path: Path) -> None:
    settings = {"DATABASE_URL": database_url, "TRACING__OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    with ServerProcess(tmp_path, **settings).start() as server:
        alice = server.chat().user()
        alice.say(alice.channel(alice.guild()), "x")
        assert server.stop(secs=30) == 0


@pytest.mark.parametrize(
    "endpoint", ["http://c:4318", "http://c:4318/", "http://c:4318/v1/traces", "http://c:4318/v1/traces/"]
)
def test_the_path_is_appended_where_it_is_missing(endpoint: str) -> None:
    assert traces_url(endpoint) == "http://c:4318/v1/traces"
