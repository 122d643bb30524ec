"""Faces in a photo: found, then looked at closely and level, then aligned for a model.

Places in pictures are complex numbers, x + iy in pixels: then z -> p·z + q is every way to
turn, scale and shift, and dividing by p is how to undo it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from service.manifest import Alignment
from service.models import Floats, Model
from service.pictures import Photo, Pixels, decode_photo
from service.problems import Problem

LOOK = 640  # long side of the picture a face is first looked for in
SECOND_LOOK = 1280  # and, where none was found: what is small in the photo
GLANCE = 64  # long side that shows how bright a photo is
DARK = 128  # a photo is dark where 99 of 100 values are below this
# Where a found face is looked at again: the detector places eyes best that are level and this
# far apart, whatever the size and tilt of the face in the photo.
CLOSE = Alignment(side=256, left_eye=(0.39, 0.45), right_eye=(0.61, 0.45))
CLOSE_EYES = CLOSE.side * (CLOSE.right_eye[0] - CLOSE.left_eye[0])
# How far Pillow may average whole pixels before it filters: twice as large as what is wanted.
GAP = 2.0
MOST_TRIED = 5  # faces looked at again before the photo counts as having none

# Distance of the eyes over that from eyes to mouth, and where between the eyes (0 to 1) the
# nose is: beyond these a face is in profile, upside down, or none. Of 700 faces in Labeled Faces
# in the Wild, 0.4 % lie outside.
EYES_TO_MOUTH = 0.55, 1.5
NOSE = -0.2, 1.2


@dataclass(frozen=True)
class Face:
    """A face, in pixels of the picture it was found in; what is cut off reaches beyond that."""

    box: tuple[float, float, float, float]  # x0, y0, x1, y1
    score: float
    left_eye: complex  # left in the picture, seen by who looks at it
    right_eye: complex

    @property
    def area(self) -> float:
        x0, y0, x1, y1 = self.box
        return (x1 - x0) * (y1 - y0)


@dataclass(frozen=True)
class Found:
    """The face that was asked for, and all of the photo's, the largest first.

    Boxes are x, y, width, height in pixels of the upright photo as it was sent.
    """

    aligned: Pixels  # as the model wants it, uint8 [side, side, 3]
    box: tuple[int, int, int, int]
    score: float
    boxes: list[tuple[int, int, int, int]]


def find_face(content: bytes, model: Model, wanted: int | None, max_pixels: int) -> Found:
    """One face of an encoded photo: of all faces, ordered by size, number `wanted`.

    Without a number it is the largest that stands a second look. Raises Problem: no_face;
    invalid_parameter where there are fewer faces; and as decode_photo and Model do.
    """
    alignment = model.face_alignment()
    photo = decode_light(content, max_pixels, SECOND_LOOK)
    for look in looks(photo.picture):
        faces = detect(look, model, photo.picture.width / look.width)
        if wanted is not None and 0 < len(faces) <= wanted:
            count = f"{len(faces)} face{'s' if len(faces) > 1 else ''}"
            raise Problem("invalid_parameter", f"face: {wanted} is asked for, there are {count}")
        for face in faces[:MOST_TRIED] if wanted is None else faces[wanted : wanted + 1]:
            seen = look_closer(photo.picture, face, model)
            if seen is not None:
                larger, seen = with_detail(photo, seen, content, max_pixels)
                square = align(larger.picture, seen, alignment)
                boxes = [pixel_box(each, photo) for each in faces]
                return Found(np.asarray(square), boxes[faces.index(face)], face.score, boxes)
    raise Problem("no_face", "no face was found that looks at least half towards the camera")


def decode_light(content: bytes, max_pixels: int, long_side: int) -> Photo:
    """The photo, large enough for long_side; where it is dark, with its contrast stretched.

    Neither the detector nor f has seen many faces in the dark.
    """
    photo = decode_photo(content, max_pixels, long_side)
    if np.percentile(np.asarray(shrink(photo.picture, GLANCE)), 99) >= DARK:
        return photo
    return Photo(ImageOps.autocontrast(photo.picture, 1, preserve_tone=True), photo.shrunk)


def looks(picture: Image.Image) -> Iterator[Image.Image]:
    """What a face is looked for in until one is found: the photo small, then larger."""
    yield shrink(picture, LOOK)
    if max(picture.size) > LOOK:
        yield shrink(picture, SECOND_LOOK)


def shrink(picture: Image.Image, long_side: int) -> Image.Image:
    """The picture with its long side at most so long, averaged so that nothing aliases."""
    factor = long_side / max(picture.size)
    if factor >= 1:
        return picture
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    return picture.resize(size, Image.Resampling.BOX, reducing_gap=GAP)


def detect(picture: Image.Image, model: Model, scale: float) -> list[Face]:
    """Faces that can be aligned, largest first, their places multiplied by `scale`."""
    boxes, scores, points = model.detect(np.asarray(picture))
    faces = []
    for box, score, five in zip(boxes * scale, scores, points * scale, strict=True):
        if looks_here(five):
            x0, y0, x1, y1 = map(float, box)
            left, right = complex(*five[0]), complex(*five[1])
            faces.append(Face((x0, y0, x1, y1), float(score), left, right))
    return sorted(faces, key=lambda face: face.area, reverse=True)


def looks_here(five: Floats) -> bool:
    """Whether eyes, nose and mouth [5, 2] lie as in a face that can be aligned by its eyes."""
    left, right, nose, mouth_left, mouth_right = (complex(x, y) for x, y in five)
    eyes, mouth = right - left, (mouth_left + mouth_right) / 2 - (left + right) / 2
    if not eyes or not mouth:
        return False
    ratio, nose_at = abs(eyes) / abs(mouth), ((nose - left) / eyes).real
    # The mouth lies a quarter turn clockwise of the eyes: below them, in a face that is upright.
    below = (mouth / eyes).imag > 0
    return below and EYES_TO_MOUTH[0] < ratio < EYES_TO_MOUTH[1] and NOSE[0] < nose_at < NOSE[1]


def look_closer(picture: Image.Image, face: Face, model: Model) -> Face | None:
    """The face with its eyes placed anew; None where it is none when seen at its best."""
    p, q = placement(face, CLOSE)
    close = align(picture, face, CLOSE, Image.Resampling.BILINEAR)
    middle = CLOSE.side * (eye(CLOSE.left_eye) + eye(CLOSE.right_eye)) / 2
    best, nearest = None, CLOSE_EYES / 2
    for seen in detect(close, model, 1.0):
        off = abs((seen.left_eye + seen.right_eye) / 2 - middle)
        if off < nearest:
            left, right = p * seen.left_eye + q, p * seen.right_eye + q
            best, nearest = Face(face.box, face.score, left, right), off
    return best


def with_detail(photo: Photo, face: Face, content: bytes, max_pixels: int) -> tuple[Photo, Face]:
    """Photo and face, decoded anew with more pixels where a small face wants them."""
    factor = CLOSE_EYES / abs(face.right_eye - face.left_eye)
    if photo.shrunk <= 1 or factor <= 1:
        return photo, face
    larger = decode_light(content, max_pixels, math.ceil(max(photo.picture.size) * factor))
    scale = photo.shrunk / larger.shrunk
    x0, y0, x1, y1 = (scale * side for side in face.box)
    left, right = face.left_eye * scale, face.right_eye * scale
    return larger, Face((x0, y0, x1, y1), face.score, left, right)


def eye(place: tuple[float, float]) -> complex:
    """A place in an Alignment, in sides of its square."""
    return complex(*place)


def placement(face: Face, alignment: Alignment) -> tuple[complex, complex]:
    """p, q such that the aligned square's z lies at p·z + q in the picture of the face."""
    left, right = eye(alignment.left_eye), eye(alignment.right_eye)
    p = (face.right_eye - face.left_eye) / (alignment.side * (right - left))
    return p, face.left_eye - p * alignment.side * left


def align(
    picture: Image.Image,
    face: Face,
    alignment: Alignment,
    kernel: Image.Resampling = Image.Resampling.BICUBIC,
) -> Image.Image:
    """The square of an alignment: the face turned, scaled and shifted so that its eyes fit.

    What is larger in the picture is averaged down before it is turned, so that nothing
    aliases. Beyond the picture its edge is repeated.
    """
    p, q = placement(face, alignment)
    side = alignment.side
    corners = [q, q + p * side, q + p * side * 1j, q + p * side * (1 + 1j)]
    margin = 3 * max(1.0, abs(p))  # what a kernel reaches for, a bicubic one furthest
    x0, y0, x1, y1 = (
        math.floor(min(z.real for z in corners) - margin),
        math.floor(min(z.imag for z in corners) - margin),
        math.ceil(max(z.real for z in corners) + margin),
        math.ceil(max(z.imag for z in corners) + margin),
    )
    # The part of it that the picture has, at least a pixel of its edge.
    left, right = clamp(x0, x1, picture.width)
    top, bottom = clamp(y0, y1, picture.height)
    shrunk = max(1.0, abs(p))
    width, height = math.ceil((right - left) / shrunk), math.ceil((bottom - top) / shrunk)
    part = picture.resize((width, height), kernel, (left, top, right, bottom), GAP)
    per_x, per_y = width / (right - left), height / (bottom - top)
    before = math.ceil(max(0, left - x0) * per_x), math.ceil(max(0, top - y0) * per_y)
    after = math.ceil(max(0, x1 - right) * per_x), math.ceil(max(0, y1 - bottom) * per_y)
    pads = ((before[1], after[1]), (before[0], after[0]), (0, 0))
    padded = Image.fromarray(np.pad(np.asarray(part), pads, mode="edge"))
    # From the square's x, y to the padded part's: p·z + q, then what the lines above did.
    corner = q - complex(left, top)
    matrix = (
        p.real * per_x, -p.imag * per_x, corner.real * per_x + before[0],
        p.imag * per_y, p.real * per_y, corner.imag * per_y + before[1],
    )  # fmt: skip
    return padded.transform((side, side), Image.Transform.AFFINE, matrix, kernel)


def clamp(start: int, end: int, size: int) -> tuple[int, int]:
    """The part of start..end that is in 0..size, at least one wide."""
    start = min(max(start, 0), size - 1)
    return start, max(start + 1, min(end, size))


def pixel_box(face: Face, photo: Photo) -> tuple[int, int, int, int]:
    """A face's box in the photo as sent, cut off at its edges: x, y, width, height."""
    width, height = (round(side * photo.shrunk) for side in photo.picture.size)
    x0, y0, x1, y1 = (round(side * photo.shrunk) for side in face.box)
    x0, x1 = clamp(x0, x1, width)
    y0, y1 = clamp(y0, y1, height)
    return x0, y0, x1 - x0, y1 - y0
