"""What all routes with pictures do alike: an upload comes in, a picture or JSON goes out."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request
from starlette.responses import Response

from service.lifecycle import Service
from service.negotiation import Choice, negotiate
from service.pictures import MEDIA_TYPES
from service.problems import Code, Problem
from service.schemas import PictureFormat, TransferAnswer
from service.transfer import Transferred
from service.uploads import FIELD, content_type, read_body

T = TypeVar("T")

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
    header: str  # Content-Type
    seconds: float
    deadline: float  # time.monotonic()

    async def answered_by(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of work, which is given up when time runs out or the client leaves.

        Raises Problem deadline_exceeded.
        """
        task = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(disconnected(self.request))
        try:
            await asyncio.wait(
                (task, gone), timeout=self.seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if task.done():
                return task.result()
            # Or the client has left, and nobody reads this.
            raise Problem("deadline_exceeded", f"no answer within {self.seconds:g} seconds")
        finally:
            task.cancel()
            gone.cancel()


@asynccontextmanager
async def received(request: Request, max_bytes: int) -> AsyncIterator[Upload]:
    """The request's upload, once it is complete; its bytes count until the context ends.

    Raises Problem as content_type and read_body do, and queue_full before the body is read.
    """
    service: Service = request.app.state.service
    settings = service.settings
    header = content_type(request.headers)
    service.workers.check()
    with service.buffers.reserve() as grow:
        body = await read_body(request, max_bytes, settings.upload_timeout_s, grow)
        seconds = settings.deadline_s
        yield Upload(request, body, header, seconds, time.monotonic() + seconds)


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
