"""The JSON of the Open Inference Protocol v2, as far as this service speaks it."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Axis = Annotated[int, Field(ge=1, le=2**31, strict=True)]


class InputParameters(BaseModel):
    """What is said of an input beside its data. Further names are allowed and ignored."""

    binary_data_size: int | None = Field(default=None, ge=0, le=2**40, strict=True)
    shared_memory_region: Any = None


class InputTensor(BaseModel):
    """An input: `data` here, or else binary_data_size bytes behind the JSON."""

    name: str
    datatype: str
    shape: list[Axis] = Field(min_length=1, max_length=4)
    parameters: InputParameters = InputParameters()
    data: list[Any] | None = None


class OutputParameters(BaseModel):
    """How an output is wanted. Further names are allowed and ignored."""

    binary_data: bool | None = None
    classification: Any = None
    shared_memory_region: Any = None


class WantedOutput(BaseModel):
    """An output that is asked for."""

    name: str
    parameters: OutputParameters = OutputParameters()


class RequestParameters(BaseModel):
    """What is said of a whole request. Further names are allowed and ignored."""

    binary_data_output: bool = False


class InferenceRequest(BaseModel):
    """The JSON of POST /v2/models/{model}/infer."""

    id: str | None = None
    parameters: RequestParameters = RequestParameters()
    inputs: list[InputTensor] = Field(min_length=1, max_length=8)
    outputs: list[WantedOutput] = Field(default=[], max_length=8)


class OutputTensor(BaseModel):
    """An output: `data` here, or else parameters.binary_data_size bytes behind the JSON."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, int] | None = None
    data: list[float] | None = None


class InferenceAnswer(BaseModel):
    """The answer's JSON."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: str
    model_version: str
    id: str | None = Field(default=None, description="the request's, where it had one")
    outputs: list[OutputTensor]


class ServerMetadata(BaseModel):
    """The answer of GET /v2."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """An input or output of a model; -1 stands for an axis of any size."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """The answer of GET /v2/models/{model}."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class Live(BaseModel):
    """The answer of GET /v2/health/live."""

    live: Literal[True]


class Ready(BaseModel):
    """The answer of GET /v2/health/ready."""

    ready: Literal[True]


class ModelReady(BaseModel):
    """The answer of GET /v2/models/{model}/ready."""

    name: str
    ready: Literal[True]


class IndexRequest(BaseModel):
    """The body of POST /v2/repository/index, which may be empty."""

    ready: bool = False


class IndexEntry(BaseModel):
    """One version of one model."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str
