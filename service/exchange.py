"""What all routes with pictures do alike: an upload comes in, a picture or JSON goes out."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request
from starlette.datastructures import Headers
from starlette.responses import Response

from service.lifecycle import Service
from service.negotiation import Choice, negotiate
from service.pictures import MEDIA_TYPES
from service.problems import Code, Problem
from service.schemas import PictureFormat, TransferAnswer
from service.transfer import Transferred
from service.uploads import FIELD, content_type, read_body

T = TypeVar("T")

TIMEOUT_HEADER = "X-Timeout-Ms"
PATIENCE_S = 0.05  # that a request is under way before its client is watched

BINARY = {"type": "string", "format": "binary"}
PICTURE_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {"type": "object", "required": [FIELD], "properties": {FIELD: BINARY}}
        },
        "image/*": {"schema": BINARY},
    },
}

# What can be wrong with any upload of a picture for a model.
UPLOAD_PROBLEMS: tuple[Code, ...] = (
    "bad_request",
    "unknown_model",
    "too_large",
    "not_an_image",
    "unsupported_format",
    "invalid_parameter",
    "queue_full",
    "not_ready",
    "draining",
    "deadline_exceeded",
)


def picture_answer(distance: str, **headers: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's `responses` of a picture: its types and headers, when there is a distance."""
    described = {"X-Request-ID": "echoed or made", "X-Model": "name@version"} | headers
    told = {name: {"schema": {"type": "string"}, "description": d} for name, d in described.items()}
    told["X-F-Distance"] = {
        "schema": {"type": "number"},
        "description": f"Eq. 8's ‖f(x) − f(G(x))‖; {distance}",
    }
    content = {media_type: {"schema": BINARY} for media_type in MEDIA_TYPES.values()}
    return {200: {"headers": told, "content": content}}


@dataclass(frozen=True)
class Upload:
    """A body that has arrived, and until when it must be answered."""

    request: Request
    body: bytes
    header: str  # what says how to read it: usually Content-Type
    seconds: float
    deadline: float  # time.monotonic()

    async def answered_by(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of work, which is given up when time runs out or the client leaves.

        Raises Problem deadline_exceeded.
        """
        task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        watch: asyncio.Task[None] | None = None
        reason: Problem | None = None

        async def give_up() -> None:
            nonlocal reason
            try:
                async with asyncio.timeout(self.deadline - time.monotonic()):
                    await disconnected(self.request)
                reason = Problem("bad_request", "the client left before the answer")
            except TimeoutError:
                reason = Problem("deadline_exceeded", f"no answer within {self.seconds:g} seconds")
            if task is not None:
                task.cancel()

        def start_watch() -> None:
            nonlocal watch
            watch = loop.create_task(give_up())

        # Most answers are there before it would pay to watch.
        guard = loop.call_later(min(PATIENCE_S, self.seconds), start_watch)
        try:
            return await work
        except asyncio.CancelledError:
            if reason is None or task is None or task.uncancel():
                raise
            raise reason from None
        finally:
            guard.cancel()
            if watch is not None:
                watch.cancel()


@asynccontextmanager
async def received(
    request: Request,
    max_bytes: int,
    check: Callable[[], None],
    kind: Callable[[Headers], str] = content_type,
) -> AsyncIterator[Upload]:
    """The request's upload, once it is complete; its bytes count until the context ends.

    Raises Problem as read_body does, and before the body is read as `kind`, which makes
    Upload.header of the request's, and `check`.
    """
    service: Service = request.app.state.service
    settings = service.settings
    header = kind(request.headers)
    seconds = patience(request.headers.get(TIMEOUT_HEADER), settings.deadline_s)
    check()
    began = time.monotonic()
    with service.buffers.reserve() as grow:
        body = await read_body(request, max_bytes, settings.upload_timeout_s, grow)
        now = time.monotonic()
        service.metrics.read.observe(now - began)
        yield Upload(request, body, header, seconds, now + seconds)


def patience(header: str | None, most: float) -> float:
    """Seconds until an answer is of no use: what the client says, at most the service's own.

    Raises Problem invalid_parameter where the header is no number of milliseconds.
    """
    if header is None:
        return most
    if not (header.isascii() and header.isdecimal() and len(header) < 10 and int(header) > 0):
        raise Problem("invalid_parameter", f"{TIMEOUT_HEADER}: is no number of milliseconds")
    return min(int(header) / 1000, most)


async def disconnected(request: Request) -> None:
    """Returns when the client has closed the connection; call it after the body is read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def choose(request: Request, wanted: PictureFormat | None) -> Choice:
    """What the request's Accept and ?format= ask for. Raises Problem as negotiate does."""
    return negotiate(",".join(request.headers.getlist("accept")), wanted)


def respond(
    result: Transferred,
    model: str,
    choice: Choice,
    schema: type[TransferAnswer] = TransferAnswer,
    headers: Mapping[str, str] | None = None,
    **fields: Any,
) -> Response:
    """The picture itself, or JSON: a `schema` of the picture in base64 and further `fields`."""
    told = {"X-Model": model, "Vary": "Accept", **(headers or {})}
    if result.f_distance is not None:
        told["X-F-Distance"] = f"{result.f_distance:.6g}"
    if choice.body == "picture":
        return Response(result.content, headers=told, media_type=result.media_type)
    answer = schema(
        model=model,
        width=result.width,
        height=result.height,
        media_type=result.media_type,
        image=base64.b64encode(result.content).decode("ascii"),
        f_distance=result.f_distance,
        **fields,
    )
    return Response(answer.model_dump_json(), headers=told, media_type="application/json")
