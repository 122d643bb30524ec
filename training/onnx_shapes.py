"""ONNX operators that move pictures' numbers about, as onnx_operators.py has the others."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Attributes = dict[str, Any]

FAR = 1 << 30  # an axis has fewer; "to the end" is written as the largest int64


def for_torch(pads: Sequence[float]) -> list[int]:
    """ONNX's begins and ends as F.pad wants them: the last axis first, begin beside end."""
    half = len(pads) // 2
    pairs = list(zip(pads[:half], pads[half:], strict=True))
    return [int(value) for pair in reversed(pairs) for value in pair]


def flatten(how: Attributes, x: Tensor) -> Tensor:
    """To two axes; the batch stays what it is."""
    axis = how.get("axis", 1) % (x.dim() + 1)
    if axis == 1:
        return x.flatten(1) if x.dim() > 1 else x[:, None]
    return x.reshape(math.prod(x.shape[:axis]), -1)


def reshape(how: Attributes, x: Tensor, shape: list[int]) -> Tensor:
    """A graph that was made for one picture names the batch by its 1: that is left free."""
    sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(shape)]
    if how["batch"] is not None and sizes[0] == how["batch"] and len(sizes) > 1:
        sizes[0] = x.shape[0]
    return x.reshape(sizes)


def squeeze(how: Attributes, x: Tensor, axes: list[int] | None = None) -> Tensor:
    axes = axes if axes is not None else how.get("axes")
    if axes is None:
        axes = [i for i, size in enumerate(x.shape) if size == 1]
    return x.squeeze(tuple(axes)) if axes else x


def unsqueeze(how: Attributes, x: Tensor, axes: list[int] | None = None) -> Tensor:
    axes = how["axes"] if axes is None else axes
    for axis in sorted(axis % (x.dim() + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def slice_of(
    how: Attributes,
    x: Tensor,
    starts: list[int] | None = None,
    ends: list[int] | None = None,
    axes: list[int] | None = None,
    steps: list[int] | None = None,
) -> Tensor:
    """Parameters are attributes before opset 10. A step may be negative."""
    starts = how["starts"] if starts is None else starts
    ends = how["ends"] if ends is None else ends
    axes = axes or how.get("axes") or list(range(len(starts)))
    for axis, start, end, step in zip(axes, starts, ends, steps or [1] * len(axes), strict=True):
        if step > 0:
            part: list[slice] = [slice(None)] * x.dim()
            part[axis] = slice(max(start, -FAR), min(end, FAR), step)
            x = x[tuple(part)]
        else:
            side = x.shape[axis]
            places = range(*slice(start, None if end < -side else end, step).indices(side))
            x = x.index_select(axis, torch.tensor(list(places), device=x.device))
    return x


def split(how: Attributes, x: Tensor, sizes: list[int] | None = None) -> tuple[Tensor, ...]:
    axis = how.get("axis", 0)
    sizes = sizes or how.get("split")
    if sizes is None:
        return torch.split(x, -(-x.shape[axis] // how["outputs"]), axis)
    return torch.split(x, sizes, axis)


def pad(
    how: Attributes,
    x: Tensor,
    pads: list[int] | None = None,
    value: list[float] | None = None,
    axes: list[int] | None = None,
) -> Tensor:
    pads = how["pads"] if pads is None else pads
    fill = value[0] if value else how.get("value", 0.0)
    if axes:
        whole = [0] * (2 * x.dim())
        for i, axis in enumerate(axes):
            whole[axis % x.dim()] = pads[i]
            whole[axis % x.dim() + x.dim()] = pads[i + len(axes)]
        pads = whole
    mode = how.get("mode", "constant")
    if mode == "constant":
        return F.pad(x, for_torch(pads), value=fill)
    half = len(pads) // 2
    if any(pads[:2]) or any(pads[half : half + 2]):
        raise ValueError(f"Pad of batch or channels in mode {mode}")
    inner = for_torch([*pads[2:half], *pads[half + 2 :]])
    kinds = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}
    return F.pad(x, inner, kinds[mode])


def gather(how: Attributes, x: Tensor, index: Tensor) -> Tensor:
    axis = how.get("axis", 0) % x.dim()
    index = torch.where(index < 0, index + x.shape[axis], index)
    picked = x.index_select(axis, index.flatten())
    return picked.reshape((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))


def expand(how: Attributes, x: Tensor, shape: list[int]) -> Tensor:
    """A 1 in `shape` leaves the axis as it is."""
    more = [1] * max(0, len(shape) - x.dim())
    x = x.reshape(*more, *x.shape)
    shape = [1] * (x.dim() - len(shape)) + list(shape)
    return x.expand([-1 if size == 1 else size for size in shape])


def shape_of(how: Attributes, x: Tensor) -> Tensor:
    return torch.tensor(x.shape[how.get("start", 0) : how.get("end")], dtype=torch.int64)


def constant(how: Attributes) -> Tensor:
    for name, value in how.items():
        if name.startswith("value"):
            return torch.as_tensor(value)
    raise ValueError("Constant without a value of numbers")


def constant_of_shape(how: Attributes, shape: list[int]) -> Tensor:
    value = torch.as_tensor(how.get("value", 0.0)).flatten()[0]
    return value.expand(shape).clone()


def span(how: Attributes, start: list[int], limit: list[int], step: list[int]) -> Tensor:
    return torch.arange(start[0], limit[0], step[0])


def depth_to_space(how: Attributes, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    size = how["blocksize"]
    if how.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, size)
    x = x.reshape(n, size, size, c // size**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(n, c // size**2, h * size, w * size)


def space_to_depth(how: Attributes, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    size = how["blocksize"]
    x = x.reshape(n, c, h // size, size, w // size, size).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(n, c * size**2, h // size, w // size)
