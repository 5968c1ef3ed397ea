"""Optional OpenTelemetry (extra `otel`, key `tracing.otlp_endpoint`): request, append, publish and flush as spans.

A request's span continues the trace of its `traceparent` header (W3C Trace Context); publish carries it on in a NATS
header, so that the flush on another replica belongs to the same trace. Without the key nothing here is imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from openguild_proto.http.message import Request
from openguild_runtime.config.layers import ConfigError
from openguild_runtime.system.threads import start_thread, wait_for_thread

if TYPE_CHECKING:
    from opentelemetry.trace import Span

TRACES_PATH = "/v1/traces"
SERVICE = "openguild-server"
EXPORT_SECS = 2  # a collector that is away must not hold the end of the server
MAX_FLUSHES = 1_000  # spans of flushes that have not come yet, of all channels; events beyond it go without


def traces_url(endpoint: str) -> str:
    """Where the spans go: a collector's address gets OTLP/HTTP's path unless it ends with it."""
    endpoint = endpoint.rstrip("/")
    return endpoint if endpoint.endswith(TRACES_PATH) else endpoint + TRACES_PATH


class Tracing:
    """One per process. `endpoint`: an OTLP/HTTP collector, such as `http://collector:4318`, with or without `/v1/traces`."""

    def __init__(self, endpoint: str, version: str, server_name: str) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError:
            raise ConfigError(
                "tracing.otlp_endpoint: OpenTelemetry is not installed: pip install 'openguild[otel]', or drop the key"
            ) from None
        resource = Resource.create(
            {"service.name": SERVICE, "service.version": version, "service.namespace": server_name}
        )
        exporter = OTLPSpanExporter(traces_url(endpoint), timeout=EXPORT_SECS)
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("openguild")
        self._propagator = TraceContextTextMapPropagator()
        self._flushes: dict[str, list[Span]] = {}  # by ring, while it waits for its flush
        self.waiting = 0  # spans in there

    @contextmanager
    def request(self, request: Request) -> Iterator[Span]:
        """A server span around the answer; its route and status are set when they are known."""
        from opentelemetry.trace import SpanKind

        parent = self._propagator.extract(dict(request.headers))
        attributes = {
            "http.request.method": request.shown_method,
            "openguild.request_id": request.request_id,
            "client.address": request.client_address,
        }
        with self._tracer.start_as_current_span(
            request.shown_method, context=parent, kind=SpanKind.SERVER, attributes=attributes
        ) as span:
            yield span

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A span within the current one."""
        with self._tracer.start_as_current_span(name):
            yield

    @contextmanager
    def continue_trace(self, carrier: Mapping[str, str]) -> Iterator[None]:
        """Within it, what begins belongs to the trace that came with an event of another replica."""
        from opentelemetry import context

        token = context.attach(self._propagator.extract(dict(carrier)))
        try:
            yield
        finally:
            context.detach(token)

    def carrier(self) -> dict[str, str]:
        """The current span's place, for another process."""
        headers: dict[str, str] = {}
        self._propagator.inject(headers)
        return headers

    def flush_started(self, channel_id: str) -> None:
        """An event of the current trace is in the channel's ring, on its way to this replica's subscribers."""
        from opentelemetry.trace import get_current_span

        if self.waiting >= MAX_FLUSHES or not get_current_span().get_span_context().is_valid:
            return
        self.waiting += 1
        span = self._tracer.start_span("flush", attributes={"openguild.channel_id": channel_id})
        self._flushes.setdefault(channel_id, []).append(span)

    def flushed(self, channel_id: str) -> None:
        """All subscribers of the channel that take bytes have them."""
        spans = self._flushes.pop(channel_id, [])
        self.waiting -= len(spans)
        for span in spans:
            span.end()

    def close(self) -> None:
        """Send what waits, for a few seconds at most."""
        for channel_id in list(self._flushes):
            self.flushed(channel_id)
        self._provider.shutdown()

    async def aclose(self) -> None:
        """The same on a thread, which one who is cancelled leaves to itself."""
        await wait_for_thread(start_thread(self.close))
