"""What every server runs: the shipped graph on the CPU, or a stand-in for a device.

Peers import this in environments of their own: it needs numpy and, for the graph, onnxruntime.
The environment says which of the two, see `serving`.
"""

import fcntl
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

ROOT = Path(__file__).resolve().parents[2]
GRAPH = ROOT / "models" / "digits" / "model.onnx"
SIDE = 32
MAX_BATCH = 32
MAX_WAIT_MS = 2  # of the peers whose batcher waits for a batch to fill


class StandIn:
    """A device in place of an onnxruntime session: uint8 [N, H, W, 3] -> uint8 [N, 32, 32, 1].

    All processes share it, through a lock on a file. A call takes `call_ms` and, for each
    picture, `image_ms`, so that batches pay as they do on a GPU; the caller sleeps meanwhile
    and so leaves the GIL to others. What it answers is a picture's green channel, by which a
    mixed-up answer is told from the right one and which takes hardly any CPU, as a GPU does.
    """

    def __init__(
        self, lock: Path, call_ms: float = 1.0, image_ms: float = 0.02, log: Path | None = None
    ) -> None:
        self.lock, self.call_ms, self.image_ms, self.log = lock, call_ms, image_ms, log

    def run(self, names: Sequence[str], feed: Mapping[str, Pixels]) -> list[Pixels]:
        """As InferenceSession.run; writes the number of pictures to the log, where there is one."""
        x = feed["x"]
        # Opened for each call: locks of one open file would not exclude threads or forks.
        with self.lock.open("w") as device:
            fcntl.flock(device, fcntl.LOCK_EX)
            if self.log is not None:
                with self.log.open("a") as log:
                    log.write(f"{len(x)}\n")
            time.sleep((self.call_ms + self.image_ms * len(x)) / 1000)
        return [green(x)]


def green(x: Pixels) -> Pixels:
    """A channel: uint8 [N, H, W, 3] -> [N, 32, 32, 1]; of other sizes, the nearest pixels."""
    if x.shape[1:3] != (SIDE, SIDE):
        rows = np.arange(SIDE) * x.shape[1] // SIDE
        columns = np.arange(SIDE) * x.shape[2] // SIDE
        x = x[:, rows[:, None], columns]
    return np.ascontiguousarray(x[..., 1:2])


def stand_in() -> StandIn:
    """The stand-in that the environment describes."""
    log = os.environ.get("BENCH_DEVICE_LOG")
    return StandIn(
        Path(os.environ["BENCH_LOCK"]),
        float(os.environ.get("BENCH_CALL_MS", "1")),
        float(os.environ.get("BENCH_IMAGE_MS", "0.02")),
        Path(log) if log else None,
    )


def open_session(tuned: bool = True) -> Any:
    """What a peer calls .run(["y"], {"x": uint8 [N, 32, 32, 3]}) of.

    `tuned` sessions keep to one thread each and do not spin, which is best for a server that
    runs one session per core. Others are onnxruntime's default.
    """
    return stand_in() if os.environ["BENCH_MODEL"] == "standin" else open_graph(tuned)


def open_graph(tuned: bool = True) -> Any:
    """An onnxruntime session of the shipped graph."""
    import onnxruntime as ort  # noqa: PLC0415 - the stand-in does without

    options = ort.SessionOptions()
    if tuned:
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(GRAPH, options, providers=["CPUExecutionProvider"])


def model_workers() -> int:
    """Processes that run the model: one per core, but one for the one device."""
    return 1 if os.environ["BENCH_MODEL"] == "standin" else len(os.sched_getaffinity(0))


def port(number: int = 0) -> int:
    """The port to listen on; further ones for peers that insist on several."""
    return int(os.environ["BENCH_PORTS"].split(",")[number])
