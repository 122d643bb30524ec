"""Where things lie in an emoji: T draws every face at the same place."""

import torch
from torch import Tensor

# Rows from and to, columns from and to, in (-1, 1).
Place = tuple[tuple[float, float], tuple[float, float]]

FACE: Place = (-0.25, 0.9), (-0.5, 0.5)  # from the brows to the chin
# Every avatar has a nose there, often of a stroke or two, mirrored with one and not with another.
NOSE: Place = (0.1, 0.38), (-0.17, 0.17)


def positions(side: int, device: torch.device | None = None) -> Tensor:
    """Row and column of the pixels of a picture, [2, side, side], in (-1, 1)."""
    line = (torch.arange(side, device=device) + 0.5) * 2 / side - 1
    return torch.stack(torch.meshgrid(line, line, indexing="ij"))


def within(where: Tensor, place: Place) -> Tensor:
    """Which pixels, at positions [..., 2, H, W], are of a place: bool [..., H, W]."""
    rows, columns = where.unbind(-3)
    (top, bottom), (left, right) = place
    return (top <= rows) & (rows <= bottom) & (left <= columns) & (columns <= right)
