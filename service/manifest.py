"""A model folder's manifest.json: all that the service knows about how a model was made."""

from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Size = int | str  # an axis of a shape: fixed, or the name of a free one
EMOJI_SHAPE = (64, 64, 3)  # height, width, colours of what a model of faces answers


class ModelError(Exception):
    """A model folder that must not be served; the message names the folder and the reason."""


Role = Literal["transfer", "distance", "detect", "upscale"]
Fraction = Annotated[float, Field(ge=0, le=1)]


class File(BaseModel):
    """One file of the folder: an ONNX graph, or the weights that graphs share."""

    model_config = ConfigDict(frozen=True)

    file: str = Field(min_length=1)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=1)


class Tensor(BaseModel):
    """An input or output of the graphs: pictures, uint8 NHWC."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(min_length=1)
    dtype: Literal["uint8"]
    shape: tuple[Size, Size, Size, Literal[1, 3]]


# The graphs beside G have one interface for all models. A face's box is x0, y0, x1, y1, its
# points are x, y of the eye on the picture's left, the other eye, nose, mouth's left and right.
DETECT_INPUT = Tensor(name="x", dtype="uint8", shape=(1, "H", "W", 3))
DETECT_OUTPUTS = ["boxes", "scores", "points"]
UPSCALE_INPUT = Tensor(name="x", dtype="uint8", shape=("N", 64, 64, 3))
UPSCALE_OUTPUTS = ["y"]
UPSCALED = 512


class Alignment(BaseModel):
    """Where the eyes of a face lie in the square picture that the model was trained on."""

    model_config = ConfigDict(frozen=True)

    side: int = Field(ge=16, le=1024, description="pixels of the square")
    left_eye: tuple[Fraction, Fraction] = Field(description="x, y in sides; left in the picture")
    right_eye: tuple[Fraction, Fraction]

    @model_validator(mode="after")
    def eyes_are_apart(self) -> "Alignment":
        """The left eye is left of the other one."""
        if self.left_eye[0] >= self.right_eye[0]:
            raise ValueError("left_eye is not left of right_eye")
        return self


class Manifest(BaseModel):
    """manifest.json, schema 1. Further keys are allowed and ignored."""

    model_config = ConfigDict(frozen=True)

    # The name and version travel in a header (X-Model) and in a query (?model=name@version).
    schema_version: Literal[1] = Field(alias="schema")
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$")
    source_domain: str
    target_domain: str
    graphs: dict[Role, File]
    weights: File | None = None
    alignment: Alignment | None = None
    input: Tensor
    output: Tensor
    distance_output: str | None = None
    opset: int
    tf32: bool = False  # whether a GPU may round numbers to 10 bits: no picture must look otherwise
    training: dict[str, Any]
    data: dict[str, Any]
    metrics: dict[str, dict[str, Any]]
    limits: str
    licence: str
    created: str

    @property
    def reference(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    @model_validator(mode="after")
    def graphs_are_complete(self) -> "Manifest":
        """All graphs that are needed are there, and the output of `distance` has a name."""
        needed = {"transfer"} | ({"distance", "detect"} if self.alignment else set())
        if missing := needed - set(self.graphs):
            raise ValueError(f"graphs has no `{'`, no `'.join(sorted(missing))}`")
        if "distance" in self.graphs and not self.distance_output:
            raise ValueError("there is a graph `distance` but no distance_output")
        if self.alignment and self.output.shape[1:] != EMOJI_SHAPE:
            raise ValueError(f"the output of a model with alignment is {list(EMOJI_SHAPE)}")
        return self


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a model folder.

    The folder has the model's name or, where there are several versions, is name@version.
    Raises ModelError where the manifest is missing, unreadable, invalid, or of another model.
    """
    path = folder / "manifest.json"
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "manifest"
        raise ModelError(f"{path}: {where}: {first['msg']}") from error
    named = folder.resolve().name
    if named not in (manifest.name, manifest.reference):
        raise ModelError(f"{path}: is of {manifest.reference!r}, not of {named!r}")
    return manifest


def read_file(folder: Path, part: File) -> bytes:
    """The bytes of a file whose hash has been checked.

    The caller loads these very bytes: the file might change between the check and a second
    look at it. Raises ModelError where the file is missing, outside the folder, or another one
    than the manifest's.
    """
    path = folder / part.file
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ModelError(f"{folder}: the file {part.file!r} lies outside the model folder")
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelError(f"{path}: {reason}") from error
    found = sha256(content).hexdigest()
    if found != part.sha256:
        raise ModelError(f"{path}: sha256 is {found}, the manifest says {part.sha256}")
    if len(content) != part.bytes:
        raise ModelError(f"{path}: has {len(content)} bytes, the manifest says {part.bytes}")
    return content
