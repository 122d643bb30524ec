"""Spans by OpenTelemetry. Imported only where they are wanted: see service/tracing.py."""

import time
from collections.abc import Iterable

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace import Tracer as Spans
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service import __version__

W3C = TraceContextTextMapPropagator()
TRACE_HEADERS = frozenset((b"traceparent", b"tracestate"))


class OtelTracer:
    """A tracer with a provider of its own: no global state."""

    def __init__(self, processor: SpanProcessor) -> None:
        resource = Resource.create({"service.name": "dtn", "service.version": __version__})
        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go before our words.
        resource = resource.merge(OTELResourceDetector().detect())
        self.provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self.provider.add_span_processor(processor)
        self.spans = self.provider.get_tracer("dtn", __version__)

    def begin(self, method: str, headers: Iterable[tuple[bytes, bytes]]) -> "OtelSpan":
        carrier = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in headers
            if name in TRACE_HEADERS
        }
        return OtelSpan(self.spans, method, W3C.extract(carrier, Context()))

    def close(self) -> None:
        self.provider.shutdown()


class OtelSpan:
    """The span of one request."""

    def __init__(self, spans: Spans, method: str, parent: Context) -> None:
        self.spans = spans
        self.method = method
        # Stages are timed by the monotonic clock, spans by the wall's.
        self.epoch_ns = time.time_ns() - time.perf_counter_ns()
        self.span: Span = spans.start_span(
            method, parent, SpanKind.SERVER, {"http.request.method": method}
        )
        self.context = set_span_in_context(self.span, Context())

    def stage(self, name: str, start_ns: int, end_ns: int) -> None:
        child = self.spans.start_span(name, self.context, start_time=start_ns + self.epoch_ns)
        child.end(end_ns + self.epoch_ns)

    def end(self, route: str, status: int, code: str | None) -> None:
        """As semantic conventions for HTTP servers have it: a client's fault is no error."""
        self.span.update_name(f"{self.method} {route}")
        self.span.set_attributes({"http.route": route, "http.response.status_code": status})
        if code is not None:
            self.span.set_attribute("error.type", code)
        if status >= 500:
            self.span.set_status(Status(StatusCode.ERROR))
        self.span.end()


def otlp_tracer() -> OtelTracer:
    """Spans go where the OTEL_EXPORTER_OTLP_* variables say, in batches, in the background."""
    return OtelTracer(BatchSpanProcessor(OTLPSpanExporter()))
