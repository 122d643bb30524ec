"""PNG past Pillow's reader: the same pixels, and nothing decoded that Pillow should look at."""

import random
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from service.png import decode_png, encode_png, png_size
from tests.service.dummy import encoded, noise, png


def read(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(content)).convert("RGB"))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("smooth", [False, True])
def test_plain_files_are_decoded_as_pillow_does(mode: str, smooth: bool) -> None:
    picture = Image.fromarray(noise(9, 7)).convert(mode)
    if smooth:  # then other filters of the format are in use
        picture = picture.resize((70, 90))
    content = encoded(picture)
    size = png_size(content)
    assert size == picture.size
    decoded = decode_png(content)
    assert decoded is not None
    assert np.array_equal(decoded, read(content))


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGBA", {}),
        ("P", {}),
        ("1", {}),
        ("I;16", {}),
        ("RGB", {"transparency": (1, 2, 3)}),
        ("RGB", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"}),
    ],
)
def test_what_is_not_plain_is_left_to_pillow(mode: str, options: dict[str, Any]) -> None:
    picture = Image.new(mode, (5, 5))
    content = encoded(picture, **options)
    size = png_size(content)
    assert size is None or decode_png(content) is None


def test_other_formats_and_no_pixels_have_no_size() -> None:
    assert png_size(encoded(Image.new("RGB", (4, 4)), "JPEG")) is None
    assert png_size(b"") is None
    assert png_size(png(0, 4)) is None
    assert png_size(png(4, 4)[:20]) is None


def test_broken_files_are_never_decoded_otherwise_than_pillow_would() -> None:
    content = encoded(Image.fromarray(noise(16, 16)))
    rng = random.Random(0)
    for _ in range(2000):
        broken = bytearray(content)
        for _ in range(rng.choice((1, 2, 5))):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        del broken[rng.choice((len(broken), rng.randrange(len(broken)))) :]
        size = png_size(bytes(broken))
        decoded = None if size is None or max(size) > 1000 else decode_png(bytes(broken))
        if decoded is not None:
            assert np.array_equal(decoded, read(bytes(broken)))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_what_a_file_says_of_its_colours_is_ignored_as_pillow_does(mode: str) -> None:
    extra = PngInfo()
    extra.add(b"gAMA", (100_000).to_bytes(4))
    extra.add(b"sRGB", b"\0")
    extra.add(b"sBIT", b"\4\4\4" if mode == "RGB" else b"\4")
    extra.add(b"bKGD", b"\0\1" * (3 if mode == "RGB" else 1))
    content = encoded(Image.fromarray(noise(9, 7)).convert(mode), pnginfo=extra)
    decoded = decode_png(content)
    assert decoded is not None
    assert np.array_equal(decoded, read(content))


@pytest.mark.parametrize("rows", [0, 3])
def test_missing_rows_are_left_to_pillow(rows: int) -> None:
    assert decode_png(png(4, 4, b"\0abcd" * rows)) is None


def test_a_chunk_longer_than_the_file_is_no_picture() -> None:
    content = bytearray(encoded(Image.fromarray(noise(16, 16))))
    content[33:37] = b"\xff\xff\xff\xff"  # the length of IDAT
    assert decode_png(bytes(content)) is None


@pytest.mark.parametrize("height", [33, 333])
@pytest.mark.parametrize("colours", [1, 3])
def test_what_is_encoded_can_be_read(colours: int, height: int) -> None:
    pixels = noise(height, 21, colours)
    picture = Image.open(BytesIO(encode_png(pixels)))
    picture.load()
    assert picture.mode == ("L" if colours == 1 else "RGB")
    assert np.array_equal(np.asarray(picture).reshape(pixels.shape), pixels)
    assert set(picture.info) == set()


def test_a_large_picture_is_stored_as_its_differences() -> None:
    brighter = np.arange(128, dtype=np.uint8).reshape(128, 1, 1)
    pixels = noise(1, 128) + brighter
    content = encode_png(pixels)
    assert len(content) < pixels.size / 20
    assert np.array_equal(np.asarray(Image.open(BytesIO(content))), pixels)
