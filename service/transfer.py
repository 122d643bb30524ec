"""One picture's way: bytes -> pixels -> G -> pixels -> bytes."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from service.batching import Batcher, late
from service.metrics import Metrics
from service.models import Model
from service.pictures import MEDIA_TYPES, Pixels, decode, encode, encodes_at_once
from service.png import is_small_png
from service.problems import Problem
from service.schemas import PictureFormat
from service.tracing import staged
from service.uploads import picture_bytes
from service.workers import Workers

# A JPEG is decoded no larger than about this: more than any model here looks at, and an eighth of
# what phones take, 4000 pixels and a few more, so that 12 megapixels take a quarter of the time.
LONG_SIDE = 500
SHORT_BODY = 16 * 1024  # bytes; in a longer one the picture is cut out by a thread, too


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
) -> Transferred:
    """G of an encoded picture; blocks for as long as that takes.

    Raises Problem as decode and Model do, and invalid_parameter where the model has no distance.
    """
    require_distance(model, distance)
    x = decode(content, max_pixels, LONG_SIDE)
    y, f_distance = model(x[np.newaxis], distance)
    return transferred(y[0], f_distance[0], picture_format)


async def transfer_soon(
    body: bytes,
    header: str,
    batcher: Batcher,
    workers: Workers,
    picture_format: PictureFormat,
    *,
    distance: bool,
    max_pixels: int,
    deadline: float = math.inf,
) -> Transferred:
    """G of the picture in an upload, run together with what other requests have sent.

    Threads decode and encode, but for the smallest pictures: handing those over would take
    longer than they do. Raises Problem as picture_bytes and transfer do, and deadline_exceeded
    where the picture's turn comes after `deadline`, a time.monotonic().
    """
    require_distance(batcher.model, distance)
    cut = partial(picture_bytes, body, header)
    content = cut() if len(body) <= SHORT_BODY else cut
    with staged("decode"):
        x = await decode_soon(content, workers, batcher.metrics, max_pixels, deadline)
    with staged("draw"):
        y, f_distance = await batcher.submit(x, distance, deadline)
    with staged("encode"):
        return await encode_soon(y, f_distance, picture_format, workers, batcher.metrics)


async def decode_soon(
    content: bytes | Callable[[], bytes],
    workers: Workers,
    metrics: Metrics,
    max_pixels: int,
    deadline: float = math.inf,
) -> Pixels:
    """The pixels of an encoded picture, or of what a function cuts out of an upload.

    Raises Problem as the function and decode do, and deadline_exceeded.
    """

    def decoded() -> Pixels:
        began = time.monotonic()
        if began > deadline:
            raise late()
        x = decode(content if isinstance(content, bytes) else content(), max_pixels, LONG_SIDE)
        metrics.decode.observe(time.monotonic() - began)
        return x

    if isinstance(content, bytes) and is_small_png(content):
        return decoded()
    return await workers.run_on(decoded)


async def encode_soon(
    y: Pixels,
    f_distance: float | None,
    picture_format: PictureFormat,
    workers: Workers,
    metrics: Metrics,
) -> Transferred:
    """G(x), encoded."""

    def encoded() -> Transferred:
        began = time.monotonic()
        result = transferred(y, f_distance, picture_format)
        metrics.encode.observe(time.monotonic() - began)
        return result

    if encodes_at_once(y, picture_format):
        return encoded()
    return await workers.run_on(encoded)


def require_distance(model: Model, distance: bool) -> None:
    """Raises Problem invalid_parameter where a distance is wanted that the model has not."""
    if distance and not model.has_distance:
        raise Problem("invalid_parameter", f"distance: {model.reference} has no distance graph")


def transferred(y: Pixels, f_distance: float | None, picture_format: PictureFormat) -> Transferred:
    """G(x), encoded."""
    height, width, _ = y.shape
    content = encode(y, picture_format)
    return Transferred(content, MEDIA_TYPES[picture_format], width, height, f_distance)
