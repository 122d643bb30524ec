"""The JSON that the service answers with, and the query it takes."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

PictureFormat = Literal["png", "webp", "jpeg"]
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


class StoredQuery(BaseModel):
    """Query of a person's stored emoji."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(
        None, description="`name` or `name@version`; without it the service's emoji model"
    )
    format: PictureFormat | None = Field(
        None, description="of the answered picture; without it what `Accept` prefers, else PNG"
    )
    size: Literal[64, 128, 256, 512] = Field(256, description="pixels of the emoji's side")

    @field_validator("size", mode="before")
    @classmethod
    def read_number(cls, value: Any) -> Any:
        """A query holds text."""
        return int(value) if value in {"64", "128", "256", "512"} else value


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


class EmojiAnswer(TransferAnswer):
    """The answer of POST /emoji with `Accept: application/json`."""

    faces: list[Box] = Field(description="every face's box, the largest first, as `?face=` counts")


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

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
