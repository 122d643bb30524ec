"""Eq. 8: of several photos of one person, the one of which least is lost.

x* = argmin over the photos x of ‖f(x) − f(G(x))‖
"""

import math
from collections.abc import Iterable


def best(distances: Iterable[float | None]) -> int | None:
    """Index of the photo with the smallest distance, the first of equals.

    A photo of which there is no emoji has None, or no number, and is never the best. None
    where no photo has a distance.
    """
    usable = [(d, i) for i, d in enumerate(distances) if d is not None and math.isfinite(d)]
    return min(usable)[1] if usable else None
