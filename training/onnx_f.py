"""An ONNX classifier or embedding as f: which value is f(x), and how its pictures come.

What a graph does not say is guessed as `OnnxF` tells; --layer, --f-range and --f-side overrule it.
"""

import math
from pathlib import Path
from typing import Any

import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from training.onnx_torch import OnnxModule, dimensions, picture_input, read_onnx

# Mean and deviation by which a picture in [0, 1] is standardised.
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RANGES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": IMAGENET,
    "0..1": ((0.0,), (1.0,)),
    "-1..1": ((0.5,), (0.5,)),
    "0..255": ((0.0,), (1 / 255,)),
}
PASSED = ("Softmax", "LogSoftmax", "Sigmoid", "Identity", "Cast", "Squeeze", "Dropout")
ENDS = ("Softmax", "LogSoftmax", "Sigmoid")
SHAPING = ("Reshape", "Flatten", "Squeeze", "Dropout", "Identity")
LINEAR = ("Gemm", "MatMul")
FIRST = ("Sub", "Add", "Mul", "Div", "BatchNormalization", "Cast", "Transpose", "Identity")


def range_of(text: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """A name of RANGES, or means and deviations of the channels of [0, 1]: `0.5/0.25`,
    `.49,.46,.41/.23,.22,.22`. Raises ValueError for anything else."""
    if text in RANGES:
        return RANGES[text]
    try:
        means, deviations = (tuple(map(float, part.split(","))) for part in text.split("/"))
    except ValueError:
        means = deviations = ()
    usual = len(means) in (1, 3) and len(deviations) in (1, 3) and all(d > 0 for d in deviations)
    if not usual or not all(map(math.isfinite, means + deviations)):
        known = ", ".join(RANGES)
        raise ValueError(f"no range {text!r} of pictures: {known}, or MEAN/DEVIATION")
    return means, deviations


def producers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """By value, the node that makes it."""
    return {name: node for node in model.graph.node for name in node.output}


def parts(model: onnx.ModelProto) -> tuple[str, str | None]:
    """The values that are f(x) and, of a classifier, its logits.

    A classifier ends in a Gemm, or a MatMul with its Add, or anything linear before a softmax: f(x)
    is what goes in there. Everything else is an embedding: its output.
    """
    made = producers(model)
    output = model.graph.output[0].name
    node, ends = made.get(output), False
    name = output
    while node is not None and node.op_type in PASSED:
        ends |= node.op_type in ENDS
        name = node.input[0]
        node = made.get(name)
    if node is not None and node.op_type == "Add":  # the bias beside a MatMul
        before = [made[i] for i in node.input if i in made and made[i].op_type == "MatMul"]
        if before:
            return passed_back(before[0].input[0], made), name
    if node is not None and (node.op_type in LINEAR or (ends and node.op_type == "Conv")):
        return passed_back(node.input[0], made), name
    if ends and node is not None and node.op_type in ("Reshape", "Flatten", "GlobalAveragePool"):
        return passed_back(node.input[0], made), name
    return output, None


def passed_back(name: str, made: dict[str, onnx.NodeProto]) -> str:
    """`name` before what only reshapes it, as long as that is made by a node at all."""
    return name if name in made else next(iter(made))


def guessed_range(model: onnx.ModelProto, channels: int) -> str:
    """`0..255` of a uint8 input; what the first nodes hint at, where the graph standardises by
    itself; else `imagenet` of colours and `0..1` of grey pictures."""
    value = picture_input(model)
    if value.type.tensor_type.elem_type == TensorProto.UINT8:
        return "0..255"
    weights = {w.name: w for w in model.graph.initializer}
    name = value.name
    for _ in range(4):
        node = next((n for n in model.graph.node if name in n.input), None)
        if node is None or node.op_type not in FIRST:
            break
        for other in node.input:
            if other != name and other in weights and weights[other].data_type == TensorProto.FLOAT:
                values = abs(numpy_helper.to_array(weights[other])).ravel()
                if node.op_type in ("Sub", "Add") or node.op_type == "BatchNormalization":
                    return "0..255" if values.max() > 2 else "0..1"
                if node.op_type == "Div" and values.max() > 2:
                    return "0..255"
                if node.op_type == "Mul" and values.max() < 0.1:
                    return "0..255"
        name = node.output[0]
    return "imagenet" if channels == 3 else "0..1"


class OnnxF(nn.Module):
    """f of an ONNX file: pictures [B, 3, S, S] in [-1, 1] to f(x) [B, K] and logits [B, C] or None.

    Layout and channels are those of the input: the axis of 1 or 3 is the channels. The side is the
    input's or, where that is free, that of the run. `layer` is the value to take; one with height
    and width [B, K, h, w], or of tokens [B, T, K], is averaged over them. `chosen` tells what was
    found. Raises ValueError.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        path: Path,
        side: int,
        layer: str | None = None,
        f_range: str | None = None,
        f_side: int | None = None,
    ) -> None:
        super().__init__()
        model = read_onnx(path)
        shape = dimensions(picture_input(model))
        if len(shape) != 4:
            raise ValueError(f"{path} takes {len(shape)} axes, not the 4 of pictures")
        if shape[1] not in (1, 3) and shape[3] not in (1, 3):
            raise ValueError(f"{path} takes {shape}: no axis is of 1 or 3 channels")
        self.last = shape[1] not in (1, 3)  # channels last
        own = {n for n in (shape[1:3] if self.last else shape[2:]) if n is not None}
        if len(own) > 1 or (own and f_side is not None and {f_side} != own):
            raise ValueError(f"{path} takes pictures of {shape}, not of {f_side or 'a square'}")
        self.side = own.pop() if own else (f_side or side)
        self.channels = int((shape[3] if self.last else shape[1]) or 3)
        found, logits = parts(model)
        f_range = f_range or guessed_range(model, self.channels)
        means, deviations = range_of(f_range)
        self.register_buffer("mean", torch.tensor(means).view(1, -1, 1, 1))
        self.register_buffer("deviation", torch.tensor(deviations).view(1, -1, 1, 1))
        self.has_logits = logits is not None
        outputs = [layer or found, *([logits] if logits is not None else [])]
        size = (self.side, self.side)
        shape = [1, *size, self.channels] if self.last else [1, self.channels, *size]
        self.net = OnnxModule(model, [int(n or 1) for n in shape], outputs)
        self.chosen: dict[str, Any] = {
            "layer": outputs[0],
            "classifier": self.has_logits,
            "layout": "NHWC" if self.last else "NCHW",
            "channels": self.channels,
            "side": self.side,
            "range": f_range,
        }

    def prepared(self, x: Tensor) -> Tensor:
        """Pictures as the graph takes them."""
        if self.channels == 1:
            red, green, blue = x.expand(-1, 3, -1, -1).unbind(1)
            x = (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]
        else:
            x = x.expand(-1, 3, -1, -1)
        if x.shape[-1] != self.side:
            size = (self.side, self.side)
            x = F.interpolate(x.float(), size, mode="bilinear", antialias=x.shape[-1] > self.side)
        x = ((x + 1) / 2 - self.mean) / self.deviation
        return x.permute(0, 2, 3, 1) if self.last else x

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        results = self.net(self.prepared(x))
        features = results[0]
        if features.dim() > 2:  # height and width, or the tokens of a transformer
            features = features.mean((2, 3) if features.dim() == 4 else 1)
        return features.flatten(1), results[1].flatten(1) if self.has_logits else None
