"""Persons: of many photos the best emoji (Eq. 8), kept over requests; no photo is."""

from collections.abc import Callable
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from service.batching import Batcher, Drawn
from service.best import best
from service.emoji import Emoji, draw_emoji, finish
from service.emoji_routes import face_of
from service.exchange import (
    BINARY,
    UPLOAD_PROBLEMS,
    Upload,
    choose,
    picture_answer,
    received,
    respond,
)
from service.lifecycle import Service
from service.models import Model
from service.negotiation import Choice
from service.pictures import Pixels, decode, encode
from service.problems import Code, Problem, documented
from service.schemas import (
    KeptEmoji,
    Person,
    PersonAnswer,
    PhotoReport,
    StoredQuery,
    TransferAnswer,
)
from service.store import Kept
from service.transfer import Transferred
from service.uploads import FIELDS, Part, pictures_of

router = APIRouter(prefix="/persons/{person}")

MOST_PHOTOS = 32
# What is wrong with one photo; any other problem is the whole request's.
PHOTO_CODES: frozenset[Code] = frozenset(
    ("not_an_image", "unsupported_format", "too_large", "no_face", "invalid_parameter")
)
PersonId = Annotated[
    str, Path(pattern=r"^[A-Za-z0-9._~-]{1,128}$", description="chosen by the client")
]
PHOTOS_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {
                    field: {"type": "array", "items": BINARY, "maxItems": MOST_PHOTOS}
                    for field in FIELDS
                },
            }
        },
        "image/*": {"schema": BINARY},
    },
}


@router.post(
    "/emoji",
    summary="The best emoji of a person's photos",
    response_model=PersonAnswer,
    response_description="the picture or, with `Accept: application/json`, picture and numbers",
    responses={
        **picture_answer("the smallest so far"),
        **documented("no_face", *UPLOAD_PROBLEMS, "store_unavailable"),
    },
    openapi_extra={"requestBody": PHOTOS_BODY},
)
async def post_person_emoji(
    request: Request, person: PersonId, query: Annotated[StoredQuery, Query()]
) -> Response:
    """Draw each photo's largest face and keep the emoji with the smallest distance, if it is
    smaller than that of the person's best so far.

    Send 1 to 32 photos as multipart/form-data (`files`, repeated, or `file`), or one as to
    /transfer. Each is judged on its own: a bad one is told of in `photos` and the others go
    on. Where none can be used the problem has the code of the first, and `photos`, too.
    """
    service: Service = request.app.state.service
    service.require_started()
    service.persons.require_reachable()  # before the photos are read and drawn
    batcher = service.emoji_batcher(query.model)
    choice = choose(request, query.format)
    async with received(request, service.settings.max_batch_bytes, service.workers.check) as upload:
        work = judge(service, person, upload, batcher, query, choice)
        return await upload.answered_by(work)


async def judge(
    service: Service,
    person: str,
    upload: Upload,
    batcher: Batcher,
    query: StoredQuery,
    choice: Choice,
) -> Response:
    """Eq. 8 over the uploaded photos and the person's best so far."""
    model = batcher.model
    parts = await service.workers.run(pictures_of, upload.body, upload.header, MOST_PHOTOS)
    settings = service.settings
    judgements = await service.workers.run_all(
        partial(
            judge_photo,
            part,
            model,
            max_bytes=settings.max_bytes,
            max_pixels=settings.max_pixels,
            deadline=upload.deadline,
            draw=batcher.drawer(upload.deadline),
        )
        for part in parts
    )
    photos = [report(*pair) for pair in zip(parts, judgements, strict=True)]
    chosen = best(photo.f_distance for photo in photos)
    emoji = None if chosen is None else judgements[chosen]
    if chosen is None or not isinstance(emoji, Emoji):
        raise none_usable(judgements, photos)
    png = await service.workers.run_on(encode, emoji.y, "png")
    kept, taken = await service.store_workers.run(
        service.persons.offer,
        person,
        model.manifest.name,
        model.manifest.version,
        png,
        emoji.f_distance,
        chosen,
    )
    result = await service.workers.run_on(render, kept, model, query, choice)
    return respond(
        result,
        kept.reference,
        choice,
        PersonAnswer,
        face=photos[chosen].face if taken else None,
        person=person,
        chosen=chosen if taken else None,
        photos=photos,
    )


def judge_photo(
    part: Part,
    model: Model,
    *,
    max_bytes: int,
    max_pixels: int,
    deadline: float,
    draw: Callable[[Pixels], Drawn],
) -> Emoji | Problem:
    """The emoji of one photo, or what is wrong with it. Raises other Problems."""
    try:
        if len(part.content) > max_bytes:
            raise Problem("too_large", f"the photo has more than {max_bytes} bytes")
        return draw_emoji(part.content, model, max_pixels=max_pixels, deadline=deadline, draw=draw)
    except Problem as problem:
        if problem.code not in PHOTO_CODES:
            raise
        return problem


def report(part: Part, judged: Emoji | Problem) -> PhotoReport:
    if isinstance(judged, Problem):
        return PhotoReport(name=part.file, status=judged.code, f_distance=None, face=None)
    return PhotoReport(
        name=part.file, status="ok", f_distance=judged.f_distance, face=face_of(judged.found)
    )


def none_usable(judgements: list[Emoji | Problem], photos: list[PhotoReport]) -> Problem:
    """The first photo's problem, which tells of the others."""
    first = next(judged for judged in judgements if isinstance(judged, Problem))
    return Problem(
        first.code,
        f"none of {len(photos)} photos can be used; the first: {first.detail}"
        if len(photos) > 1
        else first.detail,
        photos=photos,
    )


def render(kept: Kept, model: Model, query: StoredQuery, choice: Choice) -> Transferred:
    """The stored emoji, in the size and format asked for."""
    y = decode(kept.png, max_pixels=len(kept.png) * 1000)
    return finish(y, kept.f_distance, model, query.size, choice.picture_format)


@router.get(
    "/emoji",
    summary="A person's best emoji",
    response_model=TransferAnswer,
    response_description="the picture or, with `Accept: application/json`, picture and numbers",
    responses={
        **picture_answer("the smallest so far", ETag="of this emoji in this size and format"),
        304: {"description": "it is still the one of `If-None-Match`"},
        **documented(
            "unknown_model",
            "unknown_person",
            "unsupported_format",
            "invalid_parameter",
            "queue_full",
            "not_ready",
            "draining",
            "store_unavailable",
        ),
    },
)
async def get_person_emoji(
    request: Request, person: PersonId, query: Annotated[StoredQuery, Query()]
) -> Response:
    """The emoji with the smallest distance of all photos that were ever sent."""
    service: Service = request.app.state.service
    service.require_started()
    model = service.emoji_batcher(query.model).model
    choice = choose(request, query.format)
    kept = await service.store_workers.run(service.persons.best, person, model.manifest.name)
    if kept is None:
        raise unknown(person)
    kind = choice.picture_format if choice.body == "picture" else f"{choice.picture_format}-json"
    etag = f'"{kept.etag}-{model.manifest.version}-{query.size}-{kind}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if is_known(etag, ",".join(request.headers.getlist("if-none-match"))):
        return Response(
            status_code=304, headers=headers | {"X-Model": kept.reference, "Vary": "Accept"}
        )
    result = await service.workers.run(render, kept, model, query, choice)
    return respond(result, kept.reference, choice, headers=headers, face=None)


def is_known(etag: str, if_none_match: str) -> bool:
    """Whether If-None-Match names the ETag, or any (RFC 9110, 13.1.2)."""
    known = [each.strip().removeprefix("W/") for each in if_none_match.split(",")]
    return etag in known or "*" in known


@router.get(
    "",
    summary="What is kept of a person",
    responses=documented(
        "unknown_person", "invalid_parameter", "queue_full", "draining", "store_unavailable"
    ),
)
async def get_person(request: Request, person: PersonId) -> Person:
    """All that is kept, but for the pictures."""
    service: Service = request.app.state.service
    found = await service.store_workers.run(service.persons.all, person)
    if not found:
        raise unknown(person)
    return Person(
        person=person,
        emojis=[
            KeptEmoji(
                model=kept.reference,
                f_distance=kept.f_distance,
                photo=kept.photo,
                bytes=len(kept.png),
                etag=kept.etag,
                created=kept.created,
                updated=kept.updated,
            )
            for kept in found
        ],
    )


@router.delete(
    "",
    summary="Forget a person",
    status_code=204,
    responses=documented(
        "unknown_person", "invalid_parameter", "queue_full", "draining", "store_unavailable"
    ),
)
async def delete_person(request: Request, person: PersonId) -> None:
    """Delete all that is kept of the person, of every model."""
    service: Service = request.app.state.service
    if not await service.store_workers.run(service.persons.forget, person):
        raise unknown(person)


def unknown(person: str) -> Problem:
    return Problem("unknown_person", f"nothing is kept of {person}")
