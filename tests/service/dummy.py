"""A tiny stand-in for a trained model, and random pictures to send it."""

import json
import struct
import zlib
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from PIL import Image

SIDE = 32


def dummy_graph(distance: bool, channels: int = 1, fixed: str = "", side: int = SIDE) -> bytes:
    """A graph with a G's interface: x uint8 [N, H, W, 3] -> y uint8 [N, side, side, channels].

    y is x resized, its colours averaged where channels is 1. With `distance` there is
    f_distance float32 [N], too: the mean of y, divided by 255. `fixed` names one of the axes
    N, H, W that is 1 instead of free.
    """
    axes = [1 if axis == fixed else axis for axis in ("N", "H", "W")]
    nodes = [
        helper.make_node("Cast", ["x"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Resize", ["float", "", "", "sizes"], ["small"], axes=[1, 2]),
        helper.make_node("ReduceMean", ["small", "colours"], ["grey"], keepdims=1)
        if channels == 1
        else helper.make_node("Identity", ["small"], ["grey"]),
        helper.make_node("Round", ["grey"], ["rounded"]),
        helper.make_node("Cast", ["rounded"], ["y"], to=TensorProto.UINT8),
        helper.make_node("ReduceMean", ["rounded", "pixels"], ["mean"], keepdims=0),
        helper.make_node("Div", ["mean", "white"], ["f_distance"]),
    ]
    y = helper.make_tensor_value_info("y", TensorProto.UINT8, ["N", side, side, channels])
    d = helper.make_tensor_value_info("f_distance", TensorProto.FLOAT, ["N"])
    graph = helper.make_graph(
        nodes if distance else nodes[:-2],
        "dummy",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [*axes, 3])],
        [y, d] if distance else [y],
        initializer=[
            helper.make_tensor("sizes", TensorProto.INT64, [2], [side, side]),
            helper.make_tensor("colours", TensorProto.INT64, [1], [3]),
            helper.make_tensor("pixels", TensorProto.INT64, [3], [1, 2, 3]),
            helper.make_tensor("white", TensorProto.FLOAT, [], [255.0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def write_model(
    models: Path,
    folder_name: str = "digits",
    distance: bool = True,
    channels: int = 1,
    **changes: Any,
) -> Path:
    """A model folder with its manifest, some keys of which may be changed."""
    folder = models / folder_name
    folder.mkdir(parents=True)
    graphs = {"transfer": ("model.onnx", dummy_graph(False, channels))}
    if distance:
        graphs["distance"] = ("distance.onnx", dummy_graph(True, channels))
    for file, content in graphs.values():
        (folder / file).write_bytes(content)
    manifest = {
        "schema": 1,
        "name": folder_name,
        "version": "1",
        "source_domain": "photos",
        "target_domain": "small grey photos",
        "graphs": {
            role: {"file": file, "sha256": sha256(content).hexdigest(), "bytes": len(content)}
            for role, (file, content) in graphs.items()
        },
        "input": {"name": "x", "dtype": "uint8", "shape": ["N", "H", "W", 3]},
        "output": {"name": "y", "dtype": "uint8", "shape": ["N", SIDE, SIDE, channels]},
        "distance_output": "f_distance",
        "opset": 20,
        "training": {"preset": "none", "seed": 0},
        "data": {"protocol": "none", "splits": {}},
        "metrics": {"transfer_accuracy": {"value": 0.5, "split": "none", "n": 2}},
        "limits": "it only resizes",
        "licence": "none",
        "created": "2026-11-24",
    }
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))
    return folder


def encoded(picture: Image.Image, format_: str = "PNG", **options: Any) -> bytes:
    """A picture as a file's bytes."""
    file = BytesIO()
    picture.save(file, format_, **options)
    return file.getvalue()


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Random pixels, uint8 [height, width, channels]."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)


def png(width: int, height: int, rows: bytes = b"") -> bytes:
    """A PNG of any claimed size, 8-bit grey, with valid checksums."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
