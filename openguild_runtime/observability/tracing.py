"""Optional OpenTelemetry (extra `otel`, key `tracing.otlp_endpoint`) with spans for request, append, publish and flush.

A request's span continues the trace of its `traceparent` header (W3C Trace Context). A publish passes the trace on in a NATS
header, so that the flush on another replica belongs to it too. Without the key, OpenTelemetry is not imported.
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
EXPORT_SECS = 2  # an unreachable collector must not delay the shutdown
MAX_FLUSHES = 1_000  # open flush spans of all rings; further events get none


def traces_url(endpoint: str) -> str:
    """Return the URL for spans: the endpoint with the path of OTLP/HTTP, unless it has that path already."""
    endpoint = endpoint.rstrip("/")
    return endpoint if endpoint.endswith(TRACES_PATH) else endpoint + TRACES_PATH


class Tracing:
    """The traces of a process. `endpoint` is an OTLP/HTTP collector such as `http://collector:4318`, with or without path."""

    def __init__(self, endpoint: str, version: str, server_name: str) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError:
            raise ConfigError(
                "tracing.otlp_endpoint: OpenTelemetry is not installed: pip install 'openguild[otel]', or remove the key"
            ) from None
        resource = Resource.create(
            {"service.name": SERVICE, "service.version": version, "service.namespace": server_name}
        )
        exporter = OTLPSpanExporter(traces_url(endpoint), timeout=EXPORT_SECS)
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("openguild")
        self._propagator = TraceContextTextMapPropagator()
        self._flushes: dict[str, list[Span]] = {}  # open spans by ring
        self.waiting = 0  # the number of open spans

    @contextmanager
    def request(self, request: Request) -> Iterator[Span]:
        """Open a server span for a request. The caller sets route and status later."""
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
        """Open a child of the current span."""
        with self._tracer.start_as_current_span(name):
            yield

    @contextmanager
    def continue_trace(self, carrier: Mapping[str, str]) -> Iterator[None]:
        """Run the body within the trace of another replica's event."""
        from opentelemetry import context

        token = context.attach(self._propagator.extract(dict(carrier)))
        try:
            yield
        finally:
            context.detach(token)

    def carrier(self) -> dict[str, str]:
        """Return the current trace context as headers for another process."""
        headers: dict[str, str] = {}
        self._propagator.inject(headers)
        return headers

    def flush_started(self, channel_id: str) -> None:
        """Open a flush span for an event of the current trace that is in the ring and not flushed yet."""
        from opentelemetry.trace import get_current_span

        if self.waiting >= MAX_FLUSHES or not get_current_span().get_span_context().is_valid:
            return
        self.waiting += 1
        span = self._tracer.start_span("flush", attributes={"openguild.channel_id": channel_id})
        self._flushes.setdefault(channel_id, []).append(span)

    def flushed(self, channel_id: str) -> None:
        """End the ring's flush spans, after a flush to all subscribers that accept data."""
        spans = self._flushes.pop(channel_id, [])
        self.waiting -= len(spans)
        for span in spans:
            span.end()

    def close(self) -> None:
        """Export the remaining spans, within a few seconds."""
        for channel_id in list(self._flushes):
            self.flushed(channel_id)
        self._provider.shutdown()

    async def aclose(self) -> None:
        """Run `close` on a thread. Cancellation does not stop the thread."""
        await wait_for_thread(start_thread(self.close))
