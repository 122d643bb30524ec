"""The JSON that the service answers with, and the query it takes."""

from datetime import datetime
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

PictureFormat = Literal["png", "webp", "jpeg"]
EmojiSize = Literal[64, 128, 256, 512]
Box = tuple[int, int, int, int]


class TransferQuery(BaseModel):
    """Query of POST /transfer. A name that is not here is refused, lest a typo go unnoticed."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(
        None, description="`name` or `name@version`; without it the service's default model"
    )
    format: PictureFormat | None = Field(
        None, description="of the answered picture; without it what `Accept` prefers, else PNG"
    )
    distance: bool = Field(False, description="compute ‖f(x) − f(G(x))‖ of Eq. 8, too")


class BatchQuery(TransferQuery):
    """Query of POST /transfer/batch."""

    format: PictureFormat = Field(default="png", description="of the answered pictures")


class StoredQuery(BaseModel):
    """Query of a person's stored emoji."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(
        None, description="`name` or `name@version`; without it the service's emoji model"
    )
    format: PictureFormat | None = Field(
        None, description="of the answered picture; without it what `Accept` prefers, else PNG"
    )
    size: EmojiSize = Field(256, description="pixels of the emoji's side")

    @field_validator("size", mode="before")
    @classmethod
    def read_number(cls, value: Any) -> Any:
        """A query holds text."""
        return int(value) if value in set(map(str, get_args(EmojiSize))) else value


class EmojiQuery(StoredQuery):
    """Query of POST /emoji."""

    face: int | None = Field(
        None,
        ge=0,
        description="which face, 0 being the largest; without it the largest that can be used",
    )


class Face(BaseModel):
    """Where a face was found, in pixels of the upright photo."""

    box: Box = Field(description="x, y, width, height")
    score: float = Field(description="0 to 1")
    count: int = Field(description="faces found in the photo")


class TransferAnswer(BaseModel):
    """The answer of POST /transfer with `Accept: application/json`."""

    model: str = Field(description="name@version")
    width: int
    height: int
    media_type: str
    image: str = Field(description="the picture, base64")
    f_distance: float | None = Field(description="Eq. 8's distance; null where not asked for")
    face: Face | None = Field(description="null: no face is looked for here")


class BatchResult(BaseModel):
    """What became of one picture of a batch: a picture, or else a code and its detail."""

    name: str | None = Field(description="as the client called its file")
    status: str = Field(description="`ok` or the error's code")
    detail: str | None = Field(default=None, description="of the error")
    width: int | None = None
    height: int | None = None
    media_type: str | None = None
    image: str | None = Field(default=None, description="the picture, base64")
    f_distance: float | None = Field(
        default=None, description="Eq. 8's distance; null where not asked for"
    )


class BatchAnswer(BaseModel):
    """The answer of POST /transfer/batch, but for `Accept: multipart/mixed`."""

    model: str = Field(description="name@version")
    results: list[BatchResult] = Field(description="one for each picture, in their order")


class EmojiAnswer(TransferAnswer):
    """The answer of POST /emoji with `Accept: application/json`."""

    faces: list[Box] = Field(description="every face's box, the largest first, as `?face=` counts")


class PhotoReport(BaseModel):
    """What became of one photo of a person."""

    name: str | None = Field(description="as the client called its file")
    status: str = Field(description="`ok` or the error's code")
    f_distance: float | None = Field(description="null where there is no emoji of the photo")
    face: Face | None = Field(description="null where there is no emoji of the photo")


class PersonAnswer(TransferAnswer):
    """The answer of POST /persons/{person}/emoji with `Accept: application/json`."""

    person: str
    chosen: int | None = Field(
        description="index of the photo the emoji is of; null: the stored one stays best"
    )
    photos: list[PhotoReport]


class KeptEmoji(BaseModel):
    """The best emoji of a person so far, but for the picture."""

    model: str = Field(description="name@version that drew it")
    f_distance: float
    photo: int = Field(description="index of its photo in the request it came with")
    bytes: int = Field(description="of the stored PNG")
    etag: str = Field(description="changes with the emoji; ETag begins with it")
    created: datetime = Field(description="when the first emoji of this model was kept")
    updated: datetime = Field(description="when this one was")


class Person(BaseModel):
    """All that is kept of a person: no photo, no file name, nothing that a photo could be
    made of."""

    person: str
    emojis: list[KeptEmoji] = Field(description="one for each model")


class GraphCard(BaseModel):
    """One ONNX graph of a model."""

    file: str
    sha256: str
    bytes: int


class ModelCard(BaseModel):
    """A served model: what it does, how well, what it cannot do, and where it runs."""

    model: str = Field(description="name@version, as in X-Model")
    name: str
    version: str
    default: bool = Field(description="whether requests that name no model get this one")
    source_domain: str
    target_domain: str
    sha256: str = Field(description="of the graph `transfer`")
    bytes: int = Field(description="of the graph `transfer`")
    graphs: dict[str, GraphCard]
    input: dict[str, Any]
    output: dict[str, Any]
    alignment: dict[str, Any] | None = Field(
        description="of a model of faces: where the eyes lie in the square picture it takes"
    )
    opset: int
    training: dict[str, Any]
    data: dict[str, Any]
    metrics: dict[str, dict[str, Any]]
    limits: str
    licence: str
    created: str
    device: Literal["cpu", "cuda"] = Field(description="in use, not merely asked for")
    provider: str = Field(description="onnxruntime's execution provider in use")


class ModelList(BaseModel):
    """The answer of GET /models."""

    models: list[ModelCard]


class Health(BaseModel):
    """The answer of a health probe."""

    status: Literal["live", "ready"]


class ProblemDetails(BaseModel):
    """An error (RFC 9457). `code` is stable and meant for programs, `detail` for people."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
