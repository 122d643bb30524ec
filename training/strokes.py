"""Digits as a pen draws them: hand-made skeletons, bent at random.

Printed fonts teach f nothing of a slanted 1, a 2 with a loop or a 9 with a straight stem.
A skeleton is strokes between bars, a stroke is points x,y in hundredths, y down: two points make
a straight line, more a smooth curve through them.
"""

from random import Random

import numpy as np
import numpy.typing as npt

SKELETONS: dict[int, tuple[str, ...]] = {
    0: (
        "50,10 25,30 20,65 45,90 75,70 78,35 50,10",
        "60,14 30,25 22,70 50,90 78,60 70,20 45,12",
    ),
    1: (
        "50,8 50,92",
        "36,26 52,10 | 52,10 50,92",
        "36,26 52,10 | 52,10 50,90 | 30,90 72,90",
    ),
    2: (
        "25,30 42,11 67,17 68,40 48,65 25,88 | 25,88 77,87",
        "25,28 45,10 70,20 64,47 40,78 25,88 20,76 36,73 55,87 82,84",
    ),
    3: (
        "25,20 50,10 70,23 60,42 42,48 | 42,48 68,54 75,75 50,91 22,80",
        "25,13 70,13 | 70,13 45,43 | 45,43 70,52 74,75 50,91 23,82",
    ),
    4: (
        "30,10 22,52 | 22,52 78,50 | 68,15 62,92",
        "62,10 20,62 | 20,62 82,62 | 62,10 60,92",
        "28,12 25,42 45,52 68,42 | 70,12 64,92",
    ),
    5: (
        "72,12 34,12 | 34,12 29,45 | 29,45 56,40 74,60 65,84 42,91 22,80",
        "76,12 42,15 32,40 60,47 70,70 48,90 22,82",
    ),
    6: (
        "66,10 40,32 26,65 40,90 66,82 66,60 46,54 28,70",
        "45,8 30,45 29,80 50,92 70,77 56,60 31,75",
    ),
    7: (
        "22,15 76,15 | 76,15 56,50 42,92",
        "22,15 76,15 | 76,15 56,50 42,92 | 36,52 74,50",
        "23,30 25,14 | 25,14 50,17 76,13 | 76,13 60,50 55,92",
    ),
    8: (
        "68,20 46,10 30,26 50,47 70,70 50,90 30,72 50,47 70,28 66,18",
        "50,10 30,28 50,46 70,28 50,10 | 50,46 27,68 50,91 73,68 50,46",
    ),
    9: (
        "70,26 50,10 28,28 42,50 66,38 70,24 | 70,24 66,60 60,92",
        "70,26 50,10 28,28 42,50 66,38 70,24 | 70,24 72,60 58,88 32,88",
        "68,16 40,12 26,32 44,48 70,30 | 70,14 66,92",
    ),
}


def _strokes(skeleton: str) -> list[list[tuple[float, float]]]:
    """The points of each stroke, in the unit square."""
    return [
        [(int(x) / 100, int(y) / 100) for x, y in (point.split(",") for point in stroke.split())]
        for stroke in skeleton.split("|")
    ]


def _curve(points: npt.NDArray[np.float64], per_piece: int = 10) -> npt.NDArray[np.float64]:
    """A Catmull-Rom curve through points [N, 2], as a dense polyline [M, 2]."""
    padded = np.concatenate([points[:1], points, points[-1:]])
    u = np.linspace(0, 1, per_piece)[:, None]
    pieces = [
        0.5
        * (
            2 * b
            + (c - a) * u
            + (2 * a - 5 * b + 4 * c - d) * u**2
            + (3 * b - a - 3 * c + d) * u**3
        )
        for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False)
    ]
    return np.concatenate(pieces)


def pen_digit(digit: int, random: Random) -> list[npt.NDArray[np.float64]]:
    """The strokes of `digit`, each a dense polyline [M, 2] of points near the unit square.

    The same point of two strokes is moved alike, so that strokes that meet go on meeting.
    """
    strokes = _strokes(random.choice(SKELETONS[digit]))
    wobble = random.uniform(0.01, 0.05)
    narrow, slant = random.uniform(0.5, 1.05), random.uniform(-0.2, 0.55)
    angle = random.uniform(-0.15, 0.15)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shape = turn @ np.array([[narrow, -slant], [0, 1]])
    moved = {
        point: shape @ (np.array(point) - 0.5 + [random.gauss(0, wobble) for _ in range(2)]) + 0.5
        for stroke in strokes
        for point in stroke
    }
    return [_curve(np.array([moved[point] for point in stroke])) for stroke in strokes]
