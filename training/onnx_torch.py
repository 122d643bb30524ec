"""An ONNX graph as a PyTorch module that lets gradients through, for one size of picture.

The graph is run twice when it is read, on two batches of different size. What does not depend on
the pictures is folded away: constants, and all that is worked out of shapes; where a number of a
shape goes with the batch, how it does is seen from the two.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from training.onnx_operators import HOW, OPERATORS, Attributes, Operator

BATCHES = (2, 3)
MOST_LAYERS = 12  # that an error lists


@dataclass(frozen=True)
class Affine:
    """A number that goes with the batch: `each` of every picture beside what is `fixed`."""

    each: float
    fixed: float

    def of(self, batch: int) -> int:
        return int(self.each * batch + self.fixed)


@dataclass(frozen=True)
class Step:
    """A node that works on the pictures. Arguments: a value's name, numbers, or None."""

    operator: Operator
    how: Attributes
    arguments: tuple[str | list[Any] | None, ...]
    results: tuple[str, ...]
    done: tuple[str, ...]  # values that nothing after it wants


class OnnxModule(nn.Module):
    """The values `outputs` of a graph: pictures, in its own layout, to tensors in float32.

    Raises ValueError for an operator that is not known, one that no gradient comes through, or a
    value that there is none of.
    """

    def __init__(self, model: onnx.ModelProto, shape: Sequence[int], outputs: Sequence[str]):
        super().__init__()
        self.input = picture_input(model).name
        self.outputs = list(outputs)
        self.steps: list[Step] = []
        self.places: dict[str, str] = {}  # of a constant, by the value's name
        reading = Reading(model, shape, self.outputs)
        for step in reading.steps():
            self.steps.append(step)
        used = {a for step in self.steps for a in step.arguments if isinstance(a, str)}
        for name in sorted(used & reading.fixed.keys()):
            self.places[name] = f"constant{len(self.places)}"
            self.register_buffer(self.places[name], reading.fixed[name])
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """x is float32 of the shape that the module was made for; uint8's range where it has it."""
        values = {name: getattr(self, place) for name, place in self.places.items()}
        values[self.input] = x
        kept = {}
        for step in self.steps:
            arguments = [
                values[a] if isinstance(a, str) else numbers(a, x.shape[0]) for a in step.arguments
            ]
            made = step.operator(step.how, *arguments)
            made = made if isinstance(made, tuple) else (made,)
            values.update(zip(step.results, made, strict=False))
            for name in step.done:
                kept[name] = values.pop(name)
                if name not in self.outputs:
                    del kept[name]
        values |= kept
        return tuple(values[name] for name in self.outputs)


def numbers(how: list[Any] | None, batch: int) -> list[Any] | None:
    """An argument that says how, of a batch of this size."""
    if how is None:
        return None
    return [n.of(batch) if isinstance(n, Affine) else n for n in how]


def read_onnx(path: Path) -> onnx.ModelProto:
    """A checked model with its shapes, weights beside it included. Raises ValueError, one line."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # of protobuf, the checker or the file system
        raise ValueError(f"{path} is no ONNX model: {str(error).splitlines()[0]}") from error
    if model.functions or not model.graph.node:
        raise ValueError(f"{path} is of functions of its own, or of nothing")
    return model


def picture_input(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    """The one input. Raises ValueError where there are several."""
    weights = {weight.name for weight in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise ValueError(f"the graph has {len(inputs)} inputs, not one: that of pictures")
    value: onnx.ValueInfoProto = inputs[0]
    return value


def dimensions(value: onnx.ValueInfoProto) -> list[int | None]:
    """Of an input: a number, or None where it is free."""
    axes = value.type.tensor_type.shape.dim
    return [axis.dim_value if axis.dim_value > 0 else None for axis in axes]


class Reading:
    """The two runs of a graph. `fixed` holds every value that is the same whatever the picture."""

    def __init__(
        self, model: onnx.ModelProto, shape: Sequence[int], outputs: Sequence[str]
    ) -> None:
        value = picture_input(model)
        self.input = value.name
        self.batch = dimensions(value)[0]  # of a graph that was made for one
        self.opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
        self.fixed = {
            weight.name: plain(torch.from_numpy(np.array(numpy_helper.to_array(weight))))
            for weight in model.graph.initializer
        }
        self.nodes = needed(model, outputs, {self.input, *self.fixed})
        self.seen: set[str] = {self.input}  # values that depend on the pictures
        random = torch.Generator().manual_seed(0)
        runs = []
        for n in BATCHES:
            values = dict(self.fixed)
            values[self.input] = torch.rand(n, *shape[1:], generator=random)
            runs.append(values)
        self.affine: dict[str, list[Affine]] = {}
        with torch.no_grad():
            for node in self.nodes:
                self.read(node, runs)

    def read(self, node: onnx.NodeProto, runs: list[dict[str, Tensor]]) -> None:
        """Run `node` on both batches, and see what its results depend on."""
        how = self.attributes(node)
        for values in runs:
            arguments = [
                (numbers_of(values[name]) if i in HOW.get(node.op_type, ()) else values[name])
                if name
                else None
                for i, name in enumerate(node.input)
            ]
            try:
                made = OPERATORS[node.op_type](how, *arguments)
            except Exception as error:  # torch's, of any kind: the graph is at fault, or we are
                line = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise ValueError(
                    f"{described(node)} cannot be made differentiable: {line}"
                ) from error
            made = made if isinstance(made, tuple) else (made,)
            values.update(zip(node.output, made, strict=False))
        # How a picture's shape enters is known; so is every number that is worked out of it.
        inputs = [
            name for i, name in enumerate(node.input) if name and i not in HOW.get(node.op_type, ())
        ]
        if node.op_type not in ("Shape", "Size") and self.seen.intersection(inputs):
            self.seen.update(node.output)
            return
        for name in node.output:
            if not name:
                continue
            one, other = (values[name] for values in runs)
            if one.shape == other.shape and torch.equal(one, other):
                self.fixed[name] = one
            elif one.shape == other.shape:
                each = (other - one) / (BATCHES[1] - BATCHES[0])
                pairs = zip(each.flatten().tolist(), one.flatten().tolist(), strict=True)
                self.affine[name] = [Affine(slope, at - slope * BATCHES[0]) for slope, at in pairs]

    def attributes(self, node: onnx.NodeProto) -> Attributes:
        """By name; beside them what an operator must know of the graph."""
        how: Attributes = {"opset": self.opset, "outputs": len(node.output), "batch": self.batch}
        for attribute in node.attribute:
            value = helper.get_attribute_value(attribute)
            if isinstance(value, bytes):
                value = value.decode()
            elif isinstance(value, onnx.TensorProto):
                value = plain(torch.from_numpy(np.array(numpy_helper.to_array(value))))
            elif isinstance(value, Sequence) and not isinstance(value, str):
                value = list(value)
            how[attribute.name] = value
        return how

    def steps(self) -> list[Step]:
        """What is left to do for each batch of pictures."""
        left = [node for node in self.nodes if self.seen.intersection(node.output)]
        last = {name: i for i, node in enumerate(left) for name in node.input}
        steps = []
        for i, node in enumerate(left):
            places = HOW.get(node.op_type, ())
            arguments = tuple(
                None if not name else self.argument(node, name, k in places)
                for k, name in enumerate(node.input)
            )
            done = tuple(name for name in dict.fromkeys(node.input) if last[name] == i)
            done = tuple(name for name in done if name in self.seen)
            steps.append(
                Step(
                    OPERATORS[node.op_type],
                    self.attributes(node),
                    arguments,
                    tuple(node.output),
                    done,
                )
            )
        return steps

    def argument(self, node: onnx.NodeProto, name: str, says_how: bool) -> str | list[Any]:
        if not says_how:
            if name in self.seen or name in self.fixed:
                return name
        elif name in self.fixed:
            return numbers_of(self.fixed[name])
        elif name in self.affine:
            return list(self.affine[name])
        raise ValueError(f"{described(node)}: its input {name!r} depends on the pictures or batch")


def plain(x: Tensor) -> Tensor:
    """Any kind of number as one of three: float32, int64 or bool."""
    if x.is_floating_point():
        return x.float()
    return x if x.dtype == torch.bool else x.long()


def numbers_of(x: Tensor) -> list[Any]:
    values: list[Any] = x.flatten().tolist()
    return values


def described(node: onnx.NodeProto) -> str:
    named = node.name or (node.output[0] if node.output else "")
    return f"the operator {node.op_type} ({named})"


def needed(model: onnx.ModelProto, outputs: Sequence[str], known: set[str]) -> list[onnx.NodeProto]:
    """The nodes that `outputs` want, in order. Raises ValueError where a value is not there."""
    made = {name for node in model.graph.node for name in node.output}
    for name in outputs:
        if name not in made:
            some = [node.output[0] for node in model.graph.node if node.op_type != "Constant"]
            raise ValueError(
                f"the graph has no layer {name!r}; its last are {', '.join(some[-MOST_LAYERS:])}"
            )
    wanted, nodes = set(outputs), []
    for node in reversed(model.graph.node):
        if wanted.intersection(node.output):
            if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
                raise ValueError(
                    f"{described(node)} is not supported: choose a --layer before it, or another f"
                )
            nodes.append(node)
            wanted.update(name for name in node.input if name)
    if lacking := wanted - made - known:
        raise ValueError(f"the graph has no value {min(lacking)!r}")
    return nodes[::-1]
