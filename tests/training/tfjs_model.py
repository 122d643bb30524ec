"""Made-up TensorFlow.js graph models, written as the converter writes them."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np

Values = dict[str, np.ndarray]


def text(value: str) -> dict[str, str]:
    return {"s": base64.b64encode(value.encode()).decode()}


def integers(*values: int) -> dict[str, Any]:
    return {"list": {"i": [str(value) for value in values]}}


def fused(*names: str) -> dict[str, Any]:
    return {"list": {"s": [text(name)["s"] for name in names]}}


def convolution(padding: str = "SAME", stride: int = 1, *ops: str) -> dict[str, Any]:
    return {
        "padding": text(padding),
        "strides": integers(1, stride, stride, 1),
        "fused_ops": fused(*ops),
    }


def node(name: str, op: str, *inputs: str, **attributes: Any) -> dict[str, Any]:
    return {"name": name, "op": op, "input": list(inputs), "attr": attributes}


def write(path: Path, nodes: list[dict[str, Any]], constants: Values, half: bool = False) -> Path:
    """`nodes` and `constants` as `path` and the .bin beside it; `half` stores float16."""
    weights = []
    data = b""
    for name, value in constants.items():
        entry = {"name": name, "shape": list(value.shape), "dtype": str(value.dtype)}
        if half and value.dtype == np.float32:
            entry["quantization"] = {"dtype": "float16", "original_dtype": "float32"}
        stored = value.astype(np.float16) if "quantization" in entry else value
        weights.append(entry)
        data += stored.tobytes()
    path.with_suffix(".bin").write_bytes(data)
    placeholders = [node(name, "Const") for name in constants]
    manifest = [{"paths": [path.with_suffix(".bin").name], "weights": weights}]
    model = {"modelTopology": {"node": placeholders + nodes}, "weightsManifest": manifest}
    path.write_text(json.dumps(model))
    return path
