"""Avatars as g might draw them: what the upscaler learns to see through.

g's pictures are softer and noisier than rasterised avatars, with specks and stray strokes that
please f (LOG.md). All pictures are float tensors [B, C, H, W] in [-1, 1].
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Rows and columns of the middle of the face, as `upscaler.positions` counts them: every avatar has
# a nose there, often of a stroke or two, which must not be taken for scratches.
NOSE = (0.1, 0.38), (-0.17, 0.17)


@dataclass(frozen=True)
class Degradation:
    """How much of everything; amounts are in the unit of the range [-1, 1]."""

    clean: float = 0.1  # share of pictures left as they were drawn
    bend: float = 0.6  # pixels, standard deviation at most of shaking outlines
    blur: float = 0.7  # at most this share of the picture blurred by 1 px
    drift: float = 0.06  # standard deviation at most of a smooth change of colour
    grain: float = 0.12  # the same of patches of blots, 2 px wide
    noise: float = 0.04  # the same pixel by pixel
    scratches: int = 12  # at most, of specks and stray strokes


def uniform(x: Tensor, most: float, random: torch.Generator) -> Tensor:
    """A number of [0, most) for each picture of x: [B, 1, 1, 1]."""
    return torch.rand(len(x), 1, 1, 1, generator=random) * most


def smooth(x: Tensor, cell: int, channels: int, random: torch.Generator) -> Tensor:
    """Noise of deviation 1 (less between its knots) that changes over about `cell` pixels:
    [B, channels, H, W] for pictures x."""
    n, _, height, width = x.shape
    knots = torch.randn(n, channels, height // cell + 1, width // cell + 1, generator=random)
    return F.interpolate(knots, (height, width), mode="bicubic")


def bend(x: Tensor, most: float, random: torch.Generator) -> Tensor:
    """Every picture of x pushed about by up to `most` pixels (deviation), a little everywhere."""
    n, _, height, width = x.shape
    still = torch.eye(2, 3).expand(n, 2, 3)
    places = F.affine_grid(still, list(x.shape), align_corners=False)
    pushed = smooth(x, 4, 2, random) * uniform(x, most, random)
    pushed = pushed.permute(0, 2, 3, 1) * torch.tensor([2 / width, 2 / height])
    return F.grid_sample(x, places + pushed, padding_mode="border", align_corners=False)


def scratched(x: Tensor, random: torch.Generator) -> Tensor:
    """Every picture of x with one more speck or, one in five, a stroke of up to 8 pixels.

    About a pixel wide, hardly visible to opaque; half are dark, as outlines are, the others of
    any colour.
    """
    n, channels, height, width = x.shape

    def drawn(channels: int) -> Tensor:
        return torch.rand(n, channels, 1, 1, generator=random)

    rows, columns = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
    away = places - drawn(2) * torch.tensor([height, width]).view(2, 1, 1)  # from where it begins
    turn = 2 * math.pi * drawn(1)
    along = torch.cat([turn.sin(), turn.cos()], 1)
    length = torch.where(drawn(1) < 0.2, 8.0, 1.5) * drawn(1)
    nearest = torch.minimum((away * along).sum(1, keepdim=True).clamp(min=0), length)
    distance = torch.linalg.vector_norm(away - nearest * along, dim=1, keepdim=True)
    radius = 0.3 + 0.5 * drawn(1)
    cover = (radius + 0.5 - distance).clamp(0, 1) * drawn(1)
    colour = torch.where(drawn(1) < 0.5, -0.9, 2 * drawn(channels) - 1)
    return torch.lerp(x, colour, cover)


def of_nose(where: Tensor) -> Tensor:
    """Which pixels, at positions [B, 2, H, W], are of NOSE: bool [B, 1, H, W]."""
    inside = [
        (low <= axis) & (axis <= high)
        for axis, (low, high) in zip(where.unbind(1), NOSE, strict=True)
    ]
    return (inside[0] & inside[1]).unsqueeze(1)


def degrade(x: Tensor, where: Tensor, how: Degradation, random: torch.Generator) -> Tensor:
    """`x` as g might draw it: shaking and soft outlines, drifting colours, patches of blots,
    noise, specks and strokes. In [-1, 1] again.

    `where` [B, 2, H, W] tells positions in the whole picture, rows and columns, in (-1, 1).
    """
    channels = x.shape[1]
    row = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16  # a deviation of 1 px
    kernel = torch.outer(row, row).expand(channels, 1, 5, 5)
    bent = bend(x, how.bend, random)
    blurred = F.conv2d(F.pad(bent, (2, 2, 2, 2), "replicate"), kernel, groups=channels)
    # Most of a blot is the same in all colours: g goes wrong in lightness before hue.
    blots = 0.7 * smooth(x, 2, 1, random) + 0.3 * smooth(x, 2, channels, random)
    patches = smooth(x, 8, 1, random).clamp(min=0)
    worse = (
        torch.lerp(bent, blurred, uniform(x, how.blur, random))
        + smooth(x, 8, channels, random) * uniform(x, how.drift, random)
        + blots * patches * uniform(x, how.grain, random)
        + torch.randn(x.shape, generator=random) * uniform(x, how.noise, random)
    )
    many, spared = uniform(x, how.scratches + 1, random), of_nose(where)
    for i in range(how.scratches):
        worse = torch.where((i + 1 < many) & ~spared, scratched(worse, random), worse)
    kept = uniform(x, 1.0, random) < how.clean
    return torch.where(kept, x, worse).clamp(-1, 1)
