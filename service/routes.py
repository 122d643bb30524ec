"""The HTTP routes. POST /transfer reads as a picture's way: upload, transfer, response."""

import asyncio
import base64
import time
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from service.lifecycle import Service
from service.models import Model
from service.negotiation import Choice, negotiate
from service.pictures import MEDIA_TYPES
from service.problems import Problem, documented
from service.schemas import Health, ModelList, TransferAnswer, TransferQuery
from service.transfer import Transferred, transfer
from service.uploads import FIELD, content_type, picture_bytes, read_body

T = TypeVar("T")

router = APIRouter()

BINARY = {"type": "string", "format": "binary"}
PICTURE_HEADERS = {
    "X-Request-ID": {"schema": {"type": "string"}, "description": "echoed or made"},
    "X-Model": {"schema": {"type": "string"}, "description": "name@version"},
    "X-F-Distance": {
        "schema": {"type": "number"},
        "description": "Eq. 8's ‖f(x) − f(G(x))‖; only with `distance=true`",
    },
}
PICTURE_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {"type": "object", "required": [FIELD], "properties": {FIELD: BINARY}}
        },
        "image/*": {"schema": BINARY},
    },
}


@router.post(
    "/transfer",
    summary="G(x) of one picture",
    response_model=TransferAnswer,
    response_description="the picture or, with `Accept: application/json`, picture and numbers",
    responses={
        200: {
            "headers": PICTURE_HEADERS,
            "content": {media_type: {"schema": BINARY} for media_type in MEDIA_TYPES.values()},
        },
        **documented(
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
        ),
    },
    openapi_extra={"requestBody": PICTURE_BODY},
)
async def post_transfer(request: Request, query: Annotated[TransferQuery, Query()]) -> Response:
    """Carry a picture over to the model's target domain.

    Send it as multipart/form-data (one part, `file`) or as the body with an `image/*` content
    type: PNG, JPEG, WebP, GIF, BMP or TIFF. EXIF orientation is applied, transparency is laid
    over white, animations give their first frame.
    """
    service: Service = request.app.state.service
    settings = service.settings
    service.require_started()
    model = service.models.find(query.model)
    choice = negotiate(",".join(request.headers.getlist("accept")), query.format)
    header = content_type(request.headers)
    service.workers.check()
    with service.buffers.reserve() as grow:
        body = await read_body(request, settings.max_bytes, settings.upload_timeout_s, grow)
        deadline = time.monotonic() + settings.deadline_s
        work = service.workers.run(
            transfer_upload,
            body,
            header,
            model,
            choice=choice,
            distance=query.distance,
            max_pixels=settings.max_pixels,
            deadline=deadline,
        )
        result = await in_time(request, work, settings.deadline_s)
    return transfer_response(result, model, choice)


def transfer_upload(
    body: bytes,
    header: str,
    model: Model,
    *,
    choice: Choice,
    distance: bool,
    max_pixels: int,
    deadline: float,
) -> Transferred:
    """transfer() of the picture in a request body, which takes a worker to cut out."""
    content = picture_bytes(body, header)
    return transfer(
        content,
        model,
        choice.picture_format,
        distance=distance,
        max_pixels=max_pixels,
        deadline=deadline,
    )


async def in_time(request: Request, work: Coroutine[Any, Any, T], seconds: float) -> T:
    """The result of work, which is given up when time runs out or the client leaves.

    Raises Problem deadline_exceeded.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(disconnected(request))
    try:
        await asyncio.wait((task, gone), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        # Or the client has left, and nobody reads this.
        raise Problem("deadline_exceeded", f"no answer within {seconds:g} seconds")
    finally:
        task.cancel()
        gone.cancel()


async def disconnected(request: Request) -> None:
    """Returns when the client has closed the connection; call it after the body is read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def transfer_response(result: Transferred, model: Model, choice: Choice) -> Response:
    """The picture itself, or JSON with the picture in base64."""
    headers = {"X-Model": model.reference, "Vary": "Accept"}
    if result.f_distance is not None:
        headers["X-F-Distance"] = f"{result.f_distance:.6g}"
    if choice.body == "picture":
        return Response(result.content, headers=headers, media_type=result.media_type)
    answer = TransferAnswer(
        model=model.reference,
        width=result.width,
        height=result.height,
        media_type=result.media_type,
        image=base64.b64encode(result.content).decode("ascii"),
        f_distance=result.f_distance,
        face=None,
    )
    return Response(answer.model_dump_json(), headers=headers, media_type="application/json")


@router.get("/models", summary="The served models")
async def get_models(request: Request) -> ModelList:
    """A card of each model: what it does, how well, what it cannot do, where it runs."""
    service: Service = request.app.state.service
    return ModelList(models=service.models.cards())


@router.get("/health/live", summary="Whether the process is up")
async def get_live() -> Health:
    """Answers as long as the event loop turns."""
    return Health(status="live")


@router.get(
    "/health/ready",
    summary="Whether to send requests here",
    responses=documented("not_ready", "draining"),
)
async def get_ready(request: Request) -> Health:
    """Ready once models are warm, until the service is told to stop."""
    service: Service = request.app.state.service
    service.require_ready()
    return Health(status="ready")


@router.get("/", include_in_schema=False)
async def get_page() -> Response:
    return RedirectResponse("/docs", 307)
