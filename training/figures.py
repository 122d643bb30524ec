"""Figures of the paper as PNG files."""

from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

SCALE = 2  # a picture of 32 px is drawn at 64


def pair_grid(inputs: Tensor, outputs: Tensor, columns: int = 8) -> Image.Image:
    """Inputs in odd columns, their outputs to the right of each (Fig. 2a).

    uint8 [N, 1 or 3, H, W] both, inputs are shrunk to the size of outputs; `columns` counts pairs
    in a row.
    """
    n, _, height, width = outputs.shape
    if inputs.shape[2:] != outputs.shape[2:]:
        inputs = F.interpolate(inputs.float(), (height, width), mode="area").round().byte()
    pairs = torch.stack([x.cpu().expand(n, 3, height, width) for x in (inputs, outputs)], 1)
    rows = -(-n // columns)
    sheet = torch.full((rows * columns, 2, 3, height, width), 255, dtype=torch.uint8)
    sheet[:n] = pairs
    sheet = sheet.view(rows, columns * 2, 3, height, width).permute(0, 3, 1, 4, 2)
    sheet = sheet.reshape(rows * height, columns * 2 * width, 3)
    image = Image.fromarray(sheet.numpy())
    return image.resize((image.width * SCALE, image.height * SCALE), Image.Resampling.NEAREST)


def save_grid(path: Path, inputs: Tensor, outputs: Tensor, columns: int = 8) -> None:
    """Write `pair_grid` as PNG."""
    pair_grid(inputs, outputs, columns).save(path)
