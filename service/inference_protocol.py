"""The Open Inference Protocol v2 over HTTP, with Triton's binary tensors: /v2.

Its clients look for an error's message in `error`, which problems of these routes have, too.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from starlette.datastructures import Headers
from starlette.responses import Response

from service import __version__
from service.batching import Batcher, Drawn
from service.exchange import BINARY, UPLOAD_PROBLEMS, Upload, received
from service.inference_schemas import (
    IndexEntry,
    IndexRequest,
    InferenceAnswer,
    InferenceRequest,
    Live,
    ModelMetadata,
    ModelReady,
    Ready,
    ServerMetadata,
)
from service.inference_tensors import (
    LENGTH_HEADER,
    compose,
    inputs_of,
    outputs_of,
    parse,
    read_json,
)
from service.lifecycle import Service
from service.many import Share
from service.pictures import Pixels
from service.problems import Problem, documented
from service.transfer import SHORT_BODY
from service.uploads import read_body, require_plain_body

router = APIRouter(prefix="/v2")

EXTENSIONS = ["binary_tensor_data"]
PLATFORM = "onnxruntime_onnx"
MAX_INDEX_BYTES = 4096  # of a request for the index
LENGTH_OF_JSON = {
    "schema": {"type": "integer"},
    "description": "bytes of JSON where binary data follow",
}
INFERENCE_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"$ref": f"#/components/schemas/{InferenceRequest.__name__}"}
        },
        "application/octet-stream": {"schema": BINARY},
    },
}
INDEX_BODY = {"content": {"application/json": {"schema": IndexRequest.model_json_schema()}}}
ModelName = Annotated[str, Path(description="a model's name")]
ModelVersion = Annotated[str, Path(description="a version of the model")]


@router.get("", summary="Which server this is")
async def get_server() -> ServerMetadata:
    """Name, version and what it speaks beyond the protocol itself."""
    return ServerMetadata(name="dtn", version=__version__, extensions=EXTENSIONS)


@router.get("/health/live", summary="Whether the process is up")
async def get_live() -> Live:
    """As /health/live."""
    return Live(live=True)


@router.get(
    "/health/ready",
    summary="Whether to send requests here",
    responses=documented("not_ready", "draining"),
)
async def get_ready(request: Request) -> Ready:
    """As /health/ready."""
    service: Service = request.app.state.service
    service.require_ready()
    return Ready(ready=True)


@router.post(
    "/repository/index",
    summary="Every version of every model",
    responses=documented(
        "bad_request",
        "too_large",
        "invalid_parameter",
        "queue_full",
        "deadline_exceeded",
    ),
    openapi_extra={"requestBody": INDEX_BODY},
)
async def post_index(request: Request) -> list[IndexEntry]:
    """Triton's index of models; with `{"ready": true}` of those that can be used."""
    service: Service = request.app.state.service
    with service.buffers.reserve() as grow:
        timeout_s = service.settings.upload_timeout_s
        body = await read_body(request, MAX_INDEX_BYTES, timeout_s, grow)
    wanted = read_json(IndexRequest, body or b"{}")
    try:
        service.require_ready()
        reason = ""
    except Problem as problem:
        reason = problem.detail
    return [
        IndexEntry(
            name=model.manifest.name,
            version=model.manifest.version,
            state="UNAVAILABLE" if reason else "READY",
            reason=reason,
        )
        for model in service.models
        if not (wanted.ready and reason)
    ]


async def newest(model: ModelName) -> str:
    return model


async def versioned(model: ModelName, version: ModelVersion) -> str:
    return f"{model}@{version}"


def add_model_routes(path: str, reference: Callable[..., Awaitable[str]]) -> None:
    """The routes of a model, `name` or `name@version`, which `reference` makes of the path."""
    Reference = Annotated[str, Depends(reference)]

    @router.get(path, summary="A model's inputs and outputs", responses=documented("unknown_model"))
    async def get_model(request: Request, wanted: Reference) -> ModelMetadata:
        """What it takes and answers; /models tells more."""
        service: Service = request.app.state.service
        model = service.models.find(wanted)
        name = model.manifest.name
        return ModelMetadata(
            name=name,
            versions=[m.manifest.version for m in service.models if m.manifest.name == name],
            platform=PLATFORM,
            inputs=inputs_of(model.manifest),
            outputs=outputs_of(model),
        )

    @router.get(
        f"{path}/ready",
        summary="Whether a model can be used",
        responses=documented("unknown_model", "not_ready", "draining"),
    )
    async def get_model_ready(request: Request, wanted: Reference) -> ModelReady:
        """Ready once all models are warm, until the service is told to stop."""
        service: Service = request.app.state.service
        model = service.models.find(wanted)
        service.require_ready()
        return ModelReady(name=model.manifest.name, ready=True)

    @router.post(
        f"{path}/infer",
        summary="G(x) of tensors",
        response_model=InferenceAnswer,
        response_model_exclude_none=True,
        response_description="tensors in JSON or, behind it, in binary",
        responses={
            200: {
                "headers": {
                    "X-Request-ID": {"schema": {"type": "string"}, "description": "echoed or made"},
                    "X-Model": {"schema": {"type": "string"}, "description": "name@version"},
                    LENGTH_HEADER: LENGTH_OF_JSON,
                },
                "content": {"application/octet-stream": {"schema": BINARY}},
            },
            **documented(*UPLOAD_PROBLEMS),
        },
        openapi_extra={"requestBody": INFERENCE_BODY},
    )
    async def post_infer(request: Request, wanted: Reference) -> Response:
        """Carry up to 256 pictures over to the model's target domain.

        The input is either `x`, pixels UINT8 [N, H, W, 3], or `image`, BYTES [N, 1]: encoded
        pictures of any formats and sizes, as /transfer takes them; in JSON they are base64.
        Outputs are `y`, UINT8 [N, h, w, C], and where it is asked for, of a model that has it,
        `f_distance`, FP32 [N]: Eq. 8's ‖f(x) − f(G(x))‖. Without `outputs` there is `y` alone.

        JSON may have 4 MiB; larger tensors are sent in binary. A distance that is no finite
        number is NaN in binary and a problem in JSON. One bad picture is the whole request's
        problem; /transfer/batch takes each on its own.
        """
        service: Service = request.app.state.service
        service.require_started()
        batcher = service.batcher(wanted)
        max_bytes = service.settings.max_batch_bytes
        async with received(request, max_bytes, batcher.check, length_of_json) as upload:
            with batcher.place():
                return await upload.answered_by(infer(service, batcher, upload))


def length_of_json(headers: Headers) -> str:
    """What says how to read a body of tensors, "" where it is all JSON.

    Raises Problem as require_plain_body does.
    """
    require_plain_body(headers, "tensors")
    return headers.get(LENGTH_HEADER, "")


async def infer(service: Service, batcher: Batcher, upload: Upload) -> Response:
    """The answer to a body of tensors."""
    settings, model = service.settings, batcher.model
    limits = settings.max_bytes, settings.max_pixels
    if len(upload.body) <= SHORT_BODY:
        inference = parse(upload.body, upload.header, model, *limits)
    else:
        inference = await service.workers.run_on(parse, upload.body, upload.header, model, *limits)
    share = Share(batcher, service.workers, settings.max_pixels, upload.deadline)
    distance = inference.wants(model.manifest.distance_output)

    async def draw(item: tuple[int, Pixels | bytes]) -> Drawn:
        index, picture = item
        try:
            if isinstance(picture, bytes):
                async with share.decoded(picture) as x:
                    return await batcher.submit(x, distance, upload.deadline)
            return await batcher.submit(picture, distance, upload.deadline)
        except Problem as problem:
            where = f"picture {index}: {problem.detail}"
            raise Problem(problem.code, where, problem.headers) from problem

    drawn = await share.each(draw, enumerate(inference.pictures))
    if sum(y.nbytes for y, _ in drawn) <= SHORT_BODY:
        body, length = compose(model, inference, drawn)
    else:
        body, length = await service.workers.run_on(compose, model, inference, drawn)
    headers = {"X-Model": model.reference}
    if length is None:
        return Response(body, headers=headers, media_type="application/json")
    headers[LENGTH_HEADER] = str(length)
    return Response(body, headers=headers, media_type="application/octet-stream")


add_model_routes("/models/{model}", newest)
add_model_routes("/models/{model}/versions/{version}", versioned)
