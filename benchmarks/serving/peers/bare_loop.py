"""Not a server: decode, session.run and encode in a loop on one thread, with OpenCV."""

import json
import os

import numpy as np

from benchmarks.serving.bare import fastest
from benchmarks.serving.peers.codec import decode, encode
from benchmarks.serving.pictures import encoded

FILES = {}  # by batch size


def loop(session, pixels):
    if len(pixels) not in FILES:
        FILES[len(pixels)] = [encoded(one) for one in pixels]
    x = np.stack([decode(file) for file in FILES[len(pixels)]])
    (y,) = session.run(["y"], {"x": x})
    return [encode(one) for one in y]


if __name__ == "__main__":
    print(json.dumps(fastest(os.environ["BENCH_MODEL"], loop)))
