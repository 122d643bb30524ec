"""A photo as users have it -> the bytes that are sent."""

import os
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image, ImageOps

from service.client.errors import PhotoError

Photo = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image

MAX_BYTES = 1024**3  # the most that any service can be set to take
PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
# By its first bytes; the service looks at the picture itself, a proxy may look at the type.
SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"RIFF", "image/webp"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
)


class EncodedPhoto(NamedTuple):
    """What is sent of a photo."""

    content: bytes
    media_type: str
    name: str | None  # of its file


def encode_photo(photo: Photo | EncodedPhoto) -> EncodedPhoto:
    """A path, the bytes of a file, an open file, or a PIL picture, as it is sent.

    A picture that is no file yet becomes a PNG, upright. Raises PhotoError where the photo
    cannot be read, is empty or larger than MAX_BYTES, TypeError where it is something else.
    """
    if isinstance(photo, EncodedPhoto):
        return photo
    name = None
    try:
        if isinstance(photo, bytes | bytearray | memoryview):
            content = bytes(photo)
        elif isinstance(photo, Image.Image):
            content = png_of(photo)
        elif isinstance(photo, str | os.PathLike):
            name = Path(photo).name
            with Path(photo).open("rb") as file:
                content = file.read(MAX_BYTES + 1)
        elif hasattr(photo, "read"):
            content = photo.read(MAX_BYTES + 1)
            named = getattr(photo, "name", None)  # an int, of a file opened by its descriptor
            name = Path(named).name if isinstance(named, str) else None
        else:
            raise TypeError(f"a photo is a path, bytes, a file or a picture, not {photo!r}"[:200])
    except (OSError, ValueError) as error:  # ValueError: a closed file, a null byte in a path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise PhotoError("unreadable", str(reason)) from error
    if not isinstance(content, bytes):
        raise TypeError("the file of a photo must be opened in binary mode")
    if not content:
        raise PhotoError("unreadable", "the photo is empty")
    if len(content) > MAX_BYTES:
        raise PhotoError("unreadable", f"the photo has more than {MAX_BYTES} bytes")
    known = (media_type for start, media_type in SIGNATURES if content.startswith(start))
    return EncodedPhoto(content, next(known, "image/unknown"), name)


def png_of(picture: Image.Image) -> bytes:
    """A PIL picture as a PNG, turned as its EXIF says: a PNG of ours carries none."""
    upright = ImageOps.exif_transpose(picture)
    if upright.mode not in PNG_MODES:
        upright = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
    file = BytesIO()
    upright.save(file, "PNG", compress_level=1)
    return file.getvalue()


def must_be_read_now(photo: Photo) -> bool:
    """Whether the caller may close or change it as soon as the next one is asked for."""
    return not isinstance(photo, str | os.PathLike | bytes)
