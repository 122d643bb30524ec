"""What a core could do if serving cost nothing: python -m benchmarks.serving.bare digits.

session.run alone at its best batch size, in images per second of one core. peers/bare_loop.py
measures the same with a decoder and an encoder around it. The race runs a process a core.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.serving.device import Pixels, open_session
from benchmarks.serving.pictures import photos

BATCHES = (1, 2, 4, 8, 16, 32, 64)
SLICE_S = 0.2
SLICES = 3

Work = Callable[[Any, Pixels], object]  # a session, a batch uint8 [N, 32, 32, 3]


def fastest(model: str, work: Work) -> dict[str, float]:
    """Images per second of CPU, and the size of the batches that were the fastest."""
    with TemporaryDirectory() as folder:
        os.environ |= {"BENCH_MODEL": model, "BENCH_LOCK": str(Path(folder) / "lock")}
        session = open_session()
        speeds = {batch: images_per_core_s(session, batch, work) for batch in BATCHES}
    batch = max(speeds, key=speeds.__getitem__)
    return {"images_per_core_s": speeds[batch], "batch": batch}


def images_per_core_s(session: Any, batch: int, work: Work) -> float:
    """The best of some short slices, which is the one that the machine disturbed least."""
    x = photos(batch)
    best = 0.0
    for _ in range(SLICES):
        images, start, end = 0, time.process_time(), time.monotonic() + SLICE_S
        while time.monotonic() < end:
            work(session, x)
            images += batch
        best = max(best, images / (time.process_time() - start))
    return best


def run_alone(session: Any, x: Pixels) -> object:
    return session.run(["y"], {"x": x})


if __name__ == "__main__":
    print(json.dumps(fastest(sys.argv[1], run_alone)))
