"""Avatars as g might draw them: how often and how much of each way of spoiling."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from training.degradation import Degradation, degrade, scratched
from training.upscaler import positions

# Far from any nose.
CORNER = torch.full((1, 2, 1, 1), -0.9)
NOTHING = Degradation(clean=0, bend=0, blur=0, drift=0, grain=0, noise=0, scratches=0)


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


def test_noses_are_not_scratched() -> None:
    random = torch.Generator().manual_seed(0)
    plain, only = torch.zeros(200, 3, 64, 64), dataclasses.replace(NOTHING, scratches=20)
    touched = degrade(plain, positions().unsqueeze(0), only, random).abs().amax((0, 1)) > 0
    nose, face = touched[36:44, 28:36], touched[20:52, 20:44]
    assert not nose.any()
    assert face.float().mean() > 0.8
