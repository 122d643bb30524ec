"""Avatars from artwork that is made here: a coloured box for every part."""

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest

from tests.training.small import write_artwork
from training.avatars import (
    BALD,
    SKIN,
    Artwork,
    Avatar,
    _between,
    avatars,
    compose,
    rasterise,
    sample,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_artwork(tmp_path_factory.mktemp("facesjs"))


def test_a_seed_is_an_avatar() -> None:
    assert sample(Random(3)) == sample(Random(3))
    assert sample(Random(3)) != sample(Random(4))


def test_samples_are_plausible_and_even() -> None:
    many = [sample(Random(i)) for i in range(2000)]
    women = [a for a in many if a.woman]
    assert 0.45 < len(women) / len(many) < 0.55
    assert all(a.beard == "none" and a.stubble == 0 and a.hair not in BALD for a in women)
    assert 0.1 < np.mean([a.glasses != "none" for a in many]) < 0.3
    assert {a.hair_name for a in many if a.tone > 0.6} <= {
        "black", "dark brown", "brown", "light brown", "grey", "white"
    }  # fmt: skip
    assert all(a.age > 0.7 for a in many if a.hair_name in ("grey", "white"))
    tones = np.histogram([a.tone for a in many], 4, (0, 1))[0]
    assert tones.min() > 0.1 * len(many)


def test_a_scale_of_colours_passes_through_each() -> None:
    assert _between(SKIN, 0) == SKIN[0]
    assert _between(SKIN, 1) == SKIN[-1]
    assert _between(((0, 0, 0), (10, 20, 30)), 0.5) == (5, 10, 15)


def test_a_box_is_that_of_the_shape_without_its_stroke(folder: Path) -> None:
    assert Artwork(folder).box("nose", "nose1") == pytest.approx((190, 360, 210, 380))


def test_eyes_lie_where_photographs_have_them(folder: Path) -> None:
    avatar = sample(Random(0))
    artwork = Artwork(folder)
    artwork.parts["glasses"] = artwork.parts["hair"] = artwork.parts["eyebrow"] = {}
    side = 400
    picture = rasterise(compose(avatar, artwork, side)).astype(int)
    green = (picture[..., 1] > 200) & (picture[..., 0] < 60) & (picture[..., 2] < 60)
    rows, columns = np.nonzero(green)  # the artwork's eyes are green
    left = columns < side / 2
    for half, x in ((left, 0.365), (~left, 0.635)):
        assert columns[half].mean() / side == pytest.approx(x, abs=0.01)
        assert rows[half].mean() / side == pytest.approx(0.48, abs=0.01)


def test_skin_and_hair_have_their_colours(folder: Path) -> None:
    avatar = sample(Random(1))
    picture = rasterise(compose(avatar, Artwork(folder), 152))
    colours = {tuple(pixel) for pixel in picture.reshape(-1, 3).tolist()}
    assert avatar.skin in colours
    assert avatar.hair_colour in colours or avatar.hair in BALD


def test_many_are_drawn_alike_at_any_size(folder: Path) -> None:
    attributes, (small, large) = avatars(6, folder, (16, 64), seed=2, processes=1)
    assert small.shape == (6, 16, 16, 3)
    assert large.shape == (6, 64, 64, 3)
    assert len({picture.tobytes() for picture in large}) == 6
    shrunk = large.reshape(6, 16, 4, 16, 4, 3).mean((2, 4))
    assert np.abs(shrunk - small).mean() < 6
    again = Avatar(**json.loads(json.dumps(attributes[0])))
    assert again.hair == attributes[0]["hair"]


def test_missing_artwork_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"svgs\.js is missing"):
        Artwork(tmp_path)
