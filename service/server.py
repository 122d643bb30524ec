"""uvicorn, with what it lacks: bounds on request heads, and readiness off before the port."""

import asyncio
import ctypes
import gc
import logging
import signal
import socket
import sys
import threading
import time
import uuid
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import cast

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from service.app import create_app
from service.headers import ConstantHeaders
from service.hot import Head, HotPath, HotRequest, head_of
from service.lifecycle import Service
from service.models import Models
from service.problems import MEDIA_TYPE, Problem, problem_response
from service.settings import Settings

log = logging.getLogger(__name__)

MAX_HEAD_BYTES = 64 * 1024
HEAD_TIMEOUT_S = 10.0
REFUSED_S = 2.0
KEEP_ALIVE_S = 5
BODY_SOON_S = 0.25  # a body that takes longer goes the usual way
M_ARENA_MAX = -8  # malloc.h
SWITCH_S = 0.5e-3


class ServeError(Exception):
    """Why the service cannot start, in one line."""


class BoundedHttp(HttpToolsProtocol):
    """HTTP/1.1 whose request heads must be small and prompt, and whose refusals are problems.

    What its HotPath takes is answered without the parser and the application.
    """

    hot_path: HotPath | None = None
    in_message = False  # that the parser is reading
    in_head = True
    head_bytes = 0
    head_timer: asyncio.TimerHandle | None = None
    refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self.on_head_received()
        if isinstance(self.cycle, HotCycle):
            self.cycle.abandon()
        super().connection_lost(exc)

    def await_head(self) -> None:
        """From now on the rest of the request's head must come in time."""
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
        self.in_message, self.in_head, self.head_bytes = True, True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self.on_head_received()
        names = {name for name, _ in self.headers}
        if self.parser.should_upgrade() and names & {b"content-length", b"transfer-encoding"}:
            # httptools would drop the body, as if it were the new protocol's first data.
            self.send_400_response("a request with a body must not ask for an Upgrade")
            return
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self.in_message = False
        super().on_message_complete()

    def is_idle(self) -> bool:
        """Whether the next byte begins a request, and no answer is under way, nor stuck."""
        idle = self.cycle is None or self.cycle.response_complete
        return idle and not (self.in_message or self.flow.write_paused or self.pipeline)

    def take_hot(self, data: bytes) -> bool:
        """Take data for the HotPath: a request's head with all or some of its body, or more of
        that; False where it is for the parser."""
        cycle = self.cycle
        if isinstance(cycle, HotCycle) and cycle.is_incomplete():
            cycle.data += data
        else:
            head = head_of(data) if self.is_idle() else None
            if head is None:
                return False
            self._unset_keepalive_if_required()
            self.on_head_received()
            self.cycle = cycle = HotCycle(head, data)
        missing = cycle.head.size + cycle.head.length - len(cycle.data)
        if missing > 0:
            if cycle.timer is None:
                cycle.timer = self.loop.call_later(BODY_SOON_S, self.on_body_late, cycle)
            return True
        cycle.stop_waiting()
        if missing < 0 or not self.begin_hot(cycle):
            self.hand_on(cycle)
        return True

    def on_body_late(self, cycle: "HotCycle") -> None:
        if self.cycle is cycle and cycle.is_incomplete():
            self.hand_on(cycle)  # where there is a limit to how late

    def hand_on(self, cycle: "HotCycle") -> None:
        """Let the parser and the application have what has come of a request."""
        self.cycle = None  # type: ignore[assignment]
        self.parse(cycle.data)

    def begin_hot(self, cycle: "HotCycle") -> bool:
        """Let a complete request be answered by the HotPath, if that takes it."""
        path = cast(HotPath, self.hot_path)
        found = path.picture(cycle.head, cycle.data[cycle.head.size :])
        if found is None:
            return False
        batcher, content = found
        cycle.request = HotRequest(path, cycle.head, batcher, partial(self.answer_hot, cycle))
        return cycle.request.begin(content)

    def answer_hot(self, cycle: "HotCycle", status: int, head: bytes, content: bytes) -> None:
        """Write a whole answer, and go on to what the connection brings next."""
        if cycle.disconnected or cycle.response_complete or self.transport.is_closing():
            return
        own = b"".join(b"%s: %s\r\n" % header for header in self.server_state.default_headers)
        if not cycle.keep_alive:
            own += b"connection: close\r\n"
        self.transport.write(b"".join((STATUS_LINE[status], own, head, b"\r\n", content)))
        cycle.response_complete = True
        cycle.request = None  # they refer to each other
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def data_received(self, data: bytes) -> None:
        if not self.refused and (self.hot_path is None or not self.take_hot(data)):
            self.parse(data)

    def parse(self, data: bytes) -> None:
        """Let the parser have data, and the limits of heads apply."""
        super().data_received(data)
        if not self.in_head:
            return
        self.head_bytes += len(data)
        if self.head_bytes > MAX_HEAD_BYTES:
            self.send_400_response("the request head is too large")
        elif self.head_timer is None:  # most heads come whole, and need none
            self.await_head()

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
        app = cast(FastAPI, self.config.app)
        app.state.service.metrics.rejected("bad_request")
        self.transport.write(bad_request(msg))
        self.transport.write_eof()
        self.flow.resume_reading()
        self.loop.call_later(REFUSED_S, self.transport.close)


class HotCycle(RequestResponseCycle):
    """What the protocol wants to know of a request that goes the HotPath."""

    def __init__(self, head: Head, data: bytes) -> None:
        self.head = head
        self.data = data  # that has come, the head included
        self.keep_alive = head.keep_alive
        self.disconnected = False
        self.response_started = False
        self.response_complete = False
        self.message_event = NOBODY_WAITS
        self.request: HotRequest | None = None
        self.timer: asyncio.TimerHandle | None = None  # while the body is awaited

    def stop_waiting(self) -> None:
        """The body has come, or never will."""
        if self.timer is not None:
            self.timer.cancel()

    def is_incomplete(self) -> bool:
        """Whether the body has not come whole."""
        return self.request is None and not self.response_complete

    def abandon(self) -> None:
        """The client has left."""
        self.disconnected = True
        self.stop_waiting()
        if self.request is not None:
            self.request.cancel()


NOBODY_WAITS = asyncio.Event()


def bad_request(detail: str) -> bytes:
    """The whole HTTP answer to what could not be parsed."""
    request_id = uuid.uuid4().hex
    body = bytes(problem_response(Problem("bad_request", detail), request_id).body)
    head = (
        "HTTP/1.1 400 Bad Request\r\n"
        f"content-type: {MEDIA_TYPE}\r\n"
        f"content-length: {len(body)}\r\n"
        f"x-request-id: {request_id}\r\n"
        "connection: close\r\n"
    )
    constant = b"".join(b"%s: %s\r\n" % header for header in ConstantHeaders().usual)
    return head.encode("ascii") + constant + b"\r\n" + body


class Server(uvicorn.Server):
    """A server that tells balancers first: SIGTERM, readiness off, a pause, port closed, end."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service
        self.closing_time = float("inf")
        self.reloads: set[asyncio.Task[None]] = set()  # kept, lest they be collected half done

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """From now on SIGHUP reloads the models."""
        share_memory()
        # So long may a thread that comes back from a run have to wait for the interpreter.
        sys.setswitchinterval(SWITCH_S)
        await super().startup(sockets)
        if threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.reload)

    def reload(self) -> None:
        """Begin to reload; what comes of it is logged."""
        self.reloads.add(task := asyncio.create_task(self.service.reload_by_signal()))
        task.add_done_callback(self.reloads.discard)

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


def share_memory() -> None:
    """Let all threads allocate from one place, where the C library is glibc.

    It gives each thread a place of its own, and in each stays what large pictures have needed.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def settle() -> None:
    """Tell the garbage collector that what is there now will stay.

    It looks at all long-lived objects only once as many new ones have come as a quarter of them:
    that pauses everything for long, and lets garbage pile up until then. Frozen ones don't count.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def serve(settings: Settings, models: Models) -> None:
    """Serve until told to stop. Raises ModelError, ServeError or StoreError where it cannot."""
    server = make_server(create_app(settings, models))
    server.service.settle = settle
    listener = listen(settings.host, settings.port)
    log.info("listening on http://%s:%d", settings.host, listener.getsockname()[1])
    server.run(sockets=[listener])
    if server.service.failure is not None:
        raise server.service.failure


def make_server(app: FastAPI) -> Server:
    """A server for the application, not yet listening."""
    return Server(config_of(app), app.state.service)


def config_of(app: FastAPI) -> uvicorn.Config:
    """How uvicorn serves the application."""
    settings: Settings = app.state.service.settings

    class Http(BoundedHttp):
        hot_path = getattr(app.state, "hot_path", None)

    return uvicorn.Config(
        app,
        http=Http,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.shutdown_grace_s,
    )


def listen(host: str, port: int, shared: bool = False) -> socket.socket:
    """A socket that accepts connections, `shared` where other processes have one, too.

    Raises ServeError where the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048, reuse_port=shared)
    except (OSError, ValueError) as error:  # ValueError: this system shares no ports
        reason = error.strerror if isinstance(error, OSError) else error
        raise ServeError(f"cannot listen on {host} port {port}: {reason}") from error


def reserve(host: str, port: int) -> socket.socket:
    """A socket that holds an address for processes that will share it, but does not listen.

    Raises ServeError where the address cannot be had, also where others share it already.
    """
    with listen(host, port) as alone:
        address = alone.getsockname()
        reserved = socket.socket(alone.family)
    try:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if alone.family == socket.AF_INET6:  # as create_server does
            reserved.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        reserved.bind(address)
    except (OSError, AttributeError) as error:  # AttributeError: this system shares no ports
        reserved.close()
        raise ServeError(f"cannot share port {address[1]} of {host}: {error}") from error
    return reserved
