"""A request's body: received with a bound on bytes and time, then cut into its pictures."""

import asyncio
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple, Protocol

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import Headers
from starlette.requests import Request

from service.problems import Problem

FIELD = "file"
FIELDS = (FIELD, "files")  # of several pictures
MAX_PARTS = 8  # one is wanted; a few more can be named in the error

MAX_FILE_NAME = 255  # characters that are told back

# The head of a part `file` and nothing out of the ordinary.
PLAIN_PART = re.compile(
    rb'content-disposition: form-data; name="?file"?(?:; filename="[^"\\\r\n]*")?\r\n'
    rb"(?:content-(?:type|length): [^\r\n]*\r\n)*",
    re.IGNORECASE,
)

# The parser warns of every malformed upload, quoting bytes of it. That is the client's affair.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


class Part(NamedTuple):
    """A part of a multipart/form-data body."""

    name: str
    content: bytes
    file: str | None = None  # what the client calls it


class Reservation(Protocol):
    """Counts bytes against a budget; raises Problem queue_full where it is spent."""

    def __call__(self, count: int) -> None: ...


class Buffers:
    """The bytes of all uploads held in memory at once. Used on the event loop only."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    @contextmanager
    def reserve(self) -> Iterator[Reservation]:
        """A reservation that grows with one upload and is given back when that is done."""
        mine = 0

        def grow(count: int) -> None:
            nonlocal mine
            if self.held + count > self.limit:
                raise Problem("queue_full", "too many uploads at once")
            self.held += count
            mine += count

        try:
            yield grow
        finally:
            self.held -= mine


def content_type(headers: Headers) -> str:
    """The Content-Type of a body that may hold a picture, checked before the body is read.

    Raises Problem: bad_request where there is no body, unsupported_format where it is neither
    multipart/form-data nor image/*, or compressed.
    """
    require_plain_body(headers, "a picture")
    value = headers.get("content-type", "")
    media_type = value.partition(";")[0].strip().lower()
    if media_type != "multipart/form-data" and not media_type.startswith("image/"):
        raise Problem(
            "unsupported_format",
            f"send the picture as multipart/form-data, field `{FIELD}`, "
            "or as the body with an image/* content type",
        )
    return value


def require_plain_body(headers: Headers, wanted: str) -> None:
    """Raises Problem: bad_request where there is no body, unsupported_format where it is
    compressed."""
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        raise Problem("bad_request", f"the request has no body; send {wanted}")
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Problem("unsupported_format", "compressed request bodies are not taken")


async def read_body(request: Request, max_bytes: int, timeout_s: float, grow: Reservation) -> bytes:
    """The whole body, at most max_bytes of it.

    Raises Problem: too_large, on Content-Length alone or as soon as the received bytes say so;
    deadline_exceeded after timeout_s; queue_full by `grow`; bad_request where the client left.
    """
    too_large = Problem("too_large", f"the request body has more than {max_bytes} bytes")
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal():
        raise Problem("bad_request", "Content-Length is no number")
    # Compared by length first: int() of thousands of digits is slow, then refused.
    if len(declared) > 18 or int(declared) > max_bytes:
        raise too_large
    chunks = []
    received = 0
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise Problem("bad_request", "the client left before the body was complete")
                chunk = message.get("body", b"")
                received += len(chunk)
                if received > max_bytes:
                    raise too_large
                grow(len(chunk))
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return b"".join(chunks)
    except TimeoutError as error:
        raise Problem(
            "deadline_exceeded", f"the upload was not complete within {timeout_s:g} seconds"
        ) from error


def picture_bytes(body: bytes, header: str) -> bytes:
    """The encoded picture in a body of this Content-Type.

    Raises Problem bad_request where it is empty or, in multipart, not exactly one `file`.
    """
    content = only_file(body, header)
    if content is None:
        content = parsed_file(body, header) if is_multipart(header) else body
    if not content:
        raise Problem("bad_request", "the picture is empty")
    return content


def parsed_file(body: bytes, header: str) -> bytes:
    """The content of the one part `file` of a multipart body. Raises Problem bad_request."""
    parts = multipart(body, header)
    if [part.name for part in parts] != [FIELD]:
        raise Problem(
            "bad_request",
            f"exactly one part named {FIELD!r} is wanted; there is: {names_of(parts)}",
        )
    return parts[0].content


@lru_cache(maxsize=256)
def boundary_of(header: str) -> bytes | None:
    """The boundary that a multipart/form-data Content-Type names."""
    if not is_multipart(header):
        return None
    return parse_options_header(header)[1].get(b"boundary") or None


def only_file(body: bytes, header: str) -> bytes | None:
    """The content of the one part `file` in a multipart body as nearly all clients write it.

    Found by searching for the boundary, ten times as fast as the parser, which has to look at
    everything that this does not take: None.
    """
    boundary = boundary_of(header)
    if boundary is None or not body.startswith(b"--" + boundary + b"\r\n"):
        return None
    start = body.find(b"\r\n\r\n")
    if not PLAIN_PART.fullmatch(body, len(boundary) + 4, start + 2):
        return None
    end = body.find(b"\r\n--" + boundary, start + 4)
    rest = len(body) - end - len(boundary) - 4
    if end < 0 or rest > 4 or body[-rest:] not in (b"--", b"--\r\n"):
        return None
    return body[start + 4 : end]


def pictures_of(body: bytes, header: str, most: int) -> list[Part]:
    """The encoded pictures in a body of this Content-Type, 1 to `most`, in order.

    Raises Problem: too_large where there are more; bad_request where there is none or, in
    multipart, a part that is neither `file` nor `files`.
    """
    if not is_multipart(header):
        return [Part(FIELD, body)]
    too_many = Problem("too_large", f"more than {most} pictures in one request")
    parts = multipart(body, header, most, too_many)
    if not parts or any(part.name not in FIELDS for part in parts):
        wanted = " or ".join(map(repr, FIELDS))
        raise Problem(
            "bad_request", f"parts named {wanted} are wanted; there is: {names_of(parts)}"
        )
    return parts


def is_multipart(header: str) -> bool:
    return header.partition(";")[0].strip().lower() == "multipart/form-data"


def names_of(parts: list[Part]) -> str:
    """The parts' names, for an error's detail."""
    return ", ".join(ascii(part.name[:40]) for part in parts[:MAX_PARTS]) or "none"


def multipart(
    body: bytes, header: str, max_parts: int = MAX_PARTS, too_many: Problem | None = None
) -> list[Part]:
    """The parts of a multipart/form-data body, in order.

    Nothing is written to disk, contents are copied once. Raises Problem bad_request where the
    body is malformed or cut off, and `too_many`, by default another, beyond max_parts.
    """
    parts: list[Part] = []
    spans: list[bytes] = []
    field, value, disposition = bytearray(), bytearray(), b""
    complete = False

    def begin() -> None:
        nonlocal disposition
        if len(parts) == max_parts:
            raise too_many or FormParserError("too many parts")
        disposition = b""
        spans.clear()

    def header_begin() -> None:
        field.clear()
        value.clear()

    def header_end() -> None:
        nonlocal disposition
        if field.lower() == b"content-disposition":
            disposition = bytes(value)

    def end() -> None:
        _, options = parse_options_header(disposition.decode("latin-1"))
        name = options.get(b"name")
        if name is None:
            raise FormParserError("a part has no name")
        file = options.get(b"filename")
        parts.append(
            Part(
                name.decode("utf-8", "replace"),
                b"".join(spans),
                None if file is None else file.decode("utf-8", "replace")[:MAX_FILE_NAME],
            )
        )

    def finish() -> None:
        nonlocal complete
        complete = True

    boundary = parse_options_header(header)[1].get(b"boundary")
    if not boundary:
        raise Problem("bad_request", "the content type multipart/form-data names no boundary")
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": begin,
                "on_header_begin": header_begin,
                "on_header_field": lambda data, start, stop: field.extend(data[start:stop]),
                "on_header_value": lambda data, start, stop: value.extend(data[start:stop]),
                "on_header_end": header_end,
                "on_part_data": lambda data, start, stop: spans.append(data[start:stop]),
                "on_part_end": end,
                "on_end": finish,
            },
        )
        parser.write(body)
    except FormParserError as error:
        raise Problem("bad_request", f"malformed multipart body: {error}") from error
    if not complete:
        raise Problem("bad_request", "malformed multipart body: the last boundary is missing")
    return parts
