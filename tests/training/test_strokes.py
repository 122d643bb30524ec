from random import Random

import numpy as np
import pytest

from training.strokes import SKELETONS, _curve, pen_digit


@pytest.mark.parametrize("digit", range(10))
def test_a_digit_lies_near_the_unit_square(digit: int) -> None:
    for seed in range(50):
        points = np.concatenate(pen_digit(digit, Random(seed)))
        assert points.min() > -0.6
        assert points.max() < 1.6
        assert np.ptp(points[:, 1]) > 0.5


def test_every_digit_has_more_than_one_hand() -> None:
    assert sorted(SKELETONS) == list(range(10))
    assert all(len(hands) >= 2 for hands in SKELETONS.values())


def test_strokes_that_meet_go_on_meeting() -> None:
    for seed in range(20):
        strokes = pen_digit(7, Random(seed))
        assert np.allclose(strokes[0][-1], strokes[1][0])


def test_a_curve_goes_through_its_points() -> None:
    points = np.array([(0.0, 0.0), (1.0, 2.0), (3.0, 1.0)])
    curve = _curve(points)
    for point in points:
        assert np.abs(curve - point).sum(1).min() < 1e-9
