"""ONNX operators as PyTorch functions that let gradients through.

Each takes the node's attributes and its inputs. Inputs that only say how (shapes, axes, pads) come
as lists of numbers, None where one is left out; all others are tensors, real numbers in float32.
ONNX's own words are those of https://onnx.ai/onnx/operators.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from training.onnx_resize import resize, upsample
from training.onnx_shapes import (
    constant,
    constant_of_shape,
    depth_to_space,
    expand,
    flatten,
    for_torch,
    gather,
    pad,
    reshape,
    shape_of,
    slice_of,
    space_to_depth,
    span,
    split,
    squeeze,
    unsqueeze,
)

Attributes = dict[str, Any]
Operator = Callable[..., Any]  # attributes and inputs to a tensor, or a tuple of them

# Which inputs of an operator say how, and are lists here.
REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
HOW: dict[str, set[int]] = {
    **{f"Reduce{name}": {1} for name in REDUCTIONS},
    "ConstantOfShape": {0},
    "Expand": {1},
    "Pad": {1, 2, 3},
    "Range": {0, 1, 2},
    "Reshape": {1},
    "Resize": {1, 2, 3},
    "Slice": {1, 2, 3, 4},
    "Split": {1},
    "Squeeze": {1},
    "Tile": {1},
    "Unsqueeze": {1},
    "Upsample": {1},
}
TYPES = {  # of ONNX's TensorProto; every real number is a float32 here
    **dict.fromkeys((1, 10, 11, 16), torch.float32),
    **dict.fromkeys((2, 3, 4, 5, 6, 7, 12, 13), torch.int64),
    9: torch.bool,
}


def cast_to(how: Attributes, x: Tensor) -> Tensor:
    """Raises ValueError where the picture's real numbers would become whole ones."""
    kind = TYPES.get(how["to"])
    if kind is None:
        raise ValueError(f"Cast to type {how['to']}")
    if x.is_floating_point() and x.dim() == 4 and kind != torch.float32:
        raise ValueError("Cast of pictures to whole numbers: no gradient comes through it")
    return x.to(kind)


def same_pads(
    sides: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    upper: bool,
) -> list[int]:
    """ONNX's pads of auto_pad SAME_*: begins, then ends."""
    begins, ends = [], []
    for side, k, stride, dilation in zip(sides, kernel, strides, dilations, strict=True):
        total = max(0, (-(-side // stride) - 1) * stride + dilation * (k - 1) + 1 - side)
        less, more = total // 2, total - total // 2
        begins.append(less if upper else more)
        ends.append(more if upper else less)
    return begins + ends


def window(
    how: Attributes, x: Tensor, kernel: Sequence[int]
) -> tuple[list[int], list[int], list[int]]:
    """Strides, dilations and pads of a convolution or pooling."""
    n = x.dim() - 2
    strides, dilations = how.get("strides", [1] * n), how.get("dilations", [1] * n)
    auto = how.get("auto_pad", "NOTSET")
    if auto.startswith("SAME"):
        pads = same_pads(x.shape[2:], kernel, strides, dilations, auto == "SAME_UPPER")
    else:
        pads = how.get("pads", [0] * (2 * n))
    return strides, dilations, pads


def padded(x: Tensor, pads: Sequence[int], value: float = 0.0) -> tuple[Tensor, list[int]]:
    """x, and the padding that is left to the operator: the same at both ends."""
    half = len(pads) // 2
    if pads[:half] == pads[half:]:
        return x, list(pads[:half])
    return F.pad(x, for_torch(pads), value=value), [0] * half


def conv(how: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    strides, dilations, pads = window(how, x, weight.shape[2:])
    x, padding = padded(x, pads)
    call: Operator = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[x.dim()]
    return cast(Tensor, call(x, weight, bias, strides, padding, dilations, how.get("group", 1)))


def conv_transpose(
    how: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    n = x.dim() - 2
    pads, auto = how.get("pads", [0] * (2 * n)), how.get("auto_pad", "NOTSET")
    if auto not in ("NOTSET", "VALID") or "output_shape" in how or pads[:n] != pads[n:]:
        raise ValueError("ConvTranspose with auto_pad, output_shape or uneven pads")
    call: Operator = {3: F.conv_transpose1d, 4: F.conv_transpose2d}[x.dim()]
    strides, dilations = how.get("strides", [1] * n), how.get("dilations", [1] * n)
    more = how.get("output_padding", [0] * n)
    group = how.get("group", 1)
    return cast(Tensor, call(x, weight, bias, strides, pads[:n], more, group, dilations))


def max_pool(how: Attributes, x: Tensor) -> Tensor:
    kernel = how["kernel_shape"]
    strides, dilations, pads = window(how, x, kernel)
    x, padding = padded(x, pads, -math.inf)
    call: Operator = {3: F.max_pool1d, 4: F.max_pool2d}[x.dim()]
    ceil = bool(how.get("ceil_mode", 0))
    return cast(Tensor, call(x, kernel, strides, padding, dilations, ceil))


def average_pool(how: Attributes, x: Tensor) -> Tensor:
    kernel = how["kernel_shape"]
    strides, dilations, pads = window(how, x, kernel)
    if any(d != 1 for d in dilations) or x.dim() != 4:
        raise ValueError("AveragePool with dilations, or not of pictures")
    ceil, whole = bool(how.get("ceil_mode", 0)), bool(how.get("count_include_pad", 0))
    more, padding = padded(x, pads)
    mean = F.avg_pool2d(more, kernel, strides, padding, ceil, count_include_pad=whole)
    if whole or more is x:
        return mean
    inside = padded(torch.ones_like(x[:1, :1]), pads)[0]  # how much of a window is picture
    return mean / F.avg_pool2d(inside, kernel, strides, padding, ceil)


def gemm(how: Attributes, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    a = a.T if how.get("transA") else a
    b = b.T if how.get("transB") else b
    y: Tensor = how.get("alpha", 1.0) * (a @ b)
    return y if c is None else y + how.get("beta", 1.0) * c


def batch_norm(
    how: Attributes, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    return F.batch_norm(x, mean, variance, scale, bias, False, 0.0, how.get("epsilon", 1e-5))


def layer_norm(how: Attributes, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    axis = how.get("axis", -1) % x.dim()
    y = F.layer_norm(x, x.shape[axis:], None, None, how.get("epsilon", 1e-5)) * scale
    return y if bias is None else y + bias


def group_norm(how: Attributes, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Before opset 21 with a scale of each group, since then of each channel."""
    groups, channels = how["num_groups"], x.shape[1]
    if how["opset"] < 21:
        scale, bias = (z.repeat_interleave(channels // groups) for z in (scale, bias))
    return F.group_norm(x, groups, scale, bias, how.get("epsilon", 1e-5))


def lp_normalization(how: Attributes, x: Tensor) -> Tensor:
    return F.normalize(x, how.get("p", 2), how.get("axis", -1), eps=1e-12)


def softmax(how: Attributes, x: Tensor, log: bool = False) -> Tensor:
    """Before opset 13 of all axes from `axis` on together."""
    call: Operator = F.log_softmax if log else F.softmax
    if how["opset"] >= 13:
        return cast(Tensor, call(x, how.get("axis", -1)))
    return cast(Tensor, call(x.flatten(how.get("axis", 1)), -1)).reshape(x.shape)


def gelu(how: Attributes, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=how.get("approximate", "none"))


def clip(how: Attributes, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Any:
    """Limits are attributes before opset 11."""
    if "min" in how or "max" in how:
        return x.clamp(how.get("min"), how.get("max"))
    if low is not None:
        x = torch.maximum(x, low)
    return x if high is None else torch.minimum(x, high)


def prelu(how: Attributes, x: Tensor, slope: Tensor) -> Tensor:
    """`slope` is broadcast from the right, as ONNX has it."""
    return torch.where(x < 0, slope * x, x)


def divide(how: Attributes, a: Tensor, b: Tensor) -> Tensor:
    if a.is_floating_point() or b.is_floating_point():
        return a / b
    return torch.div(a, b, rounding_mode="trunc")


def modulo(how: Attributes, a: Tensor, b: Tensor) -> Tensor:
    return torch.fmod(a, b) if how.get("fmod") else torch.remainder(a, b)


def folded(call: Operator, how: Attributes, *xs: Tensor) -> Tensor:
    """An operator of any number of inputs, two by two."""
    total = xs[0]
    for x in xs[1:]:
        total = call(total, x)
    return total


def mean_of(how: Attributes, *xs: Tensor) -> Tensor:
    return folded(torch.add, how, *xs) / len(xs)


def reduce(call: Operator, how: Attributes, x: Tensor, axes: list[int] | None = None) -> Tensor:
    """Axes are an input, or an attribute in older opsets; none means all."""
    axes = axes or how.get("axes") or []
    if not axes and how.get("noop_with_empty_axes"):
        return x
    axes = [axis % x.dim() for axis in axes] or list(range(x.dim()))
    return cast(Tensor, call(x, dim=tuple(axes), keepdim=bool(how.get("keepdims", 1))))


def logarithm_of_sum(x: Tensor, dim: tuple[int, ...], keepdim: bool) -> Tensor:
    return x.sum(dim, keepdim).log()


def product(x: Tensor, dim: tuple[int, ...], keepdim: bool) -> Tensor:
    for axis in sorted(dim, reverse=True):
        x = x.prod(axis, keepdim)
    return x


def sum_of_squares(x: Tensor, dim: tuple[int, ...], keepdim: bool) -> Tensor:
    return x.square().sum(dim, keepdim)


def length(x: Tensor, dim: tuple[int, ...], keepdim: bool) -> Tensor:
    return sum_of_squares(x, dim, keepdim).sqrt()


def absolute_sum(x: Tensor, dim: tuple[int, ...], keepdim: bool) -> Tensor:
    return x.abs().sum(dim, keepdim)


def global_pool(call: Operator, how: Attributes, x: Tensor) -> Tensor:
    return cast(Tensor, call(x, dim=tuple(range(2, x.dim())), keepdim=True))


def plain(call: Operator) -> Operator:
    """An operator that has no attributes."""

    def operator(how: Attributes, *xs: Tensor) -> Any:
        return call(*xs)

    return operator


# Without attributes.
PLAIN: dict[str, Operator] = {
    "Abs": torch.abs, "Add": torch.add, "And": torch.logical_and, "Ceil": torch.ceil,
    "Cos": torch.cos, "Equal": torch.eq, "Erf": torch.erf, "Exp": torch.exp,
    "Floor": torch.floor, "Greater": torch.gt, "GreaterOrEqual": torch.ge,
    "HardSwish": F.hardswish, "Identity": lambda x: x, "Less": torch.lt,
    "LessOrEqual": torch.le, "Log": torch.log, "MatMul": torch.matmul, "Mish": F.mish,
    "Mul": torch.mul, "Neg": torch.neg, "Not": torch.logical_not, "Or": torch.logical_or,
    "Pow": torch.pow, "Reciprocal": torch.reciprocal, "Relu": F.relu,
    "Round": torch.round, "Sigmoid": torch.sigmoid, "Sign": torch.sign, "Sin": torch.sin,
    "Softplus": F.softplus, "Softsign": F.softsign, "Sqrt": torch.sqrt, "Sub": torch.sub,
    "Tanh": torch.tanh, "Where": torch.where,
}  # fmt: skip
REDUCED: dict[str, Operator] = {
    "L1": absolute_sum, "L2": length, "LogSum": logarithm_of_sum,
    "LogSumExp": torch.logsumexp, "Max": torch.amax, "Mean": torch.mean,
    "Min": torch.amin, "Prod": product, "Sum": torch.sum, "SumSquare": sum_of_squares,
}  # fmt: skip
OPERATORS: dict[str, Operator] = {
    **{name: plain(call) for name, call in PLAIN.items()},
    **{f"Reduce{name}": partial(reduce, call) for name, call in REDUCED.items()},
    "AveragePool": average_pool,
    "BatchNormalization": batch_norm,
    "Cast": cast_to,
    "Celu": lambda how, x: F.celu(x, how.get("alpha", 1.0)),
    "Clip": clip,
    "Concat": lambda how, *xs: torch.cat(xs, how["axis"]),
    "Constant": constant,
    "ConstantOfShape": constant_of_shape,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "DepthToSpace": depth_to_space,
    "Div": divide,
    "Dropout": lambda how, x, *_: x,
    "Elu": lambda how, x: F.elu(x, how.get("alpha", 1.0)),
    "Einsum": lambda how, *xs: torch.einsum(how["equation"], *xs),
    "Expand": expand,
    "Flatten": flatten,
    "Gather": gather,
    "Gelu": gelu,
    "Gemm": gemm,
    "GlobalAveragePool": partial(global_pool, torch.mean),
    "GlobalMaxPool": partial(global_pool, torch.amax),
    "GroupNormalization": group_norm,
    "HardSigmoid": lambda how, x: (how.get("alpha", 0.2) * x + how.get("beta", 0.5)).clamp(0, 1),
    "InstanceNormalization": lambda how, x, scale, bias: F.instance_norm(
        x, weight=scale, bias=bias, eps=how.get("epsilon", 1e-5)
    ),
    "LRN": lambda how, x: F.local_response_norm(
        x, how["size"], how.get("alpha", 1e-4), how.get("beta", 0.75), how.get("bias", 1.0)
    ),
    "LayerNormalization": layer_norm,
    "LeakyRelu": lambda how, x: F.leaky_relu(x, how.get("alpha", 0.01)),
    "LogSoftmax": partial(softmax, log=True),
    "LpNormalization": lp_normalization,
    "Max": partial(folded, torch.maximum),
    "MaxPool": max_pool,
    "Mean": mean_of,
    "Min": partial(folded, torch.minimum),
    "Mod": modulo,
    "PRelu": prelu,
    "Pad": pad,
    "Range": span,
    "Reshape": reshape,
    "Resize": resize,
    "Selu": lambda how, x: F.selu(x),
    "Shape": shape_of,
    "Size": lambda how, x: torch.tensor(x.numel()),
    "Slice": slice_of,
    "Softmax": softmax,
    "SpaceToDepth": space_to_depth,
    "Split": split,
    "Squeeze": squeeze,
    "Sum": partial(folded, torch.add),
    "Tile": lambda how, x, repeats: x.repeat(repeats),
    "Transpose": lambda how, x: x.permute(how.get("perm") or list(range(x.dim()))[::-1]),
    "Unsqueeze": unsqueeze,
    "Upsample": upsample,
}  # fmt: skip
