"""Two small folders: shapes in colours, a subfolder for each kind, and white shapes on black."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

Draw = Callable[[ImageDraw.ImageDraw, tuple[int, int, int, int], Any], None]
SHAPES: dict[str, Draw] = {
    "square": lambda draw, box, fill: draw.rectangle(box, fill),
    "ring": lambda draw, box, fill: draw.ellipse(box, outline=fill, width=4),
    "triangle": lambda draw, box, fill: draw.polygon(
        [(box[0], box[3]), (box[2], box[3]), (box[0], box[1])], fill
    ),
}


def write_folders(folder: Path, seed: int = 0) -> tuple[Path, Path]:
    """`folder`/coloured with 120 pictures of 40x36, `folder`/white with 90 of 40x40."""
    random = np.random.default_rng(seed)
    for domain, n, height in (("coloured", 120, 36), ("white", 90, 40)):
        for i in range(n):
            kind = list(SHAPES)[i % 3]
            place = folder / domain / (kind if domain == "coloured" else "")
            place.mkdir(parents=True, exist_ok=True)
            back = tuple(random.integers(0, 120, 3).tolist()) if domain == "coloured" else (0, 0, 0)
            fore = (255, 255 - back[0], 200) if domain == "coloured" else (255, 255, 255)
            image = Image.new("RGB", (40, height), back)
            left, top, size = (
                int(random.integers(low, high)) for low, high in ((4, 14), (4, 10), (16, 24))
            )
            SHAPES[kind](ImageDraw.Draw(image), (left, top, left + size, top + size), fore)
            image.save(place / f"{i:03d}.png")
    return folder / "coloured", folder / "white"
