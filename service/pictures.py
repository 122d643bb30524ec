"""Pictures in and out: encoded bytes <-> uint8 arrays [H, W, 3]."""

import importlib.util
import logging
import warnings
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError, features

from service.jpeg import decode_jpeg
from service.png import SMALL, decode_png, encode_png, is_small_png
from service.problems import Problem
from service.schemas import PictureFormat

Pixels = npt.NDArray[np.uint8]

MEDIA_TYPES: dict[PictureFormat, str] = {
    "png": "image/png",
    "webp": "image/webp",
    "jpeg": "image/jpeg",
}

# Decoders that strangers may reach. Pillow has forty more, few of them hardened.
ACCEPTED = ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"]
if importlib.util.find_spec("pillow_heif"):  # the extra `heif`, for photos as phones keep them
    importlib.import_module("pillow_heif").register_heif_opener(thumbnails=False)
    ACCEPTED += ["HEIF", *(["AVIF"] if features.check("avif") else [])]

# Of WebP's searches for the smallest file the quickest: 25 times as fast, a tenth more bytes.
WEBP = {"method": 0, "quality": 50}

# Starts of files that are pictures, but of formats not taken: who sends one should read
# "unsupported", not "not a picture". Offset, signature, name.
UNSUPPORTED = (
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (4, b"ftyphei", "HEIF"),
    (4, b"ftyphev", "HEIF"),
    (4, b"ftypmif1", "HEIF"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\x00\x00\x01\x00", "ICO"),
    (0, b"icns", "ICNS"),
    (0, b"<svg", "SVG"),
    (0, b"%PDF-", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"qoif", "QOI"),
    *((0, b"P%d%c" % (n, space), "PNM") for n in range(1, 8) for space in b" \n\r\t"),
)

# EXIF orientation (tag 0x0112) -> what makes the picture upright.
ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow only warns between one and two times its own limit; we want it to refuse. Its other
# warnings are about metadata that we drop, and its debug log would print that metadata.
warnings.filterwarnings("ignore", module=r"PIL\.")
warnings.simplefilter("error", Image.DecompressionBombWarning)
logging.getLogger("PIL").setLevel(logging.WARNING)


@dataclass(frozen=True)
class Photo:
    """A decoded photo, upright RGB, perhaps smaller than it was sent."""

    picture: Image.Image
    shrunk: float  # how many pixels of the photo as sent one of the picture's is wide


def decode(content: bytes, max_pixels: int, long_side: int | None = None) -> Pixels:
    """An encoded picture, upright, as uint8 [H, W, 3]. As decode_photo, Problems too."""
    # libspng's binding keeps the interpreter to itself: not for what takes longer.
    if is_small_png(content, min(SMALL, max_pixels)):
        pixels = decode_png(content)
        if pixels is not None:
            return pixels
    return np.asarray(decode_photo(content, max_pixels, long_side).picture)


def encodes_at_once(pixels: Pixels, picture_format: PictureFormat) -> bool:
    """Whether encode() takes microseconds."""
    return picture_format == "png" and pixels.shape[0] * pixels.shape[1] <= SMALL


def decode_photo(content: bytes, max_pixels: int, long_side: int | None = None) -> Photo:
    """An encoded photo; of a JPEG no more than long_side needs, of others every pixel.

    A JPEG can be decoded at a half, quarter or eighth of its size in a fraction of the time.
    Transparency is laid over white, animations give their first frame, greys of more than
    eight bits are scaled down to eight. Raises Problem: not_an_image, unsupported_format, or
    too_large, which is decided on the header, before pixels are decoded.
    """
    try:
        with Image.open(BytesIO(content), formats=ACCEPTED) as picture:
            sent = max(picture.size)
            if picture.width * picture.height > max_pixels:
                raise too_many_pixels(max_pixels)
            if long_side is not None and long_side < sent:
                width, height = (max(1, side * long_side // sent) for side in picture.size)
                picture.draft(None, (width, height))
            rgb = shrunk_jpeg(content, picture) if max(picture.size) < sent else None
            if rgb is None:
                picture.load()
                rgb = to_rgb(picture)
            # After load: some formats keep their orientation behind the pixels, and Pillow's
            # TIFF reader has by then turned the picture itself.
            turn = UPRIGHT.get(orientation(picture))
            return Photo(rgb.transpose(turn) if turn is not None else rgb, sent / max(rgb.size))
    except Problem:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise too_many_pixels(max_pixels) from error
    except UnidentifiedImageError as error:
        raise unidentified(content) from error
    except Exception as error:
        # Decoders fail on broken files with whatever comes: OSError, SyntaxError, ValueError,
        # struct.error, IndexError, zlib.error... None of it is the service's fault.
        raise Problem(
            "not_an_image", "the picture is truncated or broken, it cannot be decoded"
        ) from error


def shrunk_jpeg(content: bytes, picture: Image.Image) -> Image.Image | None:
    """A JPEG that Pillow has opened and drafted, where it can be decoded without Pillow."""
    if picture.format != "JPEG" or picture.mode != "RGB":
        return None
    pixels = decode_jpeg(content, *picture.size)
    return None if pixels is None else Image.fromarray(pixels)


def too_many_pixels(max_pixels: int) -> Problem:
    return Problem("too_large", f"the picture has more than {max_pixels} pixels")


def unidentified(content: bytes) -> Problem:
    """Tell a picture of a format we do not take from what is no picture at all."""
    for offset, signature, name in UNSUPPORTED:
        if name not in ACCEPTED and content.startswith(signature, offset):
            return Problem(
                "unsupported_format", f"{name} is not taken; send one of {', '.join(ACCEPTED)}"
            )
    return Problem("not_an_image", "the upload is not a picture")


def orientation(picture: Image.Image) -> int:
    """EXIF's 1 to 8; 1, upright, where there is none or it cannot be read."""
    try:
        value = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # broken metadata of a picture that is otherwise fine
        return 1
    return value if isinstance(value, int) else 1


def to_rgb(picture: Image.Image) -> Image.Image:
    """Any Pillow mode -> RGB."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        return Image.fromarray(eight_bits(np.asarray(picture))).convert("RGB")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        paper = Image.new("RGB", picture.size, "white")
        paper.paste(layer, mask=layer)
        return paper
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def eight_bits(grey: npt.NDArray[Any]) -> Pixels:
    """Greys of 16 or 32 bits or floats [H, W] -> uint8 [H, W].

    16 bits are divided by 257. Integers of 32 bits and floats do not say what white is: it is
    the least of 1, 255 and 65535 that no pixel exceeds; beyond these, or where pixels are
    negative, the picture's own range is stretched. Pixels that are no number become black.
    """
    if grey.dtype.itemsize == 2:
        # (v + 128) // 257 rounds v / 257, and needs no floats for it.
        return ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)
    values = grey.astype(np.float64)
    np.nan_to_num(values, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if low >= 0:
        low, high = 0.0, next((white for white in (1.0, 255.0, 65535.0) if high <= white), high)
    values -= low  # in place: eight bytes a pixel are a lot for a large picture
    values *= 255.0 / ((high - low) or 1.0)
    return np.rint(values, out=values).astype(np.uint8)


def encode(pixels: Pixels, picture_format: PictureFormat) -> bytes:
    """uint8 [h, w, 1 or 3] -> PNG or WebP, both lossless, or JPEG. No metadata is written."""
    if picture_format == "png":
        return encode_png(pixels)
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    file = BytesIO()
    if picture_format == "webp":
        picture.save(file, "WEBP", lossless=True, **WEBP)
    else:
        picture.save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()
