"""Optional OpenTelemetry (extra `otel`, key `tracing.otlp_endpoint`): request, append, publish and flush as spans.

A request's span continues the trace of its `traceparent` header (W3C Trace Context); publish carries it on in a NATS
header, so that the flush on another replica belongs to the same trace. Without the key nothing here is imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from openguild_proto.http.message import Request
from openguild_runtime.config_layers import ConfigError

if TYPE_CHECKING:
    from opentelemetry.trace import Span

SERVICE = "openguild-server"
HEADER = "traceparent"
EXPORT_SECS = 2  # a collector that is away must not hold the end of the server
MAX_FLUSHES = 1_000  # spans of flushes that have not come yet, per channel; beyond it they end unflushed


class Tracing:
    """One per process. `endpoint`: an OTLP/HTTP collector, such as `http://collector:4318`."""

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
        exporter = OTLPSpanExporter(endpoint.rstrip("/") + "/v1/traces", timeout=EXPORT_SECS)
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("openguild")
        self._propagator = TraceContextTextMapPropagator()
        self._flushes: dict[str, list[Span]] = {}

    @contextmanager
    def request(self, request: Request) -> Iterator[Span]:
        """A server span around the answer; its route and status are set when they are known."""
        from opentelemetry.trace import SpanKind

        parent = self._propagator.extract(dict(request.headers))
        attributes = {
            "http.request.method": request.method,
            "openguild.request_id": request.request_id,
            "client.address": request.client_address,
        }
        with self._tracer.start_as_current_span(
            request.method, context=parent, kind=SpanKind.SERVER, attributes=attributes
        ) as span:
            yield span

    @contextmanager
    def step(self, name: str, **attributes: str | int) -> Iterator[None]:
        """A span within the current one."""
        with self._tracer.start_as_current_span(name, attributes=attributes):
            yield

    def carrier(self) -> dict[str, str]:
        """The current span's place, for another process."""
        headers: dict[str, str] = {}
        self._propagator.inject(headers)
        return headers

    def flush_begins(self, channel_id: str, carrier: Mapping[str, str] | None = None) -> None:
        """An event is on its way to this replica's subscribers; `carrier` came with it from another one."""
        waiting = self._flushes.setdefault(channel_id, [])
        if len(waiting) >= MAX_FLUSHES:
            self.flushed(channel_id)
        parent = self._propagator.extract(dict(carrier)) if carrier is not None else None
        attributes = {"openguild.channel_id": channel_id}
        self._flushes.setdefault(channel_id, []).append(
            self._tracer.start_span("flush", context=parent, attributes=attributes)
        )

    def flushed(self, channel_id: str) -> None:
        """All subscribers of the channel that take bytes have them."""
        for span in self._flushes.pop(channel_id, ()):
            span.end()

    def close(self) -> None:
        """Send what waits, for a few seconds at most."""
        for channel_id in list(self._flushes):
            self.flushed(channel_id)
        self._provider.shutdown()
