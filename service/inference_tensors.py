"""Tensors of the Open Inference Protocol v2, as JSON or binary: pictures in, G(x) out."""

import base64
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from service.batching import Drawn
from service.inference_schemas import InferenceRequest, InputTensor, TensorMetadata, WantedOutput
from service.manifest import Manifest, Tensor
from service.many import MOST
from service.models import Model
from service.pictures import Pixels
from service.problems import Code, Problem
from service.settings import MIB

Schema = TypeVar("Schema", bound=BaseModel)

LENGTH_HEADER = "Inference-Header-Content-Length"
# Numbers written as text are slow to read, and nothing else is done meanwhile.
MAX_JSON = 4 * MIB
ENCODED = "image"  # the input of encoded pictures
PREFIX = 4  # bytes before each element of a binary BYTES tensor: its length, little-endian


@dataclass(frozen=True)
class Inference:
    """What a request asks for."""

    id: str | None
    pictures: Pixels | list[bytes]  # uint8 [N, H, W, 3], or encoded
    outputs: dict[str, bool]  # whether each is wanted in binary

    def wants(self, output: str | None) -> bool:
        return output in self.outputs


def inputs_of(manifest: Manifest) -> list[TensorMetadata]:
    """The inputs that a model tells of. Encoded pictures are another way of sending them."""
    return [metadata(manifest.input)]


def outputs_of(model: Model) -> list[TensorMetadata]:
    outputs = [metadata(model.manifest.output)]
    if model.has_distance:
        name = str(model.manifest.distance_output)
        outputs.append(TensorMetadata(name=name, datatype="FP32", shape=[-1]))
    return outputs


def metadata(tensor: Tensor) -> TensorMetadata:
    """A manifest's tensor. N is free even where the graph's is not: pictures go one by one."""
    axes = [axis if isinstance(axis, int) else -1 for axis in tensor.shape[1:]]
    return TensorMetadata(name=tensor.name, datatype="UINT8", shape=[-1, *axes])


# Requests


def parse(body: bytes, length: str, model: Model, max_bytes: int, max_pixels: int) -> Inference:
    """The request in a body, whose JSON is `length` bytes long or, where that is "", all of it.

    Raises Problem: bad_request where JSON and binary data cannot be told apart, too_large,
    invalid_parameter where the tensors are not as they should be.
    """
    end = len(body)
    if length:
        # Compared by length first: int() of thousands of digits is slow, then refused.
        known = length.isascii() and length.isdecimal() and len(length) <= 18
        if not known or int(length) > end:
            raise Problem("bad_request", f"{LENGTH_HEADER} is no length of a part of the body")
        end = int(length)
    if end > MAX_JSON:
        raise Problem(
            "too_large", f"the JSON has more than {MAX_JSON} bytes; send tensors in binary"
        )
    request = read_json(InferenceRequest, body[:end])
    tensor = only_input(request.inputs, model.manifest)
    binary = binary_of(tensor, memoryview(body)[end:])
    if tensor.datatype == "BYTES":
        pictures: Pixels | list[bytes] = encoded_pictures(tensor, binary, max_bytes)
    else:
        pictures = pixels(tensor, binary, model.manifest.input, max_pixels)
    outputs = wanted_outputs(request.outputs, model, request.parameters.binary_data_output)
    return Inference(request.id, pictures, outputs)


def read_json(schema: type[Schema], text: bytes) -> Schema:
    """JSON of a schema. Raises Problem: bad_request where it is no JSON, invalid_parameter."""
    try:
        return schema.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        malformed = first["type"] == "json_invalid"
        code: Code = "bad_request" if malformed else "invalid_parameter"
        raise Problem(code, f"{where}: {first['msg']}"[:500]) from error


def only_input(inputs: Sequence[InputTensor], manifest: Manifest) -> InputTensor:
    """The one input of a request. Raises Problem invalid_parameter where it is another."""
    known = ((manifest.input.name, "UINT8"), (ENCODED, "BYTES"))
    if len(inputs) > 1 or (inputs[0].name, inputs[0].datatype) not in known:
        told = ", ".join(f"{each.name[:40]!a} {each.datatype[:40]!a}" for each in inputs)
        wanted = " or ".join(f"{name!r} {datatype!r}" for name, datatype in known)
        raise Problem("invalid_parameter", f"inputs: exactly {wanted} is wanted; there is: {told}")
    return inputs[0]


def binary_of(tensor: InputTensor, rest: memoryview) -> memoryview | None:
    """The binary data of the only input; None where its data are in the JSON.

    Raises Problem: bad_request where its size is another than that of the body's rest,
    invalid_parameter where there are not data in exactly one place.
    """
    size = tensor.parameters.binary_data_size
    if tensor.parameters.shared_memory_region is not None:
        raise Problem("invalid_parameter", f"{tensor.name}: there is no shared memory here")
    if (size is None) == (tensor.data is None):
        raise Problem(
            "invalid_parameter", f"{tensor.name}: either data or binary_data_size is wanted"
        )
    if len(rest) != (size or 0):
        raise Problem(
            "bad_request",
            f"{tensor.name}: binary_data_size is {size}, the JSON is followed by {len(rest)} bytes",
        )
    return None if size is None else rest


def pixels(
    tensor: InputTensor, binary: memoryview | None, wanted: Tensor, max_pixels: int
) -> Pixels:
    """The pictures of a UINT8 tensor, uint8 [N, H, W, 3].

    Raises Problem: too_large, or invalid_parameter where the shape is not the model's or the
    data do not fill it.
    """
    name, shape = tensor.name, tensor.shape
    axes = zip(metadata(wanted).shape, shape, strict=False)
    if len(shape) != 4 or any(axis not in (-1, found) for axis, found in axes):
        raise Problem("invalid_parameter", f"{name}: the shape is not {metadata(wanted).shape}")
    check_count(shape[0])
    if shape[1] * shape[2] > max_pixels:
        raise Problem("too_large", f"{name}: a picture has more than {max_pixels} pixels")
    values = numbers(tensor) if binary is None else binary
    if len(values) != math.prod(shape):
        raise Problem(
            "invalid_parameter",
            f"{name}: a tensor of shape {shape} has {math.prod(shape)} values, not {len(values)}",
        )
    return np.frombuffer(values, np.uint8).reshape(shape)


def check_count(count: int) -> None:
    if count > MOST:
        raise Problem("too_large", f"more than {MOST} pictures in one request")


def numbers(tensor: InputTensor) -> bytes:
    """The numbers 0 to 255 of a JSON tensor, whether it is nested or flat.

    Raises Problem invalid_parameter.
    """
    values = tensor.data or []
    if values and isinstance(values[0], list):
        for size in tensor.shape[1:]:
            if any(not isinstance(row, list) or len(row) != size for row in values):
                raise Problem("invalid_parameter", f"{tensor.name}: data are not as shape says")
            values = list(chain.from_iterable(values))
    try:
        return bytes(values)
    except (TypeError, ValueError) as error:
        raise Problem(
            "invalid_parameter", f"{tensor.name}: data must be whole numbers from 0 to 255"
        ) from error


def encoded_pictures(tensor: InputTensor, binary: memoryview | None, max_bytes: int) -> list[bytes]:
    """The elements of a BYTES tensor of shape [N] or [N, 1]; in JSON they are base64.

    Raises Problem: too_large, invalid_parameter.
    """
    name, shape = tensor.name, tensor.shape
    if len(shape) > 2 or shape[1:] not in ([], [1]):
        raise Problem("invalid_parameter", f"{name}: the shape is not [-1, 1]")
    check_count(shape[0])
    pictures = decoded_base64(tensor) if binary is None else list(elements(name, binary))
    if len(pictures) != shape[0]:
        raise Problem(
            "invalid_parameter",
            f"{name}: a tensor of shape {shape} has {shape[0]} elements, not {len(pictures)}",
        )
    if any(len(picture) > max_bytes for picture in pictures):
        raise Problem("too_large", f"{name}: a picture has more than {max_bytes} bytes")
    return pictures


def elements(name: str, binary: memoryview) -> Iterator[bytes]:
    """The elements of a binary BYTES tensor. Raises Problem invalid_parameter."""
    at = 0
    while at < len(binary):
        start = at + PREFIX
        at = start + int.from_bytes(binary[at:start], "little")
        if at > len(binary):
            raise Problem("invalid_parameter", f"{name}: an element is longer than the data")
        yield bytes(binary[start:at])


def decoded_base64(tensor: InputTensor) -> list[bytes]:
    """The elements of a JSON BYTES tensor, flat or nested. Raises Problem invalid_parameter."""
    try:
        return [
            base64.b64decode(value[0] if isinstance(value, list) else value, validate=True)
            for value in tensor.data or []
        ]
    except (TypeError, ValueError, IndexError) as error:
        raise Problem("invalid_parameter", f"{tensor.name}: data must be base64") from error


def wanted_outputs(wanted: Sequence[WantedOutput], model: Model, binary: bool) -> dict[str, bool]:
    """The outputs asked for, by default G(x) alone, and whether in binary.

    Raises Problem invalid_parameter where there is no such output, or not in such a way.
    """
    known = [output.name for output in outputs_of(model)]
    if not wanted:
        return {known[0]: binary}
    outputs: dict[str, bool] = {}
    for output in wanted:
        name, told = output.name, output.parameters
        if name not in known or name in outputs:
            raise Problem(
                "invalid_parameter",
                f"outputs: {name[:40]!a} is not one, or twice; there is: {', '.join(known)}",
            )
        if told.classification is not None or told.shared_memory_region is not None:
            raise Problem(
                "invalid_parameter", f"{name}: there is no classification or shared memory here"
            )
        outputs[name] = binary if told.binary_data is None else told.binary_data
    return outputs


# Answers


def compose(model: Model, inference: Inference, drawn: Sequence[Drawn]) -> tuple[bytes, int | None]:
    """The answer's body, and the length of its JSON where binary data follow.

    Raises Problem invalid_parameter where the answer is no tensor: pictures of several sizes,
    or, in JSON, a distance that is no finite number.
    """
    y, f_distance = zip(*drawn, strict=True)
    tensors = []
    blobs = []
    for name, binary in inference.outputs.items():
        is_y = name == model.manifest.output.name
        array = stacked(name, y) if is_y else distances(name, f_distance, allow_nan=binary)
        tensor: dict[str, Any] = {
            "name": name,
            "datatype": "UINT8" if is_y else "FP32",
            "shape": array.shape,
        }
        if binary:
            blobs.append(array.tobytes())
            tensor["parameters"] = {"binary_data_size": array.nbytes}
        else:
            tensor["data"] = array.ravel().tolist()
        tensors.append(tensor)
    head = to_json(
        {
            "model_name": model.manifest.name,
            "model_version": model.manifest.version,
            **({} if inference.id is None else {"id": inference.id}),
            "outputs": tensors,
        }
    )
    return b"".join((head, *blobs)), len(head) if blobs else None


def stacked(name: str, y: Sequence[Pixels]) -> Pixels:
    """Pictures as uint8 [N, h, w, C]. Raises Problem invalid_parameter."""
    if len({each.shape for each in y}) > 1:
        raise Problem(
            "invalid_parameter", f"{name}: the pictures differ in size; send them one by one"
        )
    return np.stack(y)


def distances(
    name: str, f_distance: Sequence[float | None], allow_nan: bool
) -> npt.NDArray[np.float32]:
    """Distances as float32 [N], NaN where one is no finite number: JSON knows no NaN.

    Raises Problem invalid_parameter.
    """
    if None in f_distance and not allow_nan:
        raise Problem(
            "invalid_parameter",
            f"{name}: that of picture {f_distance.index(None)} is no finite number, which only "
            "binary data can tell",
        )
    return np.array([math.nan if each is None else each for each in f_distance], np.dtype("<f4"))
