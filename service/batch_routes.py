"""POST /transfer/batch: many pictures in one request, each answered on its own."""

import base64
import uuid
from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from service.batching import Batcher
from service.exchange import BINARY, UPLOAD_PROBLEMS, Upload, received
from service.lifecycle import Service
from service.many import MOST, Share
from service.negotiation import JSON, parse_accept, preference
from service.pictures import MEDIA_TYPES
from service.problems import MEDIA_TYPE, Code, Problem, documented, problem_response
from service.schemas import BatchAnswer, BatchQuery, BatchResult
from service.transfer import Transferred, encode_soon, require_distance
from service.uploads import FIELDS, Part, pictures_of

router = APIRouter()

MIXED = "multipart/mixed"
ENDINGS = {media_type: name for name, media_type in MEDIA_TYPES.items()} | {MEDIA_TYPE: "json"}
# What is wrong with one picture; any other problem is the whole request's.
PICTURE_CODES: frozenset[Code] = frozenset(
    ("not_an_image", "unsupported_format", "too_large", "invalid_parameter")
)
PICTURES_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {
                    field: {"type": "array", "items": BINARY, "maxItems": MOST} for field in FIELDS
                },
            }
        },
        "image/*": {"schema": BINARY},
    },
}


@router.post(
    "/transfer/batch",
    summary="G(x) of many pictures",
    response_model=BatchAnswer,
    response_description="the pictures in JSON or, with `Accept: multipart/mixed`, as parts",
    responses={
        200: {
            "headers": {
                "X-Request-ID": {"schema": {"type": "string"}, "description": "echoed or made"},
                "X-Model": {"schema": {"type": "string"}, "description": "name@version"},
            },
            "content": {MIXED: {"schema": BINARY}},
        },
        **documented(*(code for code in UPLOAD_PROBLEMS if code != "not_an_image")),
    },
    openapi_extra={"requestBody": PICTURES_BODY},
)
async def post_transfer_batch(request: Request, query: Annotated[BatchQuery, Query()]) -> Response:
    """Carry up to 256 pictures over to the model's target domain.

    Send them as multipart/form-data (`files`, repeated, or `file`), of any formats and sizes. The
    answers come in the same order. A bad picture fails alone: `status` is then the code that
    /transfer would have answered, and `detail` says more. The answer is 200 even where every
    picture has failed; other codes are about the request as a whole.

    With `Accept: multipart/mixed` each picture is a part of its own without base64: its
    `Content-Disposition` has the index as `name`, its `Content-Type` tells a picture from a
    problem, and `X-F-Distance` is there with `distance=true`.
    """
    service: Service = request.app.state.service
    service.require_started()
    batcher = service.batcher(query.model)
    require_distance(batcher.model, query.distance)
    body = choose_body(",".join(request.headers.getlist("accept")))
    settings = service.settings
    async with received(request, settings.max_batch_bytes, batcher.check) as upload:
        with batcher.place():
            work = transfer_all(service, batcher, upload, query, body)
            return await upload.answered_by(work)


def choose_body(accept: str) -> Literal["application/json", "multipart/mixed"]:
    """What the client likes better, JSON where it does not mind.

    Raises Problem unsupported_format where it takes neither.
    """
    ranges = parse_accept(accept)
    json, mixed = preference(JSON, ranges), preference(MIXED, ranges)
    if max(json, mixed)[0] == 0:
        raise Problem("unsupported_format", f"nothing in Accept is on offer here: {JSON}, {MIXED}")
    return "application/json" if json >= mixed else "multipart/mixed"


async def transfer_all(
    service: Service, batcher: Batcher, upload: Upload, query: BatchQuery, body: str
) -> Response:
    """The answer to an upload of many pictures."""
    workers, settings, metrics = service.workers, service.settings, service.metrics
    share = Share(batcher, workers, settings.max_pixels, upload.deadline)

    async def transfer_one(part: Part) -> Transferred | Problem:
        try:
            if len(part.content) > settings.max_bytes:
                raise Problem("too_large", f"the picture has more than {settings.max_bytes} bytes")
            async with share.decoded(part.content) as x:
                y, f_distance = await batcher.submit(x, query.distance, upload.deadline)
            return await encode_soon(y, f_distance, query.format, workers, metrics)
        except Problem as problem:
            if problem.code not in PICTURE_CODES:
                raise
            return problem

    parts = await workers.run_on(pictures_of, upload.body, upload.header, MOST)
    results = await share.each(transfer_one, parts)
    model = batcher.model.reference
    if body == JSON:
        content, media_type = await workers.run_on(as_json, model, parts, results)
    else:
        request_id = upload.request.state.request_id
        content, media_type = await workers.run_on(as_parts, results, request_id)
    return Response(content, headers={"X-Model": model, "Vary": "Accept"}, media_type=media_type)


def as_json(
    model: str, parts: Sequence[Part], results: Sequence[Transferred | Problem]
) -> tuple[bytes, str]:
    """The results as JSON, and its media type."""
    pairs = zip(parts, results, strict=True)
    answer = BatchAnswer(model=model, results=[report(part.file, each) for part, each in pairs])
    return answer.model_dump_json().encode(), JSON


def report(name: str | None, result: Transferred | Problem) -> BatchResult:
    if isinstance(result, Problem):
        return BatchResult(name=name, status=result.code, detail=result.detail)
    return BatchResult(
        name=name,
        status="ok",
        width=result.width,
        height=result.height,
        media_type=result.media_type,
        image=base64.b64encode(result.content).decode("ascii"),
        f_distance=result.f_distance,
    )


def as_parts(results: Sequence[Transferred | Problem], request_id: str) -> tuple[bytes, str]:
    """The results as the parts of a multipart body (RFC 2046, 5.1), and its media type."""
    boundary = uuid.uuid4().hex
    spans = []
    for index, result in enumerate(results):
        if isinstance(result, Problem):
            media_type, content = MEDIA_TYPE, bytes(problem_response(result, request_id).body)
        else:
            media_type, content = result.media_type, result.content
        head = (
            f"--{boundary}\r\n"
            f"Content-Type: {media_type}\r\n"
            f'Content-Disposition: attachment; name="{index}"; '
            f'filename="{index}.{ENDINGS[media_type]}"\r\n'
            f"Content-Length: {len(content)}\r\n"
        )
        if isinstance(result, Transferred) and result.f_distance is not None:
            head += f"X-F-Distance: {result.f_distance:.6g}\r\n"
        spans += [head.encode(), b"\r\n", content, b"\r\n"]
    spans.append(f"--{boundary}--\r\n".encode())
    return b"".join(spans), f"{MIXED}; boundary={boundary}"
