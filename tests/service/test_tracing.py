import importlib
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from service import tracing
from service.app import create_app
from service.models import Models
from service.otel import OtelTracer
from service.settings import Settings
from tests.service.test_lifecycle import call

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture(autouse=True)
def no_endpoint_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tracing.ENDPOINTS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: InMemorySpanExporter) -> OtelTracer:
    return OtelTracer(SimpleSpanProcessor(exporter))


def only(exporter: InMemorySpanExporter) -> ReadableSpan:
    (span,) = exporter.get_finished_spans()
    return span


def test_a_request_is_a_span(
    models: Models, tracer: OtelTracer, exporter: InMemorySpanExporter
) -> None:
    app = create_app(Settings(), models, tracer)
    call(app, "GET", "/persons/ann/emoji?model=nothing")
    span = only(exporter)
    assert span.name == "GET /persons/{person}/emoji"
    assert span.kind is SpanKind.SERVER
    assert dict(span.attributes or {}) == {
        "http.request.method": "GET",
        "http.route": "/persons/{person}/emoji",
        "http.response.status_code": 503,
        "error.type": "not_ready",
    }
    assert span.status.status_code is StatusCode.ERROR
    assert span.parent is None
    assert span.resource.attributes["service.name"] == "dtn"


def test_what_went_well_has_no_error_and_a_client_s_fault_is_none_of_ours(
    models: Models, tracer: OtelTracer, exporter: InMemorySpanExporter
) -> None:
    app = create_app(Settings(), models, tracer)
    call(app, "GET", "/health/live")
    call(app, "GET", "/nowhere")
    good, bad = exporter.get_finished_spans()
    assert "error.type" not in (good.attributes or {})
    assert (bad.name, (bad.attributes or {})["error.type"]) == ("GET other", "not_found")
    assert good.status.status_code is bad.status.status_code is StatusCode.UNSET


def test_the_client_s_trace_is_carried_on(
    models: Models, tracer: OtelTracer, exporter: InMemorySpanExporter
) -> None:
    app = create_app(Settings(), models, tracer)
    call(app, "GET", "/models", headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    span = only(exporter)
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == PARENT


@pytest.mark.parametrize(
    "traceparent", ["", "nonsense", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{PARENT}", "é" * 55]
)
def test_a_traceparent_that_is_none_begins_a_trace(
    models: Models, tracer: OtelTracer, exporter: InMemorySpanExporter, traceparent: str
) -> None:
    app = create_app(Settings(), models, tracer)
    response = call(app, "GET", "/models", headers={"traceparent": traceparent.encode()})
    assert response.status_code == 200
    assert only(exporter).parent is None


def test_a_trace_that_the_client_does_not_sample_is_not_recorded(
    models: Models, tracer: OtelTracer, exporter: InMemorySpanExporter
) -> None:
    app = create_app(Settings(), models, tracer)
    call(app, "GET", "/models", headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    assert exporter.get_finished_spans() == ()


def test_stages_are_children_at_the_time_they_took(
    tracer: OtelTracer, exporter: InMemorySpanExporter
) -> None:
    span = tracer.begin("POST", [])
    token = tracing.current.set(span)
    try:
        end = time.perf_counter_ns()
        tracing.stage("decode", end - 2_000_000, end - 500_000)
    finally:
        tracing.current.reset(token)
    span.end("/transfer", 200, None)
    child, parent = exporter.get_finished_spans()
    assert (child.name, parent.name) == ("decode", "POST /transfer")
    assert child.parent is not None
    assert child.parent.span_id == parent.context.span_id
    assert child.start_time is not None
    assert child.end_time is not None
    assert child.end_time - child.start_time == 1_500_000
    assert abs(child.end_time - time.time_ns()) < 5_000_000_000


def test_a_transfer_has_the_stages_of_its_picture(
    models: Models, tracer: OtelTracer, exporter: InMemorySpanExporter, photo: bytes
) -> None:
    app = create_app(Settings(), models, tracer)
    app.state.service.phase = "ready"
    assert not hasattr(app.state, "hot_path")  # which traces nothing
    answer = call(app, "POST", "/transfer", content=photo, headers={"content-type": "image/png"})
    assert answer.status_code == 200
    names = [span.name for span in exporter.get_finished_spans()]
    assert names == ["decode", "draw", "encode", "POST /transfer"]


def test_a_stage_of_no_request_is_nothing() -> None:
    tracing.stage("decode", 0, 1)


def test_nothing_is_traced_unless_there_is_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracing.open_tracer() is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    assert tracing.open_tracer() is None
    program = "import sys, service.server; assert 'opentelemetry.sdk' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_an_endpoint_without_the_packages_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.delitem(sys.modules, "service.otel")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    assert tracing.open_tracer() is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "OTEL_EXPORTER_OTLP_ENDPOINT is set, but nothing is traced" in record.getMessage()
    assert 'pip install "dtn[otel]"' in record.getMessage()


class Collector(BaseHTTPRequestHandler):
    """Takes what an exporter sends."""

    received: list[tuple[str, bytes]]

    def do_POST(self) -> None:
        self.received.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def collector() -> Iterator[HTTPServer]:
    Collector.received = []
    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("variable", "path"),
    [("OTEL_EXPORTER_OTLP_ENDPOINT", ""), ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "/v1/traces")],
)
def test_spans_reach_a_collector(
    collector: HTTPServer,
    models: Models,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    path: str,
) -> None:
    monkeypatch.setenv(variable, f"http://127.0.0.1:{collector.server_port}{path}")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "dtn-of-a-test")
    importlib.import_module("service.otel")
    app = create_app(Settings(), models)
    call(app, "GET", "/models")
    app.state.tracer.close()
    ((received_path, body),) = Collector.received
    assert received_path == "/v1/traces"
    assert b"GET /models" in body
    assert b"dtn-of-a-test" in body
