import math

import pytest

from service.best import best


@pytest.mark.parametrize(
    ("distances", "index"),
    [
        ([0.5], 0),
        ([0.5, 0.2, 0.3], 1),
        ([0.2, 0.5, 0.2], 0),
        ([None, 0.5, None, 0.4], 3),
        ([0.0, -0.0], 0),
        ([math.nan, math.inf, 7.0], 2),
        ([None, math.nan], None),
        ([], None),
    ],
)
def test_the_smallest_distance_wins(distances: list[float | None], index: int | None) -> None:
    assert best(distances) == index
