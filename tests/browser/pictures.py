"""Pictures for the page's tests, cut from those in docs/ that may be published."""

from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
HOUSE_NUMBER = ROOT / "tests" / "pictures" / "house_number.png"
SIDE = 384  # of a photograph


def save_faces(folder: Path) -> dict[str, Path]:
    """Photographs as PNGs by name; `two` shows two people side by side."""
    with Image.open(ROOT / "docs" / "emoji.png") as grid:
        astronaut = cut(grid, 0, 0, 192)
    with Image.open(ROOT / "docs" / "figure6.jpg") as grid:
        # Each a third of 291 pixels wide; the red frame of the better one stays outside.
        one, another = cut(grid, 99, 315, 90), cut(grid, 3, 315, 90)
    two = Image.new("RGB", (2 * SIDE, SIDE))
    two.paste(astronaut, (0, 0))
    two.paste(one, (SIDE, 0))
    photos = {"astronaut": astronaut, "one": one, "another": another, "two": two}
    paths = {name: folder / f"{name}.png" for name in photos}
    for name, path in paths.items():
        photos[name].save(path)
    return paths


def cut(grid: Image.Image, x: int, y: int, side: int) -> Image.Image:
    part = grid.convert("RGB").crop((x, y, x + side, y + side))
    return part.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def write_video(photo: Path, path: Path) -> Path:
    """A photograph as a still film, YUV 4:2:0 in Y4M, as Chromium's camera that is none plays."""
    with Image.open(photo) as picture:
        y, u, v = np.moveaxis(np.asarray(picture.convert("YCbCr")), 2, 0)
    planes = (y, u[::2, ::2], v[::2, ::2])
    frame = b"FRAME\n" + b"".join(plane.tobytes() for plane in planes)
    header = f"YUV4MPEG2 W{SIDE} H{SIDE} F10:1 Ip A1:1 C420jpeg\n".encode()
    path.write_bytes(header + 3 * frame)
    return path
