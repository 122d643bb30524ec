"""POST /transfer of a small picture, answered where it arrives.

A picture of a few kilobytes is decoded, drawn and encoded in less time than a request takes to
go through an ASGI application, its middleware and its router. So the protocol offers each request
to a `HotPath`, which answers what is ordinary as the usual way would, and leaves all else to that:
JSON, distances, large pictures, whatever is wrong with a request.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from functools import lru_cache

from service.batching import Batcher, Drawn
from service.headers import ConstantHeaders
from service.lifecycle import Service
from service.middleware import REQUEST_ID, ApiKeys, new_id
from service.negotiation import Choice, negotiate
from service.pictures import MEDIA_TYPES, Pixels, decode, decodes_at_once, encode
from service.png import SMALL
from service.problems import Problem, problem_response
from service.routes import transfer_query
from service.schemas import TransferQuery
from service.settings import Settings
from service.transfer import SHORT_BODY
from service.uploads import only_file

PATH = b"/transfer"
# What asks for things that only the usual way does.
UNUSUAL = frozenset(
    (
        *(b"transfer-encoding", b"content-encoding", b"expect", b"upgrade"),
        *(b"x-timeout-ms", b"traceparent"),
    )
)
PNG = Choice("picture", "png")
PNG_TYPE = MEDIA_TYPES["png"].encode()

Headers = dict[bytes, bytes]
Write = Callable[[int, bytes, bytes], None]  # a status, lines of headers, a body


class HotPath:
    """The way of ordinary requests; one for all connections of a service."""

    def __init__(self, service: Service, keys: ApiKeys | None) -> None:
        self.service = service
        self.keys = keys
        self.constant = lines(ConstantHeaders().of("POST", "/transfer"))

    @staticmethod
    def suits(settings: Settings, traced: bool) -> bool:
        """Whether no setting wants more to be done for a request than is done here."""
        return not (traced or settings.access_log or settings.rate_limit or settings.cors_origins)

    def headers(self, url: bytes, headers: Iterable[tuple[bytes, bytes]]) -> Headers | None:
        """The headers of a POST that may be answered here, once its body has come, or None."""
        if not url.startswith(PATH) or url[len(PATH) : len(PATH) + 1] not in (b"", b"?"):
            return None
        known: Headers = {}
        for name, value in headers:
            if name in UNUSUAL or name in known:
                return None
            known[name] = value
        length = known.get(b"content-length", b"")
        short = length.isdigit() and len(length) < 7 and 0 < int(length) <= SHORT_BODY
        return known if short else None

    def picture(self, url: bytes, headers: Headers, body: bytes) -> tuple[Batcher, bytes] | None:
        """The encoded picture and the queue it goes to, or None."""
        service = self.service
        if service.phase == "starting":
            return None
        if self.keys and self.keys.find({"type": "http", "headers": list(headers.items())}) is None:
            return None
        header = headers.get(b"content-type", b"").decode("latin-1")
        content = body if header.startswith("image/") else only_file(body, header)
        if content is None or not decodes_at_once(content):
            return None
        try:
            query = wish(url[len(PATH) + 1 :], headers.get(b"accept", b""))
            batcher = None if query is None else service.batcher(query.model)
        except Problem:
            return None
        if batcher is None or not draws_small(batcher):
            return None
        return batcher, content


class HotRequest:
    """A request under way: it holds a place in a queue, and answers when its picture is drawn."""

    def __init__(self, path: HotPath, headers: Headers, batcher: Batcher, write: Write) -> None:
        self.path = path
        self.batcher = batcher
        self.write = write
        self.began = time.perf_counter()
        sent = headers.get(b"x-request-id", b"").decode("latin-1")
        self.id = sent if REQUEST_ID.fullmatch(sent) else new_id()
        self.answer: asyncio.Future[Drawn] | None = None
        self.timer: asyncio.TimerHandle | None = None

    def begin(self, content: bytes) -> bool:
        """Decode the picture and let it be drawn; False where the usual way has to look."""
        batcher, settings = self.batcher, self.path.service.settings
        try:
            batcher.check()
        except Problem as problem:
            self.refuse(problem)
            return True
        began = time.monotonic()
        try:
            x = decode(content, settings.max_pixels)
        except Problem:
            return False
        batcher.metrics.decode.observe(time.monotonic() - began)
        batcher.taken += 1
        self.answer = batcher.submit(x, False, began + settings.deadline_s)
        self.answer.add_done_callback(self.drawn)
        loop = asyncio.get_running_loop()
        self.timer = loop.call_later(settings.deadline_s, self.late)
        return True

    def drawn(self, answer: "asyncio.Future[Drawn]") -> None:
        """Answer with the picture, or with what went wrong."""
        self.batcher.taken -= 1
        if self.timer is not None:
            self.timer.cancel()
        if answer.cancelled():
            return  # the client has left
        error = answer.exception()
        if isinstance(error, Problem):
            self.refuse(error)
        elif error is not None:
            self.refuse(Problem("internal_error", "an unexpected error; the log tells more"))
        else:
            self.deliver(answer.result()[0])

    def deliver(self, y: Pixels) -> None:
        began = time.monotonic()
        content = encode(y, "png")
        self.batcher.metrics.encode.observe(time.monotonic() - began)
        length = b"content-length: %d\r\n" % len(content)
        self.send(200, length + picture_lines(self.batcher.model.reference), content)

    def late(self) -> None:
        """The deadline has come, and the picture is in a run that does not end."""
        seconds = self.path.service.settings.deadline_s
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(
                Problem("deadline_exceeded", f"no answer within {seconds:g} seconds")
            )

    def abandon(self) -> None:
        """The client has left: what waits need not be drawn."""
        if self.answer is not None:
            self.answer.cancel()

    def refuse(self, problem: Problem) -> None:
        response = problem_response(problem, self.id)
        self.path.service.metrics.rejected(problem.code)
        self.send(response.status_code, lines(response.raw_headers), bytes(response.body))

    def send(self, status: int, head: bytes, content: bytes) -> None:
        metrics = self.path.service.metrics
        metrics.answered("POST", "/transfer", status, time.perf_counter() - self.began)
        own = b"x-request-id: %s\r\n" % self.id.encode()
        self.write(status, head + own + self.path.constant, content)


@lru_cache(maxsize=1024)
def wish(query_string: bytes, accept: bytes) -> TransferQuery | None:
    """What is asked for, where that is a PNG and no more. Raises Problem."""
    query = transfer_query(query_string)
    choice = negotiate(accept.decode("latin-1"), query.format)
    return query if choice == PNG and not query.distance else None


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
