"""POST /transfer of a small picture, answered where it arrives.

A picture of a few kilobytes is decoded, drawn and encoded in less time than a request takes to
go through an ASGI application, its middleware and its router. So the protocol offers what begins
as such a request to a `HotPath`, which answers what is ordinary as the usual way would, and leaves
all else to that: JSON, distances, large pictures, whatever is wrong with a request.

A client writes the same head before each of its pictures, but for their length. So heads are
remembered with what they ask for, and parsed once.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

import httptools

from service.batching import Batcher, Drawn
from service.headers import ConstantHeaders
from service.lifecycle import Service
from service.middleware import REQUEST_ID, ApiKeys, new_id
from service.negotiation import Choice, negotiate
from service.pictures import MEDIA_TYPES, Pixels
from service.png import SMALL, decode_png, encode_png, is_small_png
from service.problems import Problem, problem_response
from service.routes import transfer_query
from service.schemas import TransferQuery
from service.settings import Settings
from service.transfer import SHORT_BODY
from service.uploads import only_file

PATH = b"/transfer"
BEGINNING = b"POST " + PATH
HEAD_END = b"\r\n\r\n"
LONG_HEAD = 2048  # bytes; longer ones are not worth remembering
# What asks for things that only the usual way does.
UNUSUAL = frozenset(
    (
        *(b"transfer-encoding", b"content-encoding", b"expect", b"upgrade"),
        *(b"x-timeout-ms", b"traceparent"),
    )
)
PNG = Choice("picture", "png")
PNG_TYPE = MEDIA_TYPES["png"].encode()
FAILED = Problem("internal_error", "an unexpected error; the log tells more")

log = logging.getLogger(__name__)

Write = Callable[[int, bytes, bytes], None]  # a status, lines of headers, a body


@dataclass(frozen=True, slots=True)
class Head:
    """What the head of an ordinary request says."""

    size: int  # bytes of the head itself
    length: int  # bytes of the body
    query: TransferQuery
    content_type: str
    request_id: str | None
    keep_alive: bool
    headers: tuple[tuple[bytes, bytes], ...]


class HotPath:
    """The way of ordinary requests; one for all connections of a service."""

    def __init__(self, service: Service, keys: ApiKeys | None) -> None:
        self.service = service
        self.keys = keys
        self.constant = lines(ConstantHeaders().of("POST", "/transfer"))
        self.most_pixels = min(SMALL, service.settings.max_pixels)
        self.deadline_s = service.settings.deadline_s
        self.under_way: deque[HotRequest] = deque()  # the next to be late first
        self.timer: asyncio.TimerHandle | None = None

    @staticmethod
    def suits(settings: Settings, traced: bool) -> bool:
        """Whether no setting wants more to be done for a request than is done here."""
        return not (traced or settings.access_log or settings.rate_limit or settings.cors_origins)

    def picture(self, head: Head, body: bytes) -> tuple[Batcher, bytes] | None:
        """The encoded picture and the queue it goes to, or None."""
        service = self.service
        if service.phase == "starting":
            return None
        if self.keys and self.keys.find({"type": "http", "headers": head.headers}) is None:
            return None
        content_type = head.content_type
        content = body if content_type.startswith("image/") else only_file(body, content_type)
        if content is None or not is_small_png(content, self.most_pixels):
            return None
        try:
            batcher = service.batcher(head.query.model)
        except Problem:
            return None
        return (batcher, content) if draws_small(batcher) else None

    def expect(self, request: "HotRequest") -> None:
        """From now on a request must be answered in time."""
        self.under_way.append(request)
        if self.timer is None:
            self.timer = asyncio.get_running_loop().call_later(self.deadline_s, self.look)

    def forget(self) -> None:
        """Drop the requests that are over, but for those behind one that is not."""
        while self.under_way and self.under_way[0].over:
            self.under_way.popleft()

    def look(self) -> None:
        """Answer those that are late: their pictures are in runs that do not end."""
        self.timer = None
        latest = time.monotonic() - self.deadline_s
        while self.under_way and self.under_way[0].began <= latest:
            self.under_way[0].set_exception(
                Problem("deadline_exceeded", f"no answer within {self.deadline_s:g} seconds")
            )
        if self.under_way:
            due_s = self.under_way[0].began - latest
            self.timer = asyncio.get_running_loop().call_later(due_s, self.look)


class HotRequest:
    """A request under way: it holds a place in a queue, and answers when its picture is drawn."""

    def __init__(self, path: HotPath, head: Head, batcher: Batcher, write: Write) -> None:
        self.path = path
        self.batcher = batcher
        self.write = write
        self.began = time.monotonic()
        self.id = head.request_id or new_id()
        self.over = False

    def begin(self, content: bytes) -> bool:
        """Decode the picture and let it be drawn; False where the usual way has to look."""
        batcher = self.batcher
        try:
            batcher.check()
        except Problem as problem:
            self.refuse(problem)
            return True
        began = time.monotonic()
        x = decode_png(content)
        if x is None:
            return False
        batcher.metrics.decode.observe(time.monotonic() - began)
        batcher.taken += 1
        self.path.expect(self)
        batcher.enqueue(x, False, self.began + self.path.deadline_s, self)
        return True

    # What a queue asks of a future.

    def done(self) -> bool:
        return self.over

    def set_result(self, drawn: Drawn) -> None:
        self.end()
        try:
            self.deliver(drawn[0])
        except Exception:  # the others of its run are answered all the same
            log.exception("request %s: POST /transfer", self.id)
            self.refuse(FAILED)

    def set_exception(self, error: Exception) -> None:
        self.end()
        if not isinstance(error, Problem):
            error = FAILED
        self.refuse(error)

    def cancel(self) -> None:
        """The client has left: what waits need not be drawn."""
        if not self.over:
            self.end()

    def end(self) -> None:
        self.over = True
        self.batcher.taken -= 1
        self.path.forget()

    def deliver(self, y: Pixels) -> None:
        began = time.monotonic()
        content = encode_png(y)
        self.batcher.metrics.encode.observe(time.monotonic() - began)
        length = b"content-length: %d\r\n" % len(content)
        self.send(200, length + picture_lines(self.batcher.model.reference), content)

    def refuse(self, problem: Problem) -> None:
        response = problem_response(problem, self.id)
        self.path.service.metrics.rejected(problem.code)
        self.send(response.status_code, lines(response.raw_headers), bytes(response.body))

    def send(self, status: int, head: bytes, content: bytes) -> None:
        metrics = self.path.service.metrics
        metrics.answered("POST", "/transfer", status, time.monotonic() - self.began)
        own = b"x-request-id: %s\r\n" % self.id.encode()
        self.write(status, head + own + self.path.constant, content)


def head_of(data: bytes) -> Head | None:
    """The head that data begins with, if it is whole and one of a request for the HotPath."""
    if not data.startswith(BEGINNING):
        return None
    end = data.find(HEAD_END, 0, LONG_HEAD)
    return None if end < 0 else read_head(data[: end + len(HEAD_END)])


@lru_cache(maxsize=1024)
def read_head(content: bytes) -> Head | None:
    """A whole head, parsed; None where it asks for more than a PNG of a small body."""
    reader = HeadReader()
    parser = httptools.HttpRequestParser(reader)
    try:
        parser.feed_data(content)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    path, _, query_string = reader.url.partition(b"?")
    headers = dict(reader.headers)
    if (
        not reader.complete
        or parser.get_http_version() != "1.1"
        or path != PATH
        or len(headers) < len(reader.headers)  # a name twice
        or UNUSUAL & headers.keys()
    ):
        return None
    length = headers.get(b"content-length", b"")
    if not (length.isdigit() and len(length) < 7 and 0 < int(length) <= SHORT_BODY):
        return None
    try:
        query = transfer_query(query_string)
        choice = negotiate(headers.get(b"accept", b"").decode("latin-1"), query.format)
    except Problem:
        return None
    if choice != PNG or query.distance:
        return None
    sent = headers.get(b"x-request-id", b"").decode("latin-1")
    return Head(
        size=len(content),
        length=int(length),
        query=query,
        content_type=headers.get(b"content-type", b"").decode("latin-1"),
        request_id=sent if REQUEST_ID.fullmatch(sent) else None,
        keep_alive=parser.should_keep_alive(),
        headers=tuple(reader.headers),
    )


class HeadReader:
    """What httptools finds in a head."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.complete = True


def draws_small(batcher: Batcher) -> bool:
    """Whether a model's answers take microseconds to encode."""
    _, height, width, _ = batcher.model.manifest.output.shape
    return isinstance(height, int) and isinstance(width, int) and height * width <= SMALL


def lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"%s: %s\r\n" % header for header in headers)


@lru_cache(maxsize=64)
def picture_lines(model: str) -> bytes:
    """The headers of a PNG by this model, but for its length."""
    return lines(((b"x-model", model.encode()), (b"vary", b"Accept"), (b"content-type", PNG_TYPE)))
