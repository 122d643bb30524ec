"""Avatars as g might draw them: how often and how much of each way of spoiling."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from training.degradation import ERASED, RADII, Degradation, degrade, misdrawn, scratched
from training.places import positions

# Far from any nose.
CORNER = torch.full((1, 2, 1, 1), -0.9)
NOTHING = Degradation(
    clean=0, bend=0, blur=0, drift=0, grain=0, noise=0, dots=0, scratches=0, misdrawn=0
)


def test_clean_inputs_are_left_alone_and_others_are_not() -> None:
    x = torch.rand(200, 3, 16, 16) * 2 - 1
    half = Degradation(clean=0.5)
    y = degrade(x, CORNER, half, torch.Generator().manual_seed(0))
    kept = (x == y).flatten(1).all(1).float().mean()
    assert kept == pytest.approx(0.5, abs=0.1)
    assert y.abs().max() <= 1
    assert 0.02 < (x - y).abs().mean() < 0.5


def test_each_way_of_degrading_by_itself() -> None:
    edge = torch.full((50, 3, 16, 16), -0.5)
    edge[..., 8:] = 0.5
    random = torch.Generator().manual_seed(0)

    def changed(**only: float) -> Tensor:
        return degrade(edge, CORNER, dataclasses.replace(NOTHING, **only), random) - edge

    assert changed().abs().max() < 1e-5
    # 5/16 of the kernel lies beyond the edge, and half of `blur` is used on the average.
    assert changed(blur=1.0)[..., 7].mean() == pytest.approx(0.5 * 5 / 16, abs=0.05)
    assert changed(noise=0.1).std() == pytest.approx(0.1 / 3**0.5, rel=0.2)
    bent = changed(bend=0.6)
    assert bent[..., 7:9].std() > 0.05
    assert bent[..., :4].abs().max() < 1e-5  # flat colour has nothing to be pushed
    drift, grain = changed(drift=0.1), changed(grain=0.1)
    for difference, low, high in ((drift, 0.02, 0.08), (grain, 0.01, 0.06)):
        assert low < difference.std() < high
    steps = [(x[..., 1:] - x[..., :-1]).std() / x.std() for x in (drift, grain)]
    assert steps[0] < 0.3 < steps[1]  # one changes slowly, the other from blot to blot


def test_scratches_are_few_pixels_and_of_all_strengths() -> None:
    random = torch.Generator().manual_seed(0)
    plain = torch.full((400, 3, 32, 32), 0.3)
    touched = (scratched(plain, random) - plain).abs().amax(1)
    pixels = (touched > 0.01).flatten(1).sum(1)
    assert 3 < pixels.float().mean() < 8
    assert 10 < pixels.max() <= 32  # a stroke of 8 pixels
    strongest = touched.flatten(1).amax(1)
    assert strongest.min() < 0.1
    assert 1 < strongest.max() <= 1.3
    anywhere = F.max_pool2d(touched.amax(0, keepdim=True), 4)
    assert anywhere.min() > 0.1

    many = degrade(plain, CORNER, dataclasses.replace(NOTHING, scratches=4), random)
    untouched = (many == plain).flatten(1).all(1).float().mean()
    assert untouched == pytest.approx(1 / 5, abs=0.1)  # none to four, each as often


def test_dots_are_single_pixels_of_any_colour() -> None:
    plain = torch.zeros(400, 3, 32, 32)
    random = torch.Generator().manual_seed(0)
    dots = degrade(plain, CORNER, dataclasses.replace(NOTHING, dots=0.2), random)
    dotted = (dots != 0).any(1)
    assert dotted.float().mean() == pytest.approx(0.03, abs=0.005)
    beside = (dotted[:, 1:] & dotted[:, :-1]).float().mean()
    assert beside < 2 * dotted.float().mean() ** 2
    assert 0.15 < dots.abs().max() <= 0.2
    red, green = dots[:, 0][dotted], dots[:, 1][dotted]
    assert abs(torch.corrcoef(torch.stack([red, green]))[0, 1]) < 0.1


def test_misdrawn_places_have_the_next_picture_s_lines_or_none() -> None:
    x = torch.full((2, 3, 32, 32), -0.3)
    x[1] = 0.4
    x[0, ..., ::7] = -0.8  # 7 is the side of the mean that colours are
    batch = x.repeat(200, 1, 1, 1)
    lined, plain = (
        misdrawn(batch, torch.Generator().manual_seed(0)).view(200, 2, 3, 32, 32).unbind(1)
    )
    touched = ((lined - x[0]).abs() > 0.02).any(1).flatten(1).sum(1)
    assert touched.float().mean() > 15
    assert touched.max() < 4 * RADII[1] ** 2  # the ellipse's box

    def across(x: Tensor) -> Tensor:
        return (x[..., 1:] - x[..., :-1]).abs().mean((-3, -2, -1))

    fewer = across(lined) < across(x[0])  # the next picture has none, either
    assert fewer.float().mean() > 0.95
    drawn = across(plain) > 1e-5
    assert drawn.float().mean() == pytest.approx(1 - ERASED, abs=0.1)
    assert (plain - x[1]).mean((1, 2, 3)).abs().max() < 0.03  # it keeps its grey


@pytest.mark.parametrize("only", [{"scratches": 20}, {"misdrawn": 20}])
def test_noses_are_spared(only: dict[str, int]) -> None:
    random = torch.Generator().manual_seed(0)
    plain = torch.zeros(200, 3, 64, 64)
    plain[::2, :, ::3] = 0.5
    how = dataclasses.replace(NOTHING, **only)
    worse = degrade(plain, positions(64).unsqueeze(0), how, random)
    touched = (worse - plain).abs().amax((0, 1)) > 1e-5
    nose, face = touched[36:44, 28:36], touched[20:52, 20:44]
    assert not nose.any()
    assert face.float().mean() > 0.8
