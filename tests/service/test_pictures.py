import logging
import struct
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, features

from service import pictures
from service.pictures import MEDIA_TYPES, decode, decode_photo, eight_bits, encode
from service.problems import Problem
from service.schemas import PictureFormat
from service.transfer import LONG_SIDE
from tests.service.dummy import encoded, noise, png

LIMIT = 50_000_000
COLOURS = np.array([[[250, 10, 20], [30, 240, 40], [50, 60, 230], [0, 0, 0]]], np.uint8).repeat(
    2, 0
)


@pytest.mark.parametrize(
    ("format_", "options"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_lossless_formats_come_out_as_they_went_in(format_: str, options: dict[str, str]) -> None:
    pixels = noise(7, 5)
    assert np.array_equal(
        decode(encoded(Image.fromarray(pixels), format_, **options), LIMIT), pixels
    )


@pytest.mark.parametrize("format_", ["JPEG", "MPO"])
def test_lossy_formats_come_out_nearly(format_: str) -> None:
    content = encoded(Image.new("RGB", (20, 10), (200, 100, 50)), format_, quality=95)
    assert np.abs(decode(content, LIMIT).astype(int) - (200, 100, 50)).max() <= 3


MODES = [
    ("1", "PNG", 255, (255, 255, 255)),
    ("L", "PNG", 77, (77, 77, 77)),
    ("P", "PNG", (10, 200, 30), (10, 200, 30)),
    ("P", "GIF", (10, 200, 30), (10, 200, 30)),
    ("RGB", "PNG", (1, 2, 3), (1, 2, 3)),
    ("RGBA", "PNG", (0, 100, 200, 0), (255, 255, 255)),
    ("RGBA", "PNG", (0, 100, 200, 255), (0, 100, 200)),
    ("RGBA", "PNG", (0, 100, 200, 51), (204, 224, 244)),
    ("RGBA", "WEBP", (0, 100, 200, 0), (255, 255, 255)),
    ("LA", "PNG", (0, 51), (204, 204, 204)),
    ("CMYK", "TIFF", (0, 255, 255, 0), (255, 0, 0)),
    ("CMYK", "JPEG", (0, 255, 255, 0), (254, 0, 0)),
    ("YCbCr", "TIFF", (76, 85, 255), (254, 0, 0)),
    ("LAB", "TIFF", (255, 128, 128), (255, 255, 255)),
    ("I;16", "PNG", 257 * 77, (77, 77, 77)),
    ("I;16", "TIFF", 65535, (255, 255, 255)),
    ("I;16B", "TIFF", 257 * 77, (77, 77, 77)),
    ("I", "TIFF", 257 * 77, (77, 77, 77)),
    ("F", "TIFF", 0.4, (102, 102, 102)),
]


@pytest.mark.parametrize(("mode", "format_", "colour", "expected"), MODES)
def test_every_mode_becomes_rgb(
    mode: str, format_: str, colour: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    if mode == "P":
        picture = Image.new("RGB", (8, 8), colour).quantize(4)
    else:
        picture = Image.new(mode, (8, 8), colour)
    pixels = decode(encoded(picture, format_), LIMIT)
    assert pixels.shape == (8, 8, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - expected).max() <= 1


def test_a_transparent_palette_colour_is_laid_over_white() -> None:
    picture = Image.fromarray(COLOURS).quantize(4)
    index = picture.getpixel((1, 0))
    for content in (
        encoded(picture, "PNG", transparency=index),
        encoded(picture, "GIF", transparency=index),
    ):
        pixels = decode(content, LIMIT)
        assert tuple(pixels[0, 1]) == (255, 255, 255)
        assert np.array_equal(pixels[:, 0], COLOURS[:, 0])


def test_a_transparent_colour_key_is_laid_over_white() -> None:
    content = encoded(Image.fromarray(COLOURS), "PNG", transparency=(30, 240, 40))
    pixels = decode(content, LIMIT)
    assert tuple(pixels[0, 1]) == (255, 255, 255)
    assert tuple(pixels[0, 0]) == (250, 10, 20)


def test_sixteen_bit_grey_with_a_colour_key_is_still_scaled() -> None:
    content = encoded(Image.new("I;16", (4, 4), 257 * 9), "PNG", transparency=3)
    assert np.all(decode(content, LIMIT) == 9)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["PNG", "TIFF", "WEBP"])
def test_orientation_is_applied(orientation: int, format_: str) -> None:
    # How a camera stores an upright picture under each orientation: by EXIF's table of where
    # the 0th row and the 0th column of the file belong.
    upright = noise(6, 9)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True, "exact": True} if format_ == "WEBP" else {}
    content = encoded(Image.fromarray(stored.copy()), format_, exif=exif, **options)
    assert np.array_equal(decode(content, LIMIT), upright)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_means_nothing_is_ignored(value: int) -> None:
    pixels, exif = noise(3, 4), Image.Exif()
    exif[0x0112] = value
    assert np.array_equal(decode(encoded(Image.fromarray(pixels), exif=exif), LIMIT), pixels)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"x"])
def test_broken_exif_does_not_matter(exif: bytes) -> None:
    content = encoded(Image.new("RGB", (8, 8), "white"), "JPEG", exif=exif)
    assert decode(content, LIMIT).min() >= 254


@pytest.mark.parametrize("format_", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_gives_its_first_frame(format_: str) -> None:
    frames = [Image.new("RGB", (6, 5), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if format_ == "WEBP" else {}
    content = encoded(frames[0], format_, save_all=True, append_images=frames[1:], **options)
    assert np.all(decode(content, LIMIT) == (255, 0, 0))


@pytest.mark.parametrize(
    ("grey", "expected"),
    [
        (np.array([[0, 128, 129, 65535]], np.uint16), [0, 0, 1, 255]),
        (np.array([[0, 1]], np.int32), [0, 255]),
        (np.array([[0, 100]], np.int32), [0, 100]),
        (np.array([[0, 257 * 100]], np.int32), [0, 100]),
        (np.array([[0, 1_000_000]], np.int32), [0, 255]),
        (np.array([[-100, 0, 155]], np.int32), [0, 100, 255]),
        (np.array([[0, 0]], np.int32), [0, 0]),
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 200.0]], np.float32), [0, 200]),
        (np.array([[-7.0, -7.0]], np.float32), [0, 0]),
        (np.array([[np.nan, np.inf, -np.inf, 1.0]], np.float32), [0, 0, 0, 255]),
    ],
)
def test_greys_are_scaled_to_eight_bits(grey: np.ndarray, expected: list[int]) -> None:
    assert eight_bits(grey)[0].tolist() == expected


def code(content: bytes, max_pixels: int = LIMIT) -> str:
    with pytest.raises(Problem) as raised:
        decode(content, max_pixels)
    return raised.value.code


@pytest.mark.parametrize(
    "content",
    [
        b"\0",
        b"just text",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"GIF89a",
        b"BM",
        b"II*\0",
        b"RIFF\0\0\0\0WEBP",
        png(8, 8, b"too little"),
        png(0, 8),
    ],
)
def test_what_is_no_picture_is_not_an_image(content: bytes) -> None:
    assert code(content) == "not_an_image"


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_truncated_picture_is_not_an_image(format_: str) -> None:
    content = encoded(Image.fromarray(noise(64, 64)), format_)
    assert code(content[: len(content) // 2]) == "not_an_image"


@pytest.mark.parametrize(
    "content",
    [
        encoded(Image.new("RGB", (4, 4)), "PPM"),
        encoded(Image.new("RGB", (16, 16)), "ICO"),
        encoded(Image.new("RGB", (16, 16)), "JPEG2000"),
        encoded(Image.new("RGB", (16, 16)), "AVIF"),
        b"\0\0\0\x18ftypheic\0\0\0\0",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7",
    ],
)
def test_a_picture_of_another_format_is_unsupported(
    content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "ACCEPTED", pictures.ACCEPTED[:6])  # as without the extra
    assert code(content) == "unsupported_format"


def test_the_extra_brings_what_pillow_can() -> None:
    more = ["HEIF", "AVIF"] if features.check("avif") else ["HEIF"]
    assert pictures.ACCEPTED[6:] == more


@pytest.mark.parametrize("format_", pictures.ACCEPTED[6:])
def test_the_formats_of_phones_are_taken_where_the_extra_is_installed(format_: str) -> None:
    picture = Image.linear_gradient("L").convert("RGB").resize((64, 48))
    content = encoded(picture, format_, quality=90)
    assert np.abs(decode(content, LIMIT).astype(int) - np.asarray(picture)).mean() < 4
    assert code(content, 64 * 48 - 1) == "too_large"
    assert code(content[: len(content) // 2]) == "not_an_image"
    turned = Image.Exif()
    turned[0x0112] = 6
    picture.info["exif"] = turned.tobytes()  # HEIF's encoder makes a turn of its own of it
    options = {"exif": turned} if format_ == "AVIF" else {}
    assert decode(encoded(picture, format_, **options), LIMIT).shape == (64, 48, 3)


@pytest.mark.parametrize("side", [7072, 10_000, 13_000, 30_000, 2**31 - 1])
def test_a_bomb_is_too_large_by_its_header(side: int) -> None:
    assert code(png(side, side)) == "too_large"


def test_the_limit_is_on_pixels_inclusive() -> None:
    content = encoded(Image.new("L", (10, 10)))
    assert decode(content, 100).shape == (10, 10, 3)
    assert code(content, 99) == "too_large"


def test_a_gif_whose_frame_is_larger_than_its_screen_is_too_large() -> None:
    content = bytearray(encoded(Image.new("L", (4, 4)), "GIF"))
    frame = content.index(b",", 13)
    content[frame + 5 : frame + 9] = struct.pack("<HH", 60_000, 60_000)
    assert code(bytes(content)) == "too_large"


@pytest.mark.parametrize("picture_format", ["png", "webp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_png_and_webp_are_lossless(picture_format: PictureFormat, channels: int) -> None:
    pixels = noise(9, 7, channels)
    content = encode(pixels, picture_format)
    assert np.array_equal(decode(content, LIMIT), np.broadcast_to(pixels, (9, 7, 3)))
    with Image.open(BytesIO(content)) as picture:
        assert Image.MIME[picture.format or ""] == MEDIA_TYPES[picture_format]


def test_jpeg_is_close() -> None:
    pixels = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    content = encode(pixels, "jpeg")
    assert content.startswith(b"\xff\xd8")
    assert np.abs(decode(content, LIMIT).astype(int) - pixels).max() <= 3


def test_metadata_is_not_logged_even_when_debugging(caplog: pytest.LogCaptureFixture) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Secret camera"
    content = encoded(Image.new("RGB", (4, 4)), "TIFF", exif=exif)
    with caplog.at_level(logging.DEBUG):
        decode(content, LIMIT)
    assert "Secret" not in caplog.text


# Photos


@pytest.mark.parametrize(
    ("long_side", "size", "shrunk"),
    [(None, (800, 600), 1), (800, (800, 600), 1), (401, (800, 600), 1), (400, (400, 300), 2),
     (150, (200, 150), 4), (1, (100, 75), 8)],
)  # fmt: skip
def test_a_jpeg_is_decoded_no_larger_than_it_must(
    long_side: int | None, size: tuple[int, int], shrunk: float
) -> None:
    content = encoded(Image.new("RGB", (800, 600), (200, 100, 50)), "JPEG", quality=95)
    photo = decode_photo(content, LIMIT, long_side)
    assert (photo.picture.size, photo.shrunk) == (size, shrunk)
    assert np.abs(np.asarray(photo.picture).astype(int) - (200, 100, 50)).max() <= 3


@pytest.mark.parametrize("size", [(4000, 3000), (4032, 3024), (3000, 4000)])
def test_what_phones_take_is_decoded_at_an_eighth(size: tuple[int, int]) -> None:
    content = encoded(Image.new("RGB", size), "JPEG")
    assert decode_photo(content, size[0] * size[1], LONG_SIDE).shrunk == 8


def test_a_turned_jpeg_is_decoded_smaller_and_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(Image.new("RGB", (800, 600)), "JPEG", exif=exif)
    photo = decode_photo(content, LIMIT, 200)
    assert (photo.picture.size, photo.shrunk) == ((150, 200), 4)


def test_other_formats_are_decoded_as_they_are() -> None:
    photo = decode_photo(encoded(Image.new("L", (800, 600))), LIMIT, 100)
    assert (photo.picture.size, photo.picture.mode, photo.shrunk) == ((800, 600), "RGB", 1)


@pytest.mark.parametrize(("width", "height", "small"), [(64, 64, True), (64, 65, False)])
def test_only_small_pngs_are_decoded_while_everybody_waits(
    width: int, height: int, small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(pictures, "decode_png", asked.append)
    pixels = noise(height, width)
    content = encoded(Image.fromarray(pixels))
    assert np.array_equal(decode(content, 10_000), pixels)
    assert asked == [content] * small
