import time

import numpy as np
import pytest
from PIL import Image

from service.emoji import draw_emoji, finish, sized
from service.models import Model, Models
from service.problems import Problem
from tests.service.dummy import encoded, noise
from tests.service.dummy_faces import photo_of, write_face_model

PHOTO = encoded(photo_of((60, 80, 120, "red")))
PIXELS = 1_000_000


@pytest.fixture(scope="module")
def model(models: Models) -> Model:
    return models.find("emoji")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model of faces without an upscaler."""
    return Model(write_face_model(tmp_path_factory.mktemp("plain"), upscale=False), "cpu")


def test_an_emoji_is_what_the_model_makes_of_the_aligned_face(model: Model) -> None:
    emoji = draw_emoji(PHOTO, model, max_pixels=PIXELS)
    y, (f_distance,) = model(emoji.found.aligned[np.newaxis], distance=True)
    assert np.array_equal(emoji.y, y[0])
    assert emoji.f_distance == f_distance


def test_the_small_sizes_are_averages_of_the_large_one(model: Model) -> None:
    y = noise(64, 64)
    large = sized(y, 512, model).astype(float)
    assert np.array_equal(sized(y, 64, model), y)
    for size in (128, 256):
        n = 512 // size
        means = large.reshape(size, n, size, n, 3).mean((1, 3))
        assert np.abs(sized(y, size, model) - means).max() <= 0.5


def test_without_an_upscaler_the_emoji_is_enlarged_smoothly(plain: Model) -> None:
    y = noise(64, 64)
    assert np.array_equal(sized(y, 64, plain), y)
    for size in (128, 256, 512):
        lanczos = Image.fromarray(y).resize((size, size), Image.Resampling.LANCZOS)
        assert np.array_equal(sized(y, size, plain), np.asarray(lanczos))


def test_an_emoji_is_encoded_as_asked_for(model: Model) -> None:
    result = finish(noise(64, 64), 0.5, model, 128, "webp")
    assert (result.width, result.height, result.media_type) == (128, 128, "image/webp")
    assert result.f_distance == 0.5


def test_past_the_deadline_nothing_is_begun(model: Model) -> None:
    with pytest.raises(Problem) as raised:
        draw_emoji(PHOTO, model, max_pixels=PIXELS, deadline=time.monotonic() - 1)
    assert raised.value.code == "deadline_exceeded"


def test_a_distance_that_is_no_number_is_no_emoji(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Model, "__call__", lambda self, x, distance: (x, [None]))
    with pytest.raises(Problem, match="can make nothing of this face"):
        draw_emoji(PHOTO, model, max_pixels=PIXELS)
