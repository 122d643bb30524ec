"""The HTTP routes. POST /transfer reads as a picture's way: upload, transfer, response."""

from functools import lru_cache
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import ValidationError
from starlette.datastructures import QueryParams
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.exchange import (
    PICTURE_BODY,
    UPLOAD_PROBLEMS,
    choose,
    picture_answer,
    received,
    respond,
)
from service.lifecycle import Service
from service.problems import Problem, documented, invalid_parameters, problem_response
from service.schemas import Health, ModelList, TransferAnswer, TransferQuery
from service.transfer import transfer_soon

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
    return await answer_transfer(request, query)


async def answer_transfer(request: Request, query: TransferQuery) -> Response:
    """POST /transfer, however the request was routed."""
    service: Service = request.app.state.service
    service.require_started()
    batcher = service.batcher(query.model)
    choice = choose(request, query.format)
    async with received(request, service.settings.max_bytes, batcher.check) as upload:
        with batcher.place():
            work = transfer_soon(
                upload.body,
                upload.header,
                batcher,
                service.workers,
                choice.picture_format,
                distance=query.distance,
                max_pixels=service.settings.max_pixels,
                deadline=upload.deadline,
            )
            result = await upload.answered_by(work)
    return respond(result, batcher.model.reference, choice, face=None)


class ShortCut:
    """ASGI: POST /transfer straight to its answer, past FastAPI's routing and parameters, which
    take longer than a small picture. Everything else goes the usual way."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/transfer" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            response = await answer_transfer(request, transfer_query(scope["query_string"]))
        except Problem as problem:
            response = problem_response(problem, request.state.request_id)
        await response(scope, receive, send)


@lru_cache(maxsize=1024)
def transfer_query(query_string: bytes) -> TransferQuery:
    """The parameters of POST /transfer. Raises Problem invalid_parameter as FastAPI would."""
    try:
        return TransferQuery.model_validate(dict(QueryParams(query_string)))
    except ValidationError as error:
        raise invalid_parameters(error.errors()) from error


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
