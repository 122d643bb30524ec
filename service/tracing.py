"""Tracing: a span for each request and for its stages, where OpenTelemetry is set up.

Nothing of OpenTelemetry is imported, nor anything done, unless the environment names an
endpoint to send spans to.
"""

import importlib
import logging
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, cast

log = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class RequestSpan(Protocol):
    """The span of a request under way."""

    def stage(self, name: str, start_ns: int, end_ns: int) -> None:
        """Add a span of something that was done for the request."""

    def end(self, route: str, status: int, code: str | None) -> None:
        """The request was answered; `code` is the problem's, where the answer is one."""


class Tracer(Protocol):
    """Begins the spans of requests."""

    def begin(self, method: str, headers: Iterable[tuple[bytes, bytes]]) -> RequestSpan:
        """A request's span, which carries on the trace that its headers name."""

    def close(self) -> None:
        """Send what has not been sent. Blocks."""


# Of the request that the running task answers; worker threads do not know it.
current: ContextVar[RequestSpan | None] = ContextVar("span", default=None)


def stage(name: str, start_ns: int, end_ns: int) -> None:
    """Tell of a stage of this task's request after the fact.

    Times are those of time.perf_counter_ns().
    """
    span = current.get()
    if span is not None:
        span.stage(name, start_ns, end_ns)


@contextmanager
def staged(name: str) -> Iterator[None]:
    """Tell of a stage of this task's request, which takes as long as the context."""
    began = time.perf_counter_ns()
    yield
    stage(name, began, time.perf_counter_ns())


def open_tracer() -> Tracer | None:
    """What the environment asks for; None, with a warning, where that is not installed."""
    name = next((name for name in ENDPOINTS if os.environ.get(name)), None)
    if name is None:
        return None
    try:
        module = importlib.import_module("service.otel")
    except ImportError as error:
        log.warning(
            '%s is set, but nothing is traced: that takes pip install "dtn[otel]" (%s)', name, error
        )
        return None
    return cast(Tracer, module.otlp_tracer())
