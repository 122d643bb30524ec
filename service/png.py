"""PNG without detours: the small, plain files that most requests carry, in and out.

Of a picture of 32 x 32 pixels Pillow's reader makes more work than the pixels do, and so does
compressing the answer. Here libspng reads, and the smallest answers are not compressed at all.
"""

import struct
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyspng
from zlib_ng import zlib_ng

SIGNATURE = b"\x89PNG\r\n\x1a\n"
START = SIGNATURE + b"\x00\x00\x00\x0dIHDR"
HEADER = struct.Struct(">IIBBBBB")  # width, height, bits, colour type, three methods
NUMBER = struct.Struct(">I")
END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
GREY, RGB = 0, 2  # colour types
# Chunks that change what is seen: transparency, orientation, animation.
MEANINGFUL = frozenset((b"tRNS", b"eXIf", b"acTL"))
# Up to so many pixels a PNG is a matter of microseconds: not worth handing to a thread, nor
# filtering, which makes larger ones smaller.
SMALL = 64 * 64
# Up to so many bytes of rows are stored as they are: a digit would lose a fifth of its 1,056.
STORED = 2048
COMPRESSION = 1  # of larger ones: a sixth of the time that zlib takes, for a sixth more bytes
FILTERED_COMPRESSION = 2  # of those not SMALL: a fifth of Pillow's time, for a tenth more bytes
NONE, UP = 0, 2  # filters: the pixels themselves, what they are above those a row higher


def png_size(content: bytes) -> tuple[int, int] | None:
    """Width and height where a file begins as a plain PNG does: 8 bits, grey or RGB."""
    if not content.startswith(START) or len(content) < len(START) + HEADER.size:
        return None
    width, height, bits, colour, *methods = HEADER.unpack_from(content, len(START))
    plain = bits == 8 and colour in (GREY, RGB) and not any(methods)
    return (width, height) if plain and width and height else None


def is_small_png(content: bytes, most: int = SMALL) -> bool:
    """Whether a file begins as a plain PNG of up to `most` pixels does."""
    size = png_size(content)
    return size is not None and size[0] * size[1] <= most


def decode_png(content: bytes) -> npt.NDArray[np.uint8] | None:
    """A plain PNG as uint8 [H, W, 3]; None where Pillow's reader has to look. Keeps the GIL."""
    at = len(SIGNATURE)
    while (length := int.from_bytes(content[at : at + 4])) + at + 12 <= len(content):
        kind, end = content[at + 4 : at + 8], at + 8 + length
        if kind in MEANINGFUL:
            return None
        # libspng does not look at the checksums of the header and the end.
        if zlib_ng.crc32(content[at + 4 : end]) != int.from_bytes(content[end : end + 4]):
            return None
        if kind == b"IEND":
            break
        at = end + 4
    else:
        return None
    try:
        pixels: npt.NDArray[np.uint8] = pyspng.load(content, "RGB")
    except RuntimeError:  # libspng's word for all that is wrong with a file
        return None
    return pixels


def encode_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """uint8 [h, w, 1 or 3] as a PNG without metadata."""
    height, width, colours = pixels.shape
    small = height * width <= SMALL
    rows = np.empty((height, 1 + width * colours), np.uint8)  # each begins with its filter
    rows[:, 0] = NONE if small else UP
    rows[:, 1:] = pixels.reshape(height, -1)
    if not small:
        rows[1:, 1:] -= pixels[:-1].reshape(height - 1, -1)
    if rows.size <= STORED:
        packed = stored(rows.tobytes())
    else:
        packed = zlib_ng.compress(rows.tobytes(), COMPRESSION if small else FILTERED_COMPRESSION)
    return b"".join((beginning(height, width, colours), chunk(b"IDAT", packed), END))


@lru_cache(maxsize=64)
def beginning(height: int, width: int, colours: int) -> bytes:
    """A file's signature and header."""
    colour = GREY if colours == 1 else RGB
    return SIGNATURE + chunk(b"IHDR", HEADER.pack(width, height, 8, colour, 0, 0, 0))


def chunk(kind: bytes, content: bytes) -> bytes:
    """A part of a file, between its length and its checksum."""
    check = zlib_ng.crc32(content, zlib_ng.crc32(kind))
    return b"".join((NUMBER.pack(len(content)), kind, content, NUMBER.pack(check)))


def stored(content: bytes) -> bytes:
    """A zlib stream of one block, 65,535 bytes at most, without compression (RFC 1950, 1951)."""
    length = len(content)
    head = b"\x78\x01\x01" + struct.pack("<HH", length, length ^ 0xFFFF)
    return b"".join((head, content, NUMBER.pack(zlib_ng.adler32(content))))
