"""Uploads that no honest client sends: broken pictures, broken multipart, bombs."""

import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.serving.pictures import PNG, encoded, photos
from benchmarks.serving.servers import BOUNDARY, Body

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
BOMB_SIDE = 10_000


def hostile_bodies(wrap: Callable[[bytes], Body], count: int, seed: int = 0) -> Iterator[Body]:
    """Bodies as the server takes them, in an order that the seed decides."""
    rng = np.random.default_rng(seed)
    files = [encoded(photos(1, seed)[0], picture_format) for picture_format in FORMATS]
    bombs = [bomb(BOMB_SIDE, BOMB_SIDE), bomb(2**31 - 1, 2**31 - 1), bomb(0, 0)]
    for i in range(count):
        file = files[i % len(files)]
        match int(rng.integers(10)):
            case 0:
                yield wrap(file[: rng.integers(len(file))])
            case 1:
                yield wrap(rng.bytes(int(rng.integers(1, 4096))))
            case 2:
                yield wrap(b"")
            case 3:
                body = wrap(file)
                yield Body(mutated(body.content, rng), body.headers)
            case 4:
                body = wrap(file)
                yield Body(body.content[: rng.integers(len(body.content))], body.headers)
            case 5:
                yield broken_multipart(file, rng)
            case 6 if i % 20 == 0:
                yield wrap(bombs[i // 20 % len(bombs)])
            case _:
                yield wrap(mutated(file, rng))


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes changed, or a stretch cut out or doubled."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 9))):
        at = int(rng.integers(len(changed)))
        changed[at] = int(rng.integers(256))
    at, length = int(rng.integers(len(changed))), int(rng.integers(1, 64))
    match int(rng.integers(4)):
        case 0:
            del changed[at : at + length]
        case 1:
            changed[at:at] = changed[at : at + length]
    return bytes(changed)


def broken_multipart(file: bytes, rng: np.random.Generator) -> Body:
    """Multipart whose frame is wrong in one of several ways."""
    part = b'Content-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n' + file
    mark = BOUNDARY.encode()
    bodies = (
        b"--" + mark + b"\r\n" + part,  # never closed
        b"--" + mark + b"--\r\n",  # no part
        (b"--" + mark + b"\r\n" + part + b"\r\n") * 3 + b"--" + mark + b"--\r\n",
        b"--" + mark + b"\r\n" + part.replace(b"file", b"elif") + b"\r\n--" + mark + b"--\r\n",
        b"--" + mark + b"\r\n" + b"X: " + b"y" * 20_000 + b"\r\n" + part,
        b"--" + mark + b"\r\n" * 2_000,
        b"--" + mark + b'\r\nContent-Disposition: form-data; name="\xff\x00\r\n\r\n' + file,
    )
    kinds = (f"multipart/form-data; boundary={BOUNDARY}", "multipart/form-data")
    content_type = kinds[int(rng.random() < 0.2)]
    return Body(bodies[int(rng.integers(len(bodies)))], {"Content-Type": content_type})


def bomb(width: int, height: int) -> bytes:
    """A PNG of few bytes that says it is huge; up to 10,000 pixels a side it is."""
    rows = bytes((width + 7) // 8 + 1) * height if 0 < width <= BOMB_SIDE else b""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return PNG + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
