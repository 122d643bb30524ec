"""Figures of the paper as PNG files."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

SCALE = 2  # a picture of 32 px is drawn at 64


def grid(parts: Sequence[Tensor], columns: int = 1, gap: int = 0) -> Image.Image:
    """Groups of pictures: one of each of `parts` side by side, `columns` groups in a row.

    Parts are uint8 [N, 1 or 3, H, W]; `gap` white pixels lie between groups, across and down.
    """
    n, _, height, _ = parts[0].shape
    group = torch.cat([x.cpu().expand(n, 3, height, -1) for x in parts], 3)
    group = F.pad(group, (0, gap, 0, gap), value=255)
    rows = -(-n // columns)
    sheet = group.new_full((rows * columns, *group.shape[1:]), 255)
    sheet[:n] = group
    sheet = sheet.view(rows, columns, *group.shape[1:]).permute(0, 3, 1, 4, 2)  # [R, H, C, W, 3]
    sheet = sheet.flatten(2, 3).flatten(0, 1)
    sheet = sheet[: len(sheet) - gap, : sheet.shape[1] - gap]
    return Image.fromarray(sheet.contiguous().numpy())


def pair_grid(inputs: Tensor, outputs: Tensor, columns: int = 8) -> Image.Image:
    """Inputs in odd columns, their outputs to the right of each (Fig. 2a).

    uint8 [N, 1 or 3, H, W] both, inputs are shrunk to the size of outputs; `columns` counts pairs
    in a row.
    """
    if inputs.shape[2:] != outputs.shape[2:]:
        size = list(outputs.shape[2:])
        inputs = F.interpolate(inputs.float(), size, mode="area").round().byte()
    image = grid((inputs, outputs), columns)
    return image.resize((image.width * SCALE, image.height * SCALE), Image.Resampling.NEAREST)


def save_grid(path: Path, inputs: Tensor, outputs: Tensor, columns: int = 8) -> None:
    """Write `pair_grid` as PNG."""
    pair_grid(inputs, outputs, columns).save(path)
