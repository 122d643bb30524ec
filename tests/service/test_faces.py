import cmath
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service import faces
from service.faces import (
    LOOK,
    SECOND_LOOK,
    Face,
    align,
    decode_light,
    find_face,
    looks_here,
    pixel_box,
)
from service.manifest import Alignment
from service.models import Model, Models
from service.pictures import Photo
from service.problems import Problem
from tests.service.dummy import encoded, noise
from tests.service.dummy_faces import Blob, photo_of

ALIGNMENT = Alignment(side=152, left_eye=(0.365, 0.48), right_eye=(0.635, 0.48))
PIXELS = 50_000_000
RED = (60, 80, 120, "red")
LARGER = (220, 40, 160, "blue")


@pytest.fixture(scope="module")
def model(models: Models) -> Model:
    return models.find("emoji")


def found_in(model: Model, *blobs: Blob, wanted: int | None = None, **options: Any) -> faces.Found:
    return find_face(encoded(photo_of(*blobs, **options)), model, wanted, PIXELS)


def eyes_of(square: np.ndarray, colour: int) -> tuple[float, float]:
    """x of the dummy's eyes in an aligned picture of its blob."""
    blob = square[:, :, colour].astype(int) - square[:, :, (colour + 1) % 3] > 128
    (columns,) = np.nonzero(blob.any(0))
    left, width = columns[0], columns[-1] + 1 - columns[0]
    return left + 0.3 * width, left + 0.7 * width


# Which face


def test_the_largest_face_comes_first(model: Model) -> None:
    found = found_in(model, RED, LARGER)
    assert found.box == (220, 40, 160, 160)
    assert found.score == 1.0
    assert found.boxes == [(220, 40, 160, 160), (60, 80, 120, 120)]
    assert found.aligned.shape == (152, 152, 3)
    assert found.aligned.dtype == np.uint8


def test_another_face_can_be_asked_for(model: Model) -> None:
    found = found_in(model, RED, LARGER, wanted=1)
    assert (found.box, found.score) == ((60, 80, 120, 120), 0.75)
    assert eyes_of(found.aligned, 0) == pytest.approx((0.365 * 152, 0.635 * 152), abs=1.5)


@pytest.mark.parametrize(("wanted", "count"), [(2, "2 faces"), (99, "2 faces")])
def test_a_face_that_is_not_there_is_refused(model: Model, wanted: int, count: str) -> None:
    with pytest.raises(Problem, match=f"{wanted} is asked for, there are {count}") as raised:
        found_in(model, RED, LARGER, wanted=wanted)
    assert raised.value.code == "invalid_parameter"


@pytest.mark.parametrize("wanted", [None, 0, 3])
def test_a_photo_without_a_face_is_refused(model: Model, wanted: int | None) -> None:
    with pytest.raises(Problem) as raised:
        found_in(model, wanted=wanted)
    assert raised.value.code == "no_face"


def test_a_model_that_is_none_of_faces_is_refused(models: Models) -> None:
    with pytest.raises(Problem, match="digits@1 is no model of faces"):
        find_face(b"", models.find("digits"), None, PIXELS)


@pytest.mark.parametrize(
    ("box", "told"),
    [
        ((-40.0, 150.2, 60.4, 999.0), (0, 300, 121, 100)),
        ((20.0, 30.0, 20.1, 30.1), (40, 60, 1, 1)),
        ((-9.0, -9.0, -5.0, -5.0), (0, 0, 1, 1)),
    ],
)
def test_boxes_are_in_pixels_of_the_photo_as_sent(
    box: tuple[float, float, float, float], told: tuple[int, int, int, int]
) -> None:
    photo = Photo(Image.new("RGB", (300, 200)), shrunk=2.0)
    assert pixel_box(Face(box, 1.0, 0j, 1 + 0j), photo) == told


# Looks


@dataclass
class Detector:
    """A model that finds what `answer` says in the pictures it is shown, and notes their sizes."""

    answer: Callable[[np.ndarray], list[list[complex]]]
    sizes: list[tuple[int, int]] = field(default_factory=list)

    def face_alignment(self) -> Alignment:
        return ALIGNMENT

    def detect(self, x: np.ndarray) -> Any:
        self.sizes.append((x.shape[1], x.shape[0]))
        fives = self.answer(x)
        points = np.array([[(z.real, z.imag) for z in five] for five in fives], np.float32)
        points = points.reshape(-1, 5, 2)
        boxes = np.concatenate([points.min(1), points.max(1)], 1) if fives else np.empty((0, 4))
        return boxes.astype(np.float32), np.ones(len(fives), np.float32), points


def five(left: complex, right: complex, nose: complex = 0.5 + 0.5j) -> list[complex]:
    """The points of a face by its eyes; the nose, as all others, in units of the eyes."""
    return [left + (right - left) * z for z in (0, 1, nose, 0.1 + 1j, 0.9 + 1j)]


CLOSE_UP = five(0.39 * 256 + 0.45 * 256j, 0.61 * 256 + 0.45 * 256j)


def test_a_larger_look_follows_where_the_first_finds_nothing() -> None:
    def answer(x: np.ndarray) -> list[list[complex]]:
        if x.shape[0] == 256:
            return [CLOSE_UP]
        return [five(100 + 100j, 110 + 100j)] if x.shape[1] == SECOND_LOOK else []

    detector = Detector(answer)
    find_face(encoded(Image.new("RGB", (2000, 1000))), detector, None, PIXELS)  # type: ignore[arg-type]
    assert detector.sizes == [(LOOK, 320), (SECOND_LOOK, 640), (256, 256)]


def test_a_small_photo_is_looked_at_once_and_never_enlarged() -> None:
    detector = Detector(lambda x: [])
    with pytest.raises(Problem):
        find_face(encoded(Image.new("RGB", (90, 80))), detector, None, PIXELS)  # type: ignore[arg-type]
    assert detector.sizes == [(90, 80)]


def test_what_is_no_face_when_looked_at_closely_gives_way_to_the_next() -> None:
    larger, smaller = five(100 + 100j, 200 + 100j), five(300 + 100j, 340 + 100j)
    closely = iter([[], [CLOSE_UP]])
    detector = Detector(lambda x: next(closely) if x.shape[0] == 256 else [smaller, larger])
    found = find_face(encoded(Image.new("RGB", (400, 300))), detector, None, PIXELS)  # type: ignore[arg-type]
    assert len(found.boxes) == 2
    assert found.box == found.boxes[1]


def test_another_face_near_by_is_not_mistaken_for_the_one_looked_at() -> None:
    other = five(10 + 20j, 66 + 20j)
    detector = Detector(lambda x: [other] if x.shape[0] == 256 else [five(90 + 90j, 130 + 90j)])
    with pytest.raises(Problem) as raised:
        find_face(encoded(Image.new("RGB", (400, 300))), detector, None, PIXELS)  # type: ignore[arg-type]
    assert raised.value.code == "no_face"


def test_the_second_look_corrects_the_first(model: Model) -> None:
    """Eyes that are placed 8 pixels off at first end up where they are."""
    photo = encoded(photo_of(RED))

    def answer(x: np.ndarray) -> list[list[complex]]:
        (points,) = model.detect(x)[2]
        off = 0 if x.shape[0] == 256 else 8 - 6j
        return [[complex(*point) + off for point in points]]

    found = find_face(photo, Detector(answer), None, PIXELS)  # type: ignore[arg-type]
    assert eyes_of(found.aligned, 0) == pytest.approx((0.365 * 152, 0.635 * 152), abs=1.5)


@pytest.mark.parametrize(
    ("points", "usable"),
    [
        (five(10 + 10j, 50 + 10j), True),
        (five(10 + 10j, 10 + 50j), True),  # lies on its side
        (five(10 + 10j, 50 + 10j, nose=1.05 + 0.5j), True),
        (five(10 + 10j, 50 + 10j, nose=1.3 + 0.5j), False),  # in profile
        (five(10 + 10j, 50 + 10j, nose=-0.3 + 0.5j), False),
        ([0, 40, 20 + 20j, 100j, 40 + 100j], False),  # eyes too close
        ([0, 40, 20 + 5j, 10 + 20j, 30 + 20j], False),  # and too far apart
        ([0, 40, 20 - 20j, 4 - 40j, 36 - 40j], False),  # the mouth above the eyes
        ([5, 5, 5, 5, 5], False),
    ],
)
def test_only_faces_that_look_here_can_be_aligned(points: list[complex], usable: bool) -> None:
    five = np.array([(complex(z).real, complex(z).imag) for z in points], np.float32)
    assert looks_here(five) == usable


# Light and detail


def test_dark_photos_are_stretched_and_others_left_alone() -> None:
    grey = np.linspace(0, 255, 64, dtype=np.uint8)
    usual = np.repeat(np.broadcast_to(grey, (64, 64))[:, :, None], 3, 2)
    light = encoded(Image.fromarray(usual))
    dark = encoded(Image.fromarray((usual * 0.2).astype(np.uint8)))
    assert np.array_equal(np.asarray(decode_light(light, PIXELS, LOOK).picture), usual)
    assert np.percentile(np.asarray(decode_light(dark, PIXELS, LOOK).picture), 95) > 200


def test_a_black_photo_has_no_face(model: Model) -> None:
    with pytest.raises(Problem) as raised:
        found_in(model, grey=0)
    assert raised.value.code == "no_face"


def test_a_small_face_in_a_large_jpeg_is_decoded_with_its_detail(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    decode = faces.decode_photo

    def decode_noted(content: bytes, max_pixels: int, long_side: int) -> Photo:
        photo = decode(content, max_pixels, long_side)
        sizes.append(max(photo.picture.size))
        return photo

    monkeypatch.setattr(faces, "decode_photo", decode_noted)
    small, large = (2000, 1500, 200, "red"), (900, 900, 1500, "red")
    for blob, decoded in ((small, [2000, 4000]), (large, [2000])):
        sizes.clear()
        photo = encoded(photo_of(blob, size=(4000, 3000)), "JPEG", quality=95)
        found = find_face(photo, model, None, PIXELS)
        assert sizes == decoded
        assert found.box == pytest.approx(blob[:3] + blob[2:3], abs=4)
        assert eyes_of(found.aligned, 0) == pytest.approx((0.365 * 152, 0.635 * 152), abs=1.5)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_face_is_found_whatever_the_exif_says(model: Model, orientation: int) -> None:
    """The box is in the upright photo; the blob is off centre, so that each turn moves it."""
    turned = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    photo = photo_of(RED)
    stored = photo.transpose(turned[orientation]) if orientation > 1 else photo
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = find_face(encoded(stored, "JPEG", quality=95, exif=exif), model, None, PIXELS)
    assert found.box == pytest.approx((60, 80, 120, 120), abs=3)


# Alignment


def crosses(turn: float, scale: float, middle: complex, size: int) -> tuple[Image.Image, Face]:
    """A picture with a white dot at each eye of a face of this tilt and size."""
    half = scale * cmath.exp(1j * turn) / 2
    left, right = middle - half, middle + half
    y, x = np.mgrid[:size, :size] + 0.5
    at = x + 1j * y
    glow = sum(np.exp(-(np.abs(at - eye) ** 2) / (2 * (scale / 20) ** 2)) for eye in (left, right))
    grey = np.uint8(np.clip(255 * glow, 0, 255))
    return Image.fromarray(grey).convert("RGB"), Face((0, 0, 1, 1), 1.0, left, right)


@pytest.mark.parametrize("turn", [0, 0.3, -1.2, math.pi / 2, math.pi])
@pytest.mark.parametrize("scale", [25, 41.04, 160, 300])
def test_eyes_come_to_lie_where_they_must(turn: float, scale: float) -> None:
    size = int(scale * 6)
    square = align(*crosses(turn, scale, size * (0.45 + 0.52j), size), ALIGNMENT)
    grey = np.asarray(square)[:, :, 0].astype(float)
    assert grey.shape == (152, 152)
    weight = np.where(grey > 60, grey, 0)
    y, x = np.mgrid[:152, :152] + 0.5
    for half, expected in ((x < 76, 0.365), (x >= 76, 0.635)):
        w = weight * half
        assert (w * x).sum() / w.sum() == pytest.approx(152 * expected, abs=0.25)
        assert (w * y).sum() / w.sum() == pytest.approx(152 * 0.48, abs=0.25)


def test_nothing_aliases() -> None:
    """Of stripes far finer than the square's pixels only their average is left."""
    size = 1600
    stripes = np.zeros((size, size, 3), np.uint8)
    stripes[:, ::2] = 255
    face = Face((0, 0, 1, 1), 1.0, complex(600, 800), complex(1000, 800))
    inner = np.asarray(align(Image.fromarray(stripes), face, ALIGNMENT))[20:-20, 20:-20]
    assert inner.min() > 120
    assert inner.max() < 136


def test_beyond_the_photo_its_edge_is_repeated() -> None:
    photo = Image.new("RGB", (100, 100), (200, 100, 50))
    for left in (-30, 70, 300):
        face = Face((0, 0, 1, 1), 1.0, complex(left, 20), complex(left + 60, 20))
        square = np.asarray(align(photo, face, ALIGNMENT))
        assert np.abs(square.astype(int) - (200, 100, 50)).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1)])
def test_the_smallest_photos_can_be_aligned(size: tuple[int, int]) -> None:
    face = Face((0, 0, 1, 1), 1.0, complex(0, 0), complex(0.7, 0.3))
    assert align(Image.fromarray(noise(*size)), face, ALIGNMENT).size == (152, 152)
