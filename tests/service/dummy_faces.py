"""A tiny stand-in for a model of faces: a face is where there is much of one pure colour."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, parser
from PIL import Image, ImageDraw

from tests.service.dummy import dummy_graph, write_model

HEAD = '<ir_version: 9, opset_import: ["" : 20]>'

# Of each pure colour, red, green and blue, the box round its pixels is a face.
DETECT = f"""
{HEAD}
blobs (uint8[1, H, W, 3] x) => (float[M, 4] boxes, float[M] scores, float[M, 5, 2] points)
<
    float[3, 3] purity = {{1, -1, -1, -1, 1, -1, -1, -1, 1}}, float pure = {{100}},
    float[3] sure = {{0.75, 0.875, 1}}, float far = {{1000000}},
    float[1, 5, 2] spots = {{0.3, 0.4, 0.7, 0.4, 0.5, 0.6, 0.35, 0.8, 0.65, 0.8}},
    int64 zero = {{0}}, int64 one = {{1}}, int64[1] axis = {{0}}, int64[1] axis_1 = {{1}},
    int64[1] axis_2 = {{2}}, float whole = {{1}}, float none = {{0}}
>
{{
    float = Cast <to = 1> (x)
    purities = MatMul (float, purity)
    blob = Greater (purities, pure)
    there_3 = Cast <to = 1> (blob)
    there = Squeeze (there_3, axis)
    by_row = ReduceMax <keepdims = 0> (there, axis_1)
    by_column = ReduceMax <keepdims = 0> (there, axis)
    sides = Shape <start = 0, end = 2> (there)
    h_, w_ = Split <num_outputs = 2> (sides)
    h = Squeeze (h_)
    w = Squeeze (w_)
    rows_ = Range (zero, h, one)
    columns_ = Range (zero, w, one)
    rows_float = Cast <to = 1> (rows_)
    columns_float = Cast <to = 1> (columns_)
    rows = Unsqueeze (rows_float, axis_1)
    columns = Unsqueeze (columns_float, axis_1)
    in_row = Greater (by_row, none)
    in_column = Greater (by_column, none)
    y_first = Where (in_row, rows, far)
    x_first = Where (in_column, columns, far)
    minus = Neg (far)
    y_last = Where (in_row, rows, minus)
    x_last = Where (in_column, columns, minus)
    y0 = ReduceMin <keepdims = 0> (y_first, axis)
    x0 = ReduceMin <keepdims = 0> (x_first, axis)
    y_end = ReduceMax <keepdims = 0> (y_last, axis)
    x_end = ReduceMax <keepdims = 0> (x_last, axis)
    y1 = Add (y_end, whole)
    x1 = Add (x_end, whole)
    is_there = Greater (y1, y0)
    which_ = NonZero (is_there)
    which = Squeeze (which_, axis)
    x0_ = Unsqueeze (x0, axis_1)
    y0_ = Unsqueeze (y0, axis_1)
    x1_ = Unsqueeze (x1, axis_1)
    y1_ = Unsqueeze (y1, axis_1)
    all_boxes = Concat <axis = 1> (x0_, y0_, x1_, y1_)
    boxes = Gather (all_boxes, which)
    scores = Gather (sure, which)
    corners, ends = Split <axis = 1, num_outputs = 2> (boxes)
    sizes = Sub (ends, corners)
    sizes_ = Unsqueeze (sizes, axis_1)
    corners_ = Unsqueeze (corners, axis_1)
    within = Mul (sizes_, spots)
    points = Add (corners_, within)
}}
"""
UPSCALE = f"""
{HEAD}
enlarge (uint8[N, 64, 64, 3] x) => (uint8[N, 512, 512, 3] y)
<int64[2] sides = {{512, 512}}>
{{
    float = Cast <to = 1> (x)
    large = Resize <axes = [1, 2], mode = "linear"> (float, , , sides)
    whole = Round (large)
    y = Cast <to = 2> (whole)
}}
"""


def graph(text: str) -> bytes:
    """A graph in ONNX's own text, as a file's bytes."""
    model = parser.parse_model(text)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def with_weights(content: bytes, file: str = "weights.bin") -> tuple[bytes, bytes]:
    """A G whose y goes through a tensor that lies in a file of its own, and that file."""
    model = onnx.load_from_string(content)
    gain = np.ones((64, 64, 3), np.float32)
    tensor = numpy_helper.from_array(gain, "gain")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", file), ("offset", 0), ("length", gain.nbytes)):
        tensor.external_data.add(key=key, value=str(value))
    model.graph.initializer.append(tensor)
    (cast,) = (node for node in model.graph.node if node.output[0] == "y")
    cast.input[0] = "gained"
    place = list(model.graph.node).index(cast)
    model.graph.node.insert(place, helper.make_node("Mul", ["rounded", "gain"], ["gained"]))
    return model.SerializeToString(), gain.tobytes()


def write_face_model(
    models: Path, name: str = "emoji", upscale: bool = True, **changes: Any
) -> Path:
    """A model folder `name`, some keys of whose manifest may be changed."""
    model, weights = with_weights(dummy_graph(False, 3, side=64))
    files = {
        "transfer": ("model.onnx", model),
        "distance": ("distance.onnx", with_weights(dummy_graph(True, 3, side=64))[0]),
        "detect": ("detect.onnx", graph(DETECT)),
    }
    if upscale:
        files["upscale"] = ("upscale.onnx", graph(UPSCALE))
    folder = write_model(models, name, output={})
    manifest = json.loads((folder / "manifest.json").read_text())

    def told(file: str, content: bytes) -> dict[str, Any]:
        (folder / file).write_bytes(content)
        return {"file": file, "sha256": sha256(content).hexdigest(), "bytes": len(content)}

    manifest |= {
        "graphs": {role: told(*written) for role, written in files.items()},
        "weights": told("weights.bin", weights),
        "output": {"name": "y", "dtype": "uint8", "shape": ["N", 64, 64, 3]},
        "alignment": {"side": 152, "left_eye": [0.365, 0.48], "right_eye": [0.635, 0.48]},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))
    return folder


Blob = tuple[int, int, int, str]  # x, y and side of a square, and its colour


def photo_of(*blobs: Blob, size: tuple[int, int] = (400, 300), grey: int = 160) -> Image.Image:
    """A photo of such faces on grey. The lighter the grey, the larger the dummy's distance."""
    photo = Image.new("RGB", size, (grey, grey, grey))
    draw = ImageDraw.Draw(photo)
    for x, y, side, colour in blobs:
        draw.rectangle((x, y, x + side - 1, y + side - 1), fill=colour)
    return photo
