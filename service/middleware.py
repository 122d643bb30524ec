"""Plain ASGI middleware: what holds for every request, whatever its route."""

import asyncio
import hmac
import logging
import re
import uuid
from collections.abc import Sequence
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import Problem, problem_response

log = logging.getLogger(__name__)

# A client's id is echoed and logged: nothing in it may break a header or a line of the log.
REQUEST_ID = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}")
LINGER_S = 10.0
SMALL_BODY_S = 0.05

OPEN_PATHS = frozenset({"/", "/docs", "/openapi.json", "/metrics", "/health/live", "/health/ready"})


class RequestId:
    """Gives each request an id, each answer X-Request-ID, and each crash a problem as answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sent = Headers(scope=scope).get("x-request-id", "")
        request_id = sent if REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception:
            log.exception("request %s: %s %r", request_id, scope["method"], scope["path"])
            if started:
                raise  # too late for another answer; the server closes the connection
            problem = Problem("internal_error", "an unexpected error; the log tells more")
            await problem_response(problem, request_id)(scope, receive, send_with_id)


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
    """Wants one of the keys of every request but those to OPEN_PATHS."""

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self.app = app
        self.keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or self.admits(scope):
            await self.app(scope, receive, send)
            return
        problem = Problem(
            "unauthorized",
            "send an API key as `Authorization: Bearer KEY` or `X-API-Key: KEY`",
            {"WWW-Authenticate": 'Bearer realm="dtn"'},
        )
        await problem_response(problem, scope["state"]["request_id"])(scope, receive, send)

    def admits(self, scope: Scope) -> bool:
        headers = Headers(scope=scope)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        # Constant time, and no stop at the first match: how long it takes tells nothing.
        matches = [hmac.compare_digest(given.encode("latin-1"), key) for key in self.keys]
        return any(matches)
