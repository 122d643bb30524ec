"""One picture's way: bytes -> pixels -> G -> pixels -> bytes."""

import math
import time
from dataclasses import dataclass

import numpy as np

from service.models import Model
from service.pictures import MEDIA_TYPES, decode, encode
from service.problems import Problem
from service.schemas import PictureFormat


@dataclass(frozen=True)
class Transferred:
    """G(x), encoded, and Eq. 8's distance where it was asked for."""

    content: bytes
    media_type: str
    width: int
    height: int
    f_distance: float | None


def transfer(
    content: bytes,
    model: Model,
    picture_format: PictureFormat,
    *,
    distance: bool,
    max_pixels: int,
    deadline: float = math.inf,
) -> Transferred:
    """G of an encoded picture; blocks for as long as that takes.

    `deadline` is a time.monotonic(): past it the next step is not begun, for nobody waits any
    longer. Raises Problem as decode and Model do, invalid_parameter where the model has no
    distance, and deadline_exceeded.
    """
    if distance and not model.has_distance:
        raise Problem("invalid_parameter", f"distance: {model.reference} has no distance graph")
    x = decode(content, max_pixels)
    if time.monotonic() > deadline:
        raise Problem("deadline_exceeded", "the picture was decoded too late")
    y, f_distance = model(x[np.newaxis], distance)
    height, width = y.shape[1:3]
    return Transferred(
        encode(y[0], picture_format), MEDIA_TYPES[picture_format], width, height, f_distance[0]
    )
