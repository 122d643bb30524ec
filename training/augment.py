"""Augmentation as batched tensor operations, on whatever device the batch is.

`augment` makes f robust (labels are kept, so no flips); `diff_augment` shows D its
inputs from many places (Zhao et al. 2020) and lets gradients through.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from training.config import Augment


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """[n, 1, 1, 1] drawn from [low, high)."""
    device = generator.device
    return torch.rand(n, 1, 1, 1, generator=generator, device=device) * (high - low) + low


def _chance(n: int, p: float, generator: torch.Generator) -> Tensor:
    """[n, 1, 1, 1] of booleans, each true with probability `p`."""
    return torch.rand(n, 1, 1, 1, generator=generator, device=generator.device) < p


def _warp(x: Tensor, how: Augment, generator: torch.Generator) -> Tensor:
    """Shift, scale, rotate, shear and bend each picture on its own; edges are repeated."""
    n = len(x)
    angle = _uniform(n, -how.rotate, how.rotate, generator).view(n) * (math.pi / 180)
    shear = _uniform(n, -how.shear, how.shear, generator).view(n)
    logs = math.log(how.scale)
    zoom = _uniform(n, -logs, logs, generator).view(n).exp()
    stretch = _uniform(n, -how.stretch, how.stretch, generator).view(n).exp()
    shift = 2 * how.shift / x.shape[-1]
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack(
        [
            torch.stack(
                [
                    zoom * stretch * cos,
                    zoom * (shear - sin),
                    _uniform(n, -shift, shift, generator).view(n),
                ],
                1,
            ),
            torch.stack(
                [zoom * sin, zoom / stretch * cos, _uniform(n, -shift, shift, generator).view(n)], 1
            ),
        ],
        1,
    )
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    waves = torch.randn(n, 2, 5, 5, generator=generator, device=x.device)
    waves = F.interpolate(waves, x.shape[2:], mode="bicubic", align_corners=True)
    grid = grid + waves.permute(0, 2, 3, 1) * (2 * how.elastic / x.shape[-1])
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def _neighbours(x: Tensor, how: Augment, generator: torch.Generator) -> Tensor:
    """Paste a strip of another picture's middle over the left or the right edge."""
    n, side = len(x), x.shape[-1]
    other = x[torch.randperm(n, generator=generator, device=x.device)].roll(side // 2, -1)
    columns = torch.arange(side, device=x.device).view(1, 1, 1, side)
    strip = _uniform(n, 1, how.neighbour_width, generator)
    left = _chance(n, 0.5, generator)
    inside = torch.where(left, columns < strip, columns >= side - strip)
    return torch.where(inside & _chance(n, how.neighbours, generator), other, x)


def _thicken(x: Tensor, how: Augment, generator: torch.Generator) -> Tensor:
    """Strokes a pixel thicker or thinner: the brightest or the darkest of 3x3."""
    brightest = F.max_pool2d(x, 3, 1, 1)
    darkest = -F.max_pool2d(-x, 3, 1, 1)
    which = torch.where(_chance(len(x), 0.5, generator), brightest, darkest)
    return torch.where(_chance(len(x), how.thicken, generator), which, x)


def _blur(x: Tensor, how: Augment, generator: torch.Generator) -> Tensor:
    """Blend with a blurred copy; a negative share sharpens."""
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=x.device) / 16
    c = x.shape[1]
    soft = F.conv2d(
        F.pad(x, (2, 2, 2, 2), mode="replicate"), taps.view(1, 1, 1, 5).repeat(c, 1, 1, 1), groups=c
    )
    soft = F.conv2d(soft, taps.view(1, 1, 5, 1).repeat(c, 1, 1, 1), groups=c)
    share = _uniform(len(x), -0.5 * how.blur, how.blur, generator)
    return x + share * (soft - x)


def _colors(x: Tensor, how: Augment, generator: torch.Generator) -> Tensor:
    """Invert, weaken or strengthen colour and contrast, shift each channel."""
    n, c, device = len(x), x.shape[1], x.device
    x = torch.where(_chance(n, how.invert, generator), -x, x)
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * _uniform(n, 0, how.color, generator)
    spread = torch.rand(n, c, 1, 1, generator=generator, device=device) * 2 - 1
    x = x * _uniform(n, how.contrast, 1 / how.contrast, generator) * (1 + how.tint * spread)
    offset = torch.rand(n, c, 1, 1, generator=generator, device=device) * 2 - 1
    return x + _uniform(n, -how.brightness, how.brightness, generator) + how.tint * offset


def _cutout(x: Tensor, how: Augment, generator: torch.Generator) -> Tensor:
    """Set a square of each chosen picture to noise of its mean level."""
    n, side = len(x), x.shape[-1]
    places = torch.arange(side, device=x.device)
    top = _uniform(n, -how.cutout_side / 2, side - how.cutout_side / 2, generator)
    left = _uniform(n, -how.cutout_side / 2, side - how.cutout_side / 2, generator)
    rows, columns = places.view(1, 1, side, 1), places.view(1, 1, 1, side)
    inside = (rows >= top) & (rows < top + how.cutout_side)
    inside = inside & (columns >= left) & (columns < left + how.cutout_side)
    mean = x.mean((2, 3), keepdim=True)
    return torch.where(inside & _chance(n, how.cutout, generator), mean, x)


def augment(x: Tensor, how: Augment, generator: torch.Generator) -> Tensor:
    """A labelled batch seen anew: [B, 3, H, W] in [-1, 1], same shape and range.

    Random numbers come from `generator`, which lives on x's device.
    """
    x = _neighbours(x, how, generator)
    x = _warp(x, how, generator)
    x = _thicken(x, how, generator)
    x = _blur(x, how, generator)
    x = _colors(x, how, generator)
    x = _cutout(x, how, generator)
    level = _uniform(len(x), 0, how.noise, generator)
    x = x + level * torch.randn(x.shape, generator=generator, device=x.device)
    return x.clamp(-1, 1)


def jittered(x: Tensor, how: Augment, generator: torch.Generator) -> Tensor:
    """Each picture warped and grainy: what only fools f does not outlive it.

    [B, C, H, W] in [-1, 1], differentiable; of `how` the warp and the noise count.
    """
    return _warp(x, how, generator) + how.noise * torch.randn(
        x.shape, generator=generator, device=x.device
    )


def diff_augment(x: Tensor, generator: torch.Generator, blank: float = -1.0) -> Tensor:
    """Translate each picture by up to a tenth of its side and blank a square of a quarter.

    [B, C, H, W] in [-1, 1], `blank` where nothing is; differentiable. No flips: a mirrored digit
    is none.
    """
    n, channels, height, width = x.shape
    device = x.device
    shift, side = 3 * height // 32, height // 4
    rows = torch.arange(height, device=device).view(1, height, 1)
    columns = torch.arange(width, device=device).view(1, 1, width)

    def whole(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (n, 1, 1), generator=generator, device=device)

    padded = F.pad(x, (shift, shift, shift, shift), value=blank)
    moved = padded.permute(0, 2, 3, 1)[
        torch.arange(n, device=device).view(n, 1, 1),
        rows + whole(0, 2 * shift + 1),
        columns + whole(0, 2 * shift + 1),
    ].permute(0, 3, 1, 2)
    top, left = whole(1 - side, height), whole(1 - side, width)
    hole = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
    return moved.masked_fill(hole[:, None].expand(-1, channels, -1, -1), blank)
