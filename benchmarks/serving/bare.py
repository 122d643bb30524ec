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
HELD_S = 4.0  # where the environment does not say how long a server is driven

Work = Callable[[Any, Pixels], object]  # a session, a batch uint8 [N, 32, 32, 3]


def fastest(model: str, work: Work) -> dict[str, float]:
    """Images per second of CPU at the size of batches that is the fastest.

    That size is told by short slices, of which the best counts: the one that the machine disturbed
    least. `images_per_core_s` is then held as long as a server is driven, with whatever disturbs a
    server, too; `slice_per_core_s` is the best slice.
    """
    with TemporaryDirectory() as folder:
        os.environ |= {"BENCH_MODEL": model, "BENCH_LOCK": str(Path(folder) / "lock")}
        session = open_session()
        speeds = dict.fromkeys(BATCHES, 0.0)
        for _ in range(SLICES):  # by turns: a minute may be slower than the next
            for batch in BATCHES:
                speeds[batch] = max(speeds[batch], images_per_core_s(session, batch, work, SLICE_S))
        batch = max(speeds, key=speeds.__getitem__)
        seconds = float(os.environ.get("BENCH_SECONDS", HELD_S))
        held = images_per_core_s(session, batch, work, seconds)
    return {"images_per_core_s": held, "slice_per_core_s": speeds[batch], "batch": batch}


def images_per_core_s(session: Any, batch: int, work: Work, seconds: float) -> float:
    """Images per second of this process's CPU."""
    x = photos(batch)
    images, start, end = 0, time.process_time(), time.monotonic() + seconds
    while time.monotonic() < end:
        work(session, x)
        images += batch
    return images / (time.process_time() - start)


def run_alone(session: Any, x: Pixels) -> object:
    return session.run(["y"], {"x": x})


if __name__ == "__main__":
    print(json.dumps(fastest(sys.argv[1], run_alone)))
