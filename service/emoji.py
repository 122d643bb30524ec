"""A photo's way to an emoji: bytes -> face -> G -> 64 x 64 pixels -> the size asked for."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from service.batching import Drawn
from service.faces import Found, find_face
from service.manifest import UPSCALED
from service.models import Model
from service.pictures import MEDIA_TYPES, Pixels, encode
from service.problems import Problem
from service.schemas import PictureFormat
from service.transfer import Transferred


@dataclass(frozen=True)
class Emoji:
    """G(x) of one face, as g drew it, and Eq. 8's ‖f(x) − f(G(x))‖."""

    y: Pixels  # [64, 64, 3]
    f_distance: float
    found: Found


def draw_emoji(
    content: bytes,
    model: Model,
    *,
    max_pixels: int,
    face: int | None = None,
    deadline: float = math.inf,
    draw: Callable[[Pixels], Drawn] | None = None,
) -> Emoji:
    """The emoji of one face in an encoded photo; blocks for as long as that takes.

    `draw` gives G(x) and the distance, where it is not the model itself that is asked. Past
    `deadline`, a time.monotonic(), the next step is not begun. Raises Problem as find_face and
    Model do, invalid_parameter where the distance is no number, and deadline_exceeded.
    """
    in_time(deadline)
    found = find_face(content, model, face, max_pixels)
    in_time(deadline)
    y, f_distance = (draw or model.draw)(found.aligned)
    if f_distance is None:
        raise Problem("invalid_parameter", f"{model.reference} can make nothing of this face")
    return Emoji(y, f_distance, found)


def finish(
    y: Pixels, f_distance: float, model: Model, size: int, picture_format: PictureFormat
) -> Transferred:
    """An emoji [64, 64, 3] in the size and format asked for. Raises Problem as Model does."""
    content = encode(sized(y, size, model), picture_format)
    return Transferred(content, MEDIA_TYPES[picture_format], size, size, f_distance)


def in_time(deadline: float) -> None:
    """Raises Problem deadline_exceeded past a time.monotonic()."""
    if time.monotonic() > deadline:
        raise Problem("deadline_exceeded", "the photo's turn came too late")


def sized(y: Pixels, size: int, model: Model) -> Pixels:
    """An emoji uint8 [64, 64, 3] at 64, 128, 256 or 512.

    The model's upscaler draws 512 pixels, of which 256 and 128 are the averages of blocks. A
    model without one is enlarged by Lanczos's filter. Raises Problem as Model does.
    """
    if size == len(y):
        return y
    if model.has_upscale:
        large = Image.fromarray(model.upscale(y))
        return np.asarray(large.reduce(UPSCALED // size))
    return np.asarray(Image.fromarray(y).resize((size, size), Image.Resampling.LANCZOS))
