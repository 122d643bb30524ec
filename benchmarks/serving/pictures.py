"""Distinct pictures, the answers they must get, and whether they got them."""

from base64 import b64decode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.serving.device import SIDE, Pixels, green, open_graph
from benchmarks.serving.servers import ModelName, Server

PNG = b"\x89PNG\r\n\x1a\n"
PNG_IN_BASE64 = b"iVBORw0KGgo"

# Levels by which a pixel may differ. The graph's sums depend on the batch in their last bit,
# which may round a pixel the other way; the stand-in's are exact.
TOLERANCE: dict[ModelName, int] = {"digits": 2, "standin": 0}


def photos(count: int, seed: int = 0) -> Pixels:
    """Pictures as a camera sees house numbers, uint8 [count, 32, 32, 3]: soft shapes, noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 4, 4, 3), np.uint8)
    soft = [Image.fromarray(x).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for x in coarse]
    noise = rng.normal(0, 10, (count, SIDE, SIDE, 3))
    seen = np.stack([np.asarray(x) for x in soft]) + noise
    return np.asarray(np.clip(seen, 0, 255), np.uint8)


def phone_photo() -> Pixels:
    """12 MP with the grain of a phone's camera, uint8 [3000, 4000, 3]."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8))
    soft = np.asarray(coarse.resize((4000, 3000), Image.Resampling.BICUBIC)).astype(np.int16)
    grainy = soft + rng.integers(-8, 9, soft.shape, np.int16)
    return np.asarray(np.clip(grainy, 0, 255), np.uint8)


def encoded(pixels: Pixels, picture_format: str = "PNG") -> bytes:
    """uint8 [H, W, 3] as a file; JPEG of quality 90."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, picture_format, quality=90)
    return file.getvalue()


def expected_answers(model: ModelName, x: Pixels) -> Pixels:
    """uint8 [N, 32, 32, 3] -> [N, 32, 32]: what each picture must be answered with.

    Raises ValueError where two answers are so alike that mixing them up would not show.
    """
    if model == "standin":
        y = green(x)[:, :, :, 0]
    else:
        y = np.asarray(open_graph().run(["y"], {"x": x})[0][:, :, :, 0])
    for i, one in enumerate(y[:-1]):
        if apart(y[i + 1 :], one).min() <= 2 * TOLERANCE[model]:
            raise ValueError(f"picture {i} has a twin: pictures must have different answers")
    return y


@dataclass(frozen=True)
class Pictures:
    """PNG files and, by the same index, what each must be answered with, uint8 [N, 32, 32]."""

    model: ModelName
    files: list[bytes]
    wanted: Pixels


def make_pictures(model: ModelName, count: int) -> Pictures:
    """Distinct pictures for a model."""
    x = photos(count)
    return Pictures(model, [encoded(one) for one in x], expected_answers(model, x))


def apart(y: Pixels, wanted: Pixels) -> Pixels:
    """The largest difference of a pixel, over the last two axes."""
    difference = np.abs(y.astype(np.int16) - wanted.astype(np.int16)).max(axis=(-2, -1))
    return np.asarray(difference, np.uint8)


def answer_pixels(body: bytes) -> Pixels | None:
    """The picture in a server's answer, uint8 [H, W]; None where there is none.

    It may be the answer itself, stand behind a JSON header (V2 binary), or be base64 in JSON.
    """
    start = body.find(PNG)
    if start < 0 and (start := body.find(PNG_IN_BASE64)) >= 0:
        body = b64decode(body[start : body.index(b'"', start)])
        start = 0
    if start < 0:
        return None
    try:
        with Image.open(BytesIO(body[start:]), formats=["PNG"]) as picture:
            return np.asarray(picture.convert("L"))
    except (OSError, SyntaxError):
        return None


def is_right(body: bytes, pictures: Pictures, i: int) -> bool:
    """Whether an answer's pixels are those that picture i must be answered with."""
    y, wanted = answer_pixels(body), pictures.wanted[i]
    if y is None or y.shape != wanted.shape:
        return False
    return int(apart(y, wanted)) <= TOLERANCE[pictures.model]


def write_requests(file: Path, server: Server, port: int, pictures: Pictures) -> None:
    """Whole HTTP requests for load.lua, each behind a line with its length."""
    write_down(file, (server.request(port, picture) for picture in pictures.files))


def write_down(file: Path, requests: Iterable[bytes]) -> None:
    """Whole HTTP requests for load.lua, each behind a line with its length."""
    with file.open("wb") as out:
        for request in requests:
            out.write(b"%d\n" % len(request) + request)


def answers(folder: Path) -> Iterator[tuple[int, bytes]]:
    """What load.lua wrote down: a picture's number, and an answer to it."""
    for file in sorted(folder.iterdir()):
        records = file.read_bytes()
        at = 0
        while at < len(records):
            end = records.index(b"\n", at)
            i, length = map(int, records[at:end].split())
            at = end + 1 + length
            yield i, records[end + 1 : at]


def wrong_answers(folder: Path, pictures: Pictures) -> int:
    """How many of the answers that load.lua wrote down are not their picture's."""
    return sum(not is_right(answer, pictures, i) for i, answer in answers(folder))
