"""POST /emoji: the face in a photo as an emoji."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from service.batching import Drawn
from service.emoji import Emoji, draw_emoji, finish
from service.exchange import (
    PICTURE_BODY,
    UPLOAD_PROBLEMS,
    Upload,
    choose,
    picture_answer,
    received,
    respond,
)
from service.faces import Found
from service.lifecycle import Service
from service.models import Model
from service.pictures import Pixels
from service.problems import documented
from service.schemas import EmojiAnswer, EmojiQuery, Face, PictureFormat
from service.transfer import Transferred
from service.uploads import picture_bytes

router = APIRouter()


@router.post(
    "/emoji",
    summary="A photo's face as an emoji",
    response_model=EmojiAnswer,
    response_description="the picture or, with `Accept: application/json`, picture and numbers",
    responses={
        **picture_answer("what of the face the emoji lost"),
        **documented("no_face", *UPLOAD_PROBLEMS),
    },
    openapi_extra={"requestBody": PICTURE_BODY},
)
async def post_emoji(request: Request, query: Annotated[EmojiQuery, Query()]) -> Response:
    """Find the largest face in a photo and draw it as an emoji.

    Send the photo as to /transfer. A face must look at least half towards the camera. It may
    be tilted, small in the photo or cut off by its edge.
    """
    service: Service = request.app.state.service
    service.require_started()
    batcher = service.emoji_batcher(query.model)
    model = batcher.model
    choice = choose(request, query.format)
    async with received(request, service.settings.max_bytes, service.workers.check) as upload:
        work = service.workers.run(
            emoji_upload,
            upload,
            model,
            batcher.drawer(upload.deadline),
            query,
            choice.picture_format,
            max_pixels=service.settings.max_pixels,
        )
        emoji, result = await upload.answered_by(work)
    found = emoji.found
    return respond(
        result, model.reference, choice, EmojiAnswer, face=face_of(found), faces=found.boxes
    )


def emoji_upload(
    upload: Upload,
    model: Model,
    draw: Callable[[Pixels], Drawn],
    query: EmojiQuery,
    picture_format: PictureFormat,
    *,
    max_pixels: int,
) -> tuple[Emoji, Transferred]:
    """The emoji of the photo in an upload, and how it is answered; takes a worker."""
    emoji = draw_emoji(
        picture_bytes(upload.body, upload.header),
        model,
        max_pixels=max_pixels,
        face=query.face,
        deadline=upload.deadline,
        draw=draw,
    )
    return emoji, finish(emoji.y, emoji.f_distance, model, query.size, picture_format)


def face_of(found: Found) -> Face:
    return Face(box=found.box, score=found.score, count=len(found.boxes))
