"""The HTTP routes. POST /transfer reads as a picture's way: upload, transfer, response."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from service.exchange import (
    PICTURE_BODY,
    UPLOAD_PROBLEMS,
    choose,
    picture_answer,
    received,
    respond,
)
from service.lifecycle import Service
from service.models import Model
from service.negotiation import Choice
from service.problems import documented
from service.schemas import Health, ModelList, TransferAnswer, TransferQuery
from service.transfer import Transferred, transfer
from service.uploads import picture_bytes

router = APIRouter()


@router.post(
    "/transfer",
    summary="G(x) of one picture",
    response_model=TransferAnswer,
    response_description="the picture or, with `Accept: application/json`, picture and numbers",
    responses={
        **picture_answer("only with `distance=true`"),
        **documented(*UPLOAD_PROBLEMS),
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
    service.require_started()
    model = service.models.find(query.model)
    choice = choose(request, query.format)
    async with received(request, service.settings.max_bytes) as upload:
        work = service.workers.run(
            transfer_upload,
            upload.body,
            upload.header,
            model,
            choice=choice,
            distance=query.distance,
            max_pixels=service.settings.max_pixels,
            deadline=upload.deadline,
        )
        result = await upload.answered_by(work)
    return respond(result, model.reference, choice, face=None)


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
