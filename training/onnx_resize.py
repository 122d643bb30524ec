"""ONNX's Resize as two matrices: every mode of it is linear in the picture, and so differentiable.

https://onnx.ai/onnx/operators/onnx__Resize.html
"""

import math
from typing import Any

import torch
from torch import Tensor

Attributes = dict[str, Any]


def places(side: int, new: int, scale: float, mode: str) -> Tensor:
    """Where in the old picture the new one's pixels lie: [new], float64."""
    at = torch.arange(new, dtype=torch.float64)
    if mode == "align_corners":
        return at * (side - 1) / (new - 1) if new > 1 else torch.zeros(1, dtype=torch.float64)
    if mode == "asymmetric":
        return at / scale
    if mode == "pytorch_half_pixel" and new == 1:
        return torch.zeros(1, dtype=torch.float64)
    if mode == "half_pixel_symmetric":
        middle = side / 2 * (1 - new / (side * scale))
        return middle + (at + 0.5) / scale - 0.5
    if mode in ("half_pixel", "pytorch_half_pixel"):
        return (at + 0.5) / scale - 0.5
    raise ValueError(f"Resize with coordinates of {mode}")


def nearest(x: Tensor, mode: str) -> Tensor:
    """Places [new] to whole ones."""
    if mode == "floor":
        return x.floor()
    if mode == "ceil":
        return x.ceil()
    return (x - 0.5).ceil() if mode == "round_prefer_floor" else (x + 0.5).floor()


def kernel(distance: Tensor, mode: str, a: float) -> Tensor:
    """Weight of a pixel at `distance` >= 0, in pixels: a triangle, or Keys' cubic."""
    if mode == "linear":
        return (1 - distance).clamp(min=0)
    d = distance
    inner = ((a + 2) * d - (a + 3)) * d * d + 1
    outer = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return torch.where(d <= 1, inner, torch.where(d < 2, outer, torch.zeros_like(d)))


def matrix(side: int, new: int, scale: float, how: Attributes) -> Tensor:
    """[new, side]: what each new pixel takes of each old one. Beyond the border it is repeated."""
    mode = how.get("mode", "nearest")
    at = places(side, new, scale, how.get("coordinate_transformation_mode", "half_pixel"))
    if mode == "nearest":
        whole = nearest(at, how.get("nearest_mode", "round_prefer_floor")).clamp(0, side - 1)
        return torch.nn.functional.one_hot(whole.long(), side).float()
    wide = max(1.0, 1 / scale) if how.get("antialias") else 1.0
    reach = math.ceil(2 * wide) + 1
    pixels = torch.arange(-reach, side + reach, dtype=torch.float64)
    a = how.get("cubic_coeff_a", -0.75)
    weights = kernel((pixels - at[:, None]).abs() / wide, mode, a)
    inside = (pixels >= 0) & (pixels < side)
    if how.get("exclude_outside"):
        weights = weights * inside
    weights = weights / weights.sum(1, keepdim=True)
    result = weights[:, reach : reach + side].clone()
    result[:, 0] += weights[:, :reach].sum(1)
    result[:, -1] += weights[:, reach + side :].sum(1)
    return result.float()


def resize(
    how: Attributes,
    x: Tensor,
    region: list[float] | None = None,
    scales: list[float] | None = None,
    sizes: list[int] | None = None,
) -> Tensor:
    """Pictures [B, C, H, W] to others of `scales` or `sizes`, one number an axis.

    Raises ValueError where batch or channels would be resized, or where a policy keeps the aspect.
    """
    if how["opset"] < 11:  # X and scales
        scales, region = region, None
        how = how | {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    if how.get("keep_aspect_ratio_policy", "stretch") != "stretch" or x.dim() != 4:
        raise ValueError("Resize that keeps the aspect, or not of pictures")
    axes = [axis % 4 for axis in how.get("axes", range(4))]
    new, ratio = [int(side) for side in x.shape[2:]], [1.0, 1.0]
    for i, axis in enumerate(axes):
        side = int(x.shape[axis]) if axis > 1 else None
        if side is None:
            if scales and scales[i] != 1:
                raise ValueError("Resize of batch or channels")
        elif sizes:
            new[axis - 2], ratio[axis - 2] = sizes[i], sizes[i] / side
        elif scales:
            new[axis - 2], ratio[axis - 2] = math.floor(side * scales[i]), scales[i]
    mode = how.get("coordinate_transformation_mode", "half_pixel")
    for place, axis in enumerate((2, 3)):
        side = int(x.shape[axis])
        if new[place] == side and ratio[place] == 1 and mode != "tf_crop_and_resize":
            continue
        weights = matrix(side, new[place], ratio[place], how).to(x.device, x.dtype)
        x = weights @ x if axis == 2 else x @ weights.T
    return x


def upsample(how: Attributes, x: Tensor, scales: list[float] | None = None) -> Tensor:
    """Resize's forerunner: an operator until opset 9."""
    scales = how["scales"] if scales is None else scales
    how = how | {"opset": 10, "mode": how.get("mode", "nearest").replace("bilinear", "linear")}
    return resize(how, x, scales)
