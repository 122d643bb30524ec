"""Rendered house numbers: extra labelled pictures for f, drawn with many fonts.

The paper trained f on 531,131 labelled crops; at hand are a few thousand. A rendered
crop has what a real one has (one digit in the middle, its neighbours cut off at the
sides, any colours, shadows, uneven light, blur), and its label is right by construction.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from importlib.metadata import entry_points
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from tqdm import tqdm

from training.strokes import pen_digit

SIDE = 32  # of a finished crop, pixels
APIECE = 1000  # pictures that make a process of its own pay
CANVAS = 4 * SIDE  # the scene is drawn large, then warped and shrunk
Color = tuple[int, int, int]


def font_files() -> list[Path]:
    """Font files of the installed font packages (entry points `fonts_ttf`, `fonts_otf`).

    Raises FileNotFoundError where no font package is installed.
    """
    paths = {
        Path(path)
        for group in ("fonts_ttf", "fonts_otf")
        for point in entry_points(group=group)
        for path in point.load().values()
    }
    if not paths:
        raise FileNotFoundError('no fonts to render digits with: pip install "dtn[training]"')
    return sorted(paths)


@cache
def _font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


def _colors(rng: Random) -> tuple[Color, Color]:
    """A digit's colour and its background's, told apart by at least 45 grey levels."""
    while True:
        grey = rng.random() < 0.4
        pair = []
        for _ in range(2):
            level = rng.randrange(256)
            spread = 0 if grey else rng.choice((15, 60, 120))
            pair.append(
                tuple(min(255, max(0, level + rng.randint(-spread, spread))) for _ in range(3))
            )
        fore, back = pair
        if abs(sum(fore) - sum(back)) / 3 >= 45:
            return fore, back  # type: ignore[return-value]


def _background(color: Color, rng: Random, noise: np.random.Generator) -> Image.Image:
    """CANVAS x CANVAS in `color`, with uneven light and a coarse or fine texture."""
    picture = np.empty((CANVAS, CANVAS, 3), np.float32)
    picture[:] = color
    if rng.random() < 0.6:  # a gradient of light in any direction
        angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 50)
        y, x = np.mgrid[-1 : 1 : CANVAS * 1j, -1 : 1 : CANVAS * 1j]
        picture += (strength * (np.cos(angle) * x + np.sin(angle) * y))[..., None]
    if rng.random() < 0.5:
        cells = rng.choice((4, 8, 16, 32))
        grain = noise.normal(0, rng.uniform(2, 18), (cells, cells)).astype(np.float32)
        picture += np.asarray(
            Image.fromarray(grain).resize((CANVAS, CANVAS), Image.Resampling.BICUBIC)
        )[..., None]
    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    if rng.random() < 0.15:  # the edge of a plate, a door frame, a wall
        draw = ImageDraw.Draw(image)
        other = tuple(rng.randrange(256) for _ in range(3))
        edge = rng.randint(0, CANVAS // 7)
        box = rng.choice(
            (
                (0, 0, CANVAS, edge),
                (0, CANVAS - edge, CANVAS, CANVAS),
                (0, 0, edge, CANVAS),
                (CANVAS - edge, 0, CANVAS, CANVAS),
            )
        )
        draw.rectangle(box, fill=other)
    return image


def _warp(image: Image.Image, rng: Random) -> Image.Image:
    """A camera's view: corners moved on their own by up to a tenth of the side."""
    jitter = CANVAS * 0.1
    corners = [
        value + rng.uniform(-jitter, jitter)
        for value in (0, 0, 0, CANVAS, CANVAS, CANVAS, CANVAS, 0)
    ]
    return image.transform(
        image.size, Image.Transform.QUAD, tuple(corners), Image.Resampling.BILINEAR
    )


def house_number(
    digit: int, fonts: list[Path], seed: int, pen: float = 0.0
) -> npt.NDArray[np.uint8]:
    """One crop with `digit` (0 to 9) in the middle: uint8 [32, 32, 3], the same for a seed.

    With probability `pen` it is drawn with a pen, else printed in one of `fonts`.
    """
    rng = Random(seed)  # noqa: S311
    noise = np.random.default_rng(seed)
    fore, back = _colors(rng)
    image = _background(back, rng, noise)
    if rng.random() < pen:
        _write(image, digit, fore, rng)
    else:
        _print(image, digit, fore, back, fonts, rng)
    image = _warp(image, rng)
    if rng.random() < 0.7:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 7)))
    small = image.resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small, np.uint8)


def _write(image: Image.Image, digit: int, color: Color, rng: Random) -> None:
    """Draw `digit` with a round pen."""
    draw = ImageDraw.Draw(image)
    pen = rng.uniform(6, 22)
    size = rng.uniform(0.7, 1.0) * CANVAS
    for stroke in pen_digit(digit, rng):
        points = (stroke - 0.5) * size + CANVAS / 2
        draw.line([tuple(point) for point in points], color, round(pen), joint="curve")
        for x, y in (points[0], points[-1]):
            draw.ellipse((x - pen / 2, y - pen / 2, x + pen / 2, y + pen / 2), color)


def _print(
    image: Image.Image, digit: int, fore: Color, back: Color, fonts: list[Path], rng: Random
) -> None:
    """Set `digit` in a font, often between neighbours, sometimes with a shadow."""
    draw = ImageDraw.Draw(image)
    font = _font(rng.choice(fonts), rng.randrange(96, 176, 8))
    bold = rng.choice((0, 0, 0, 1, 2, 4))
    gap = rng.uniform(-2, 16)
    plain = rng.random() < 0.2  # a digit on its own
    left = "" if plain else "".join(str(rng.randrange(10)) for _ in range(rng.choice((0, 1, 1))))
    right = "" if plain else "".join(str(rng.randrange(10)) for _ in range(rng.choice((0, 1, 1))))

    def width(text: str) -> float:
        return draw.textlength(text, font=font) + bold if text else 0.0

    middle = width(str(digit))
    placed = [(CANVAS / 2, str(digit))]
    if left:
        placed.append((CANVAS / 2 - middle / 2 - gap - width(left) / 2, left))
    if right:
        placed.append((CANVAS / 2 + middle / 2 + gap + width(right) / 2, right))
    top = CANVAS / 2 - sum(font.getbbox(str(digit))[1::2]) / 2
    shadow = rng.random() < 0.2
    dx, dy = rng.randint(-6, 6), rng.randint(2, 6)
    shade = tuple(max(0, value - rng.randint(20, 80)) for value in back)
    for center, text in placed:
        x = center - width(text) / 2
        if shadow:
            draw.text((x + dx, top + dy), text, shade, font=font, stroke_width=bold)
        draw.text((x, top), text, fore, font=font, stroke_width=bold)


def numbered(number: int, seed: int, pen: float, fonts: list[Path]) -> npt.NDArray[np.uint8]:
    """The crop of that number among those of `seed`; its digit is the number's last."""
    return house_number(number % 10, fonts, seed * 10_000_019 + number, pen)


def house_numbers(
    n: int, seed: int = 0, pen: float = 0.0
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """`n` rendered crops, a share `pen` of them handwritten, and their labels.

    uint8 [n, 32, 32, 3] and uint8 [n]. Many are drawn on all cores.
    """
    draw = partial(numbered, seed=seed, pen=pen, fonts=font_files())
    pictures = np.empty((n, SIDE, SIDE, 3), np.uint8)
    with drawers(n) as mapped:
        drawn = tqdm(mapped(draw, range(n)), "rendering house numbers", n, False, unit="picture")
        for i, picture in enumerate(drawn):
            pictures[i] = picture
    return pictures, (np.arange(n) % 10).astype(np.uint8)


@contextmanager
def drawers(n: int) -> Iterator[Callable[..., Iterable[npt.NDArray[np.uint8]]]]:
    """A `map` for n pictures: here, or on all cores where there are enough for each."""
    cores = len(os.sched_getaffinity(0))
    if n < APIECE * cores or cores == 1:
        yield map
        return
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        yield partial(pool.imap, chunksize=100)
