"""uvicorn, with what it lacks: bounds on request heads, and readiness off before the port."""

import asyncio
import logging
import socket
import time
import uuid
from types import FrameType

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.app import create_app
from service.lifecycle import Service
from service.problems import MEDIA_TYPE, Problem, problem_response
from service.settings import Settings, unknown_variables

log = logging.getLogger(__name__)

MAX_HEAD_BYTES = 64 * 1024
HEAD_TIMEOUT_S = 10.0
REFUSED_S = 2.0
KEEP_ALIVE_S = 5


class ServeError(Exception):
    """Why the service cannot start, in one line."""


class BoundedHttp(HttpToolsProtocol):
    """HTTP/1.1 whose request heads must be small and prompt, and whose refusals are problems."""

    in_head = True
    head_bytes = 0
    head_timer: asyncio.TimerHandle | None = None
    refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.on_head_awaited()

    def connection_lost(self, exc: Exception | None) -> None:
        self.on_head_received()
        super().connection_lost(exc)

    def on_head_awaited(self) -> None:
        self.on_head_received()
        self.in_head, self.head_bytes = True, 0
        self.head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self.on_head_late)

    def on_head_received(self) -> None:
        self.in_head = False
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None

    def on_head_late(self) -> None:
        if self.head_bytes > 0:
            self.send_400_response("the request head took too long to arrive")
        else:  # a connection opened in advance and never used
            self.transport.close()

    def on_message_begin(self) -> None:
        self.on_head_awaited()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self.on_head_received()
        names = {name for name, _ in self.headers}
        if self.parser.should_upgrade() and names & {b"content-length", b"transfer-encoding"}:
            # httptools would drop the body, as if it were the new protocol's first data.
            self.send_400_response("a request with a body must not ask for an Upgrade")
            return
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        if self.refused:
            return
        super().data_received(data)
        self.head_bytes += len(data) if self.in_head else 0
        if self.head_bytes > MAX_HEAD_BYTES:
            self.send_400_response("the request head is too large")

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP request: the application cannot, it is not called.

        What else arrives is thrown away for a moment: closing a connection on which data is
        arriving resets it, and the client would not see the answer.
        """
        if self.refused or self.transport.is_closing():
            return
        self.refused = True
        self.on_head_received()
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True  # what the application may still send goes nowhere
            if cycle.response_started:  # and would be cut in two by this answer
                self.transport.close()
                return
        self.transport.write(bad_request(msg))
        self.transport.write_eof()
        self.flow.resume_reading()
        self.loop.call_later(REFUSED_S, self.transport.close)


def bad_request(detail: str) -> bytes:
    """The whole HTTP answer to what could not be parsed."""
    request_id = uuid.uuid4().hex
    body = bytes(problem_response(Problem("bad_request", detail), request_id).body)
    head = (
        "HTTP/1.1 400 Bad Request\r\n"
        f"content-type: {MEDIA_TYPE}\r\n"
        f"content-length: {len(body)}\r\n"
        f"x-request-id: {request_id}\r\n"
        "connection: close\r\n\r\n"
    )
    return head.encode("ascii") + body


class Server(uvicorn.Server):
    """A server that tells balancers first: SIGTERM, readiness off, a pause, port closed, end."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service
        self.closing_time = float("inf")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First signal: drain. Second: no more pause. Third: do not wait for requests."""
        # Not handed on to uvicorn, which would raise the signal again at the end: a service
        # that was told to stop and did so exits with 0.
        if self.should_exit:
            self.force_exit = True
        self.should_exit = self.service.phase == "draining"
        if not self.should_exit:
            self.service.drain()
            self.closing_time = time.monotonic() + self.service.settings.drain_delay_s

    async def on_tick(self, counter: int) -> bool:
        """Whether it is time to close the port; called ten times a second."""
        over = time.monotonic() >= self.closing_time or self.service.failure is not None
        return await super().on_tick(counter) or over


def serve(settings: Settings) -> None:
    """Serve until told to stop. Raises ModelError or ServeError where it cannot."""
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for name in unknown_variables():
        log.warning("%s is no setting of the service; see dtn serve --help", name)
    server = make_server(create_app(settings))
    listener = listen(settings.host, settings.port)
    log.info("listening on http://%s:%d", settings.host, listener.getsockname()[1])
    server.run(sockets=[listener])
    if server.service.failure is not None:
        raise server.service.failure


def make_server(app: FastAPI) -> Server:
    """A server for the application, not yet listening."""
    service: Service = app.state.service
    config = uvicorn.Config(
        app,
        http=BoundedHttp,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=service.settings.shutdown_grace_s,
    )
    return Server(config, service)


def listen(host: str, port: int) -> socket.socket:
    """A socket that accepts connections. Raises ServeError where the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ServeError(f"cannot listen on {host} port {port}: {error.strerror}") from error
