"""Avatars as g might draw them: what the upscaler learns to see through.

g's pictures are softer and noisier than rasterised avatars, with specks and stray strokes that
please f (LOG.md), and here and there a line is broken, or two are drawn where one was meant. All
pictures are float tensors [B, C, H, W] in [-1, 1].
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from training.places import NOSE, within

DOTTED = 0.06  # share of pixels with a dot, at most
RADII = 2.0, 9.0  # pixels, from and to, of a misdrawn place
ERASED = 0.4  # share of these places without any lines


@dataclass(frozen=True)
class Degradation:
    """How much of everything; amounts are in the unit of the range [-1, 1]."""

    clean: float = 0.1  # share of pictures left as they were drawn
    bend: float = 0.6  # pixels, standard deviation at most of shaking outlines
    blur: float = 0.7  # at most this share of the picture blurred by 1 px
    drift: float = 0.06  # standard deviation at most of a smooth change of colour
    grain: float = 0.12  # the same of patches of blots, 2 px wide
    noise: float = 0.04  # the same pixel by pixel
    dots: float = 0.25  # at most, of faint dots of any colour in up to DOTTED of the pixels
    scratches: int = 12  # at most, of specks and stray strokes
    misdrawn: int = 6  # at most, of places with another avatar's lines, or none


def uniform(x: Tensor, most: float, random: torch.Generator, numbers: int = 1) -> Tensor:
    """Numbers of [0, most) for each picture of x: [B, numbers, 1, 1]."""
    return torch.rand(len(x), numbers, 1, 1, generator=random) * most


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


def from_a_point(x: Tensor, random: torch.Generator) -> Tensor:
    """How many pixels down and right every pixel lies from a point, which is drawn for each picture
    of x: [B, 2, H, W]."""
    rows, columns = (torch.arange(side) + 0.5 for side in x.shape[2:])
    pixels = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
    size = torch.tensor(x.shape[2:]).view(2, 1, 1)
    return pixels - uniform(x, 1, random, 2) * size


def scratched(x: Tensor, random: torch.Generator) -> Tensor:
    """Every picture of x with one more speck or, one in five, a stroke of up to 8 pixels.

    About a pixel wide, hardly visible to opaque; half are dark, as outlines are, the others of
    any colour.
    """
    away = from_a_point(x, random)  # where it begins
    turn = uniform(x, 2 * math.pi, random)
    along = torch.cat([turn.sin(), turn.cos()], 1)
    length = torch.where(uniform(x, 1, random) < 0.2, 8.0, 1.5) * uniform(x, 1, random)
    nearest = torch.minimum((away * along).sum(1, keepdim=True).clamp(min=0), length)
    distance = torch.linalg.vector_norm(away - nearest * along, dim=1, keepdim=True)
    radius = 0.3 + uniform(x, 0.5, random)
    cover = (radius + 0.5 - distance).clamp(0, 1) * uniform(x, 1, random)
    any_colour = uniform(x, 2, random, x.shape[1]) - 1
    colour = torch.where(uniform(x, 1, random) < 0.5, -0.9, any_colour)
    return torch.lerp(x, colour, cover)


def misdrawn(x: Tensor, random: torch.Generator) -> Tensor:
    """Every picture of x with one more place, an ellipse, where lines are those of the next
    picture at the same place, or blurred away; hardly to wholly. Colours stay."""
    low, high = RADII
    radii = low + uniform(x, high - low, random, 2)
    away = torch.linalg.vector_norm(from_a_point(x, random) / radii, dim=1, keepdim=True)
    cover = (2 - 2 * away).clamp(0, 1) * uniform(x, 1, random)
    flat = F.avg_pool2d(x, 7, 1, 3, count_include_pad=False)
    lines = torch.where(uniform(x, 1, random) < ERASED, 0.0, (x - flat).roll(1, 0))
    return torch.lerp(x, flat + lines, cover)


def degrade(x: Tensor, where: Tensor, how: Degradation, random: torch.Generator) -> Tensor:
    """`x` as g might draw it: shaking and soft outlines, drifting colours, patches of blots,
    noise, dots, misdrawn places, specks and strokes. In [-1, 1] again.

    `where` [B or 1, 2, H, W] tells positions in the whole picture, rows and columns, in (-1, 1).
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
    dotted = torch.rand(len(x), 1, *x.shape[2:], generator=random) < uniform(x, DOTTED, random)
    colours = 2 * torch.rand(x.shape, generator=random) - 1
    worse = worse + dotted * colours * uniform(x, how.dots, random)
    spared = within(where, NOSE).unsqueeze(1)  # lest noses be taken for scratches
    for most, spoil in ((how.misdrawn, misdrawn), (how.scratches, scratched)):
        many = uniform(x, most + 1, random)
        for i in range(most):
            worse = torch.where((i + 1 < many) & ~spared, spoil(worse, random), worse)
    kept = uniform(x, 1.0, random) < how.clean
    return torch.where(kept, x, worse).clamp(-1, 1)
