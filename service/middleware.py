"""Plain ASGI middleware: what holds for every request, whatever its route."""

import asyncio
import hmac
import logging
import random
import re
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.headers import ConstantHeaders
from service.logs import log_access, request_id
from service.metrics import Metrics, Templates
from service.problems import Problem, problem_response
from service.tracing import Tracer, current

log = logging.getLogger(__name__)

# A client's id is echoed and logged: nothing in it may break a header or a line of the log.
REQUEST_ID = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}")
LINGER_S = 10.0
SMALL_BODY_S = 0.05

OPEN_PATHS = frozenset(
    (
        *("/", "/docs", "/openapi.json", "/metrics", "/health/live", "/health/ready"),
        *("/v2", "/v2/health/live", "/v2/health/ready"),
    )
)

# Of a page of another origin: what it may send, and what it may read beside the body.
ALLOWED_HEADERS = (
    "Authorization",
    "X-API-Key",
    "X-Request-ID",
    "X-Timeout-Ms",
    "If-None-Match",
    "Traceparent",
    "Inference-Header-Content-Length",
)
EXPOSED_HEADERS = (
    *("X-Request-ID", "X-Model", "X-F-Distance", "Retry-After", "ETag"),
    "Inference-Header-Content-Length",
)


class Envelope:
    """What surrounds every request: an id and the constant headers for its answer, a problem for
    a crash, and the record: metrics, a line of the access log, a span."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        templates: Templates,
        constant: ConstantHeaders,
        access_log: bool = False,
        tracer: Tracer | None = None,
    ) -> None:
        self.app = app
        self.metrics = metrics
        self.templates = templates
        self.constant = constant
        self.access_log = access_log
        self.tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        method: str = scope["method"]
        sent = Headers(scope=scope).get("x-request-id", "")
        own = sent if REQUEST_ID.fullmatch(sent) else new_id()
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = own
        request_id.set(own)
        headers = ((b"x-request-id", own.encode()), *self.constant.of(method, scope["path"]))
        line = AccessLine(receive) if self.access_log else None
        span = self.tracer.begin(method, scope["headers"]) if self.tracer else None
        current.set(span)
        status = 0
        ended = 0.0

        async def send_on(message: Message) -> None:
            nonlocal status, ended
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *headers]
                if line is not None:
                    line.read_headers(message["headers"])
            elif not message.get("more_body", False):
                ended = time.perf_counter()  # what Linger waits for after that does not count
            await send(message)

        try:
            await self.app(scope, receive if line is None else line.receive, send_on)
        except Exception:
            log.exception("request %s: %s %s", own, method, self.templates.of(scope))
            if status:
                raise  # too late for another answer; the server closes the connection
            problem = Problem("internal_error", "an unexpected error; the log tells more")
            await problem_response(problem, own)(scope, receive, send_on)
        finally:
            status = status or 500  # cancelled, as the server answers then
            seconds = (ended or time.perf_counter()) - began
            route = self.templates.of(scope)
            code: str | None = state.get("problem")
            self.metrics.answered(method, route, status, seconds)
            if code is not None:
                self.metrics.rejected(code)
            if line is not None:
                log_access(own, method, route, status, seconds, line.bytes_in, line.model)
            if span is not None:
                span.end(route, status, code)


def new_id() -> str:
    """An id that no other request has. It is no secret, and uuid4() asks the system each time."""
    return f"{random.getrandbits(128):032x}"


class AccessLine:
    """What the access log tells of a request beyond what is known anyway."""

    def __init__(self, receive: Receive) -> None:
        self.receive_on = receive
        self.bytes_in = 0
        self.model: str | None = None

    async def receive(self) -> Message:
        message = await self.receive_on()
        self.bytes_in += len(message.get("body", b""))
        return message

    def read_headers(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.model = next((v.decode("latin-1") for k, v in headers if k == b"x-model"), None)


class Cors(CORSMiddleware):
    """Starlette's, which lets pages of other origins use the service, with problems as errors."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("GET", "HEAD", "POST", "DELETE"),
            allow_headers=ALLOWED_HEADERS,
            expose_headers=EXPOSED_HEADERS,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        problem = Problem("bad_request", bytes(response.body).decode())
        return problem_response(problem, request_id.get() or "")


class Linger:
    """Lets clients read an answer that came before their upload was complete.

    Closing a connection on which data is still arriving resets it, and many clients then never
    see the 413 they were sent. So the answer goes out in full, then what still arrives is
    thrown away for up to LINGER_S seconds, then the connection is closed. A small body is taken
    before the answer, which spares the client a new connection.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else {}
        if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
            await self.app(scope, receive, send)
            return
        arriving = True
        length = headers.get("content-length", "")
        # A client that expects 100-continue may never send the body.
        small = length.isdecimal() and len(length) <= 4 and "expect" not in headers

        async def tracked_receive() -> Message:
            nonlocal arriving
            message = await receive()
            arriving = message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def drain(seconds: float) -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    while arriving:
                        await tracked_receive()

        async def lingering_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                if small:
                    await drain(SMALL_BODY_S)
                if arriving:
                    MutableHeaders(scope=message)["Connection"] = "close"
            last = message["type"] == "http.response.body" and not message.get("more_body", False)
            if not (last and arriving):
                await send(message)
                return
            await send({**message, "more_body": True})
            await drain(LINGER_S)
            await send({"type": "http.response.body", "body": b""})

        await self.app(scope, tracked_receive, lingering_send)


class ApiKeys:
    """Wants one of the keys of every request but those to `exempt` paths."""

    def __init__(
        self, app: ASGIApp, keys: Sequence[str], exempt: frozenset[str] = OPEN_PATHS
    ) -> None:
        self.app = app
        self.exempt = exempt
        self.keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self.exempt:
            await self.app(scope, receive, send)
            return
        key = self.find(scope)
        if key is not None:
            scope["state"]["key"] = key
            await self.app(scope, receive, send)
            return
        problem = Problem(
            "unauthorized",
            "send an API key as `Authorization: Bearer KEY` or `X-API-Key: KEY`",
            {"WWW-Authenticate": 'Bearer realm="dtn"'},
        )
        await problem_response(problem, scope["state"]["request_id"])(scope, receive, send)

    def find(self, scope: Scope) -> int | None:
        """The place in the list of the key that a request carries."""
        headers = Headers(scope=scope)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        # Constant time, and no stop at the first match: how long it takes tells nothing.
        matches = [hmac.compare_digest(given.encode("latin-1"), key) for key in self.keys]
        return matches.index(True) if any(matches) else None
