"""Runs of a graph on a GPU: on few threads, of few sizes, the small ones recorded as CUDA graphs.

onnxruntime makes handles and workspaces of CUDA's libraries anew for every thread that runs a
session, which takes long and much memory. For every new shape the libraries choose kernels anew and
memory grows, so each run has one of CUDA_SIZES, filled up with black. A run of few pictures is
hundreds of kernels, each done sooner than the next is launched; recorded, they are launched as one
(benchmarks/gpu/RESULTS.md).
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from threading import Barrier
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

CUDA_SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
RECORDED = 16  # pictures of the largest recorded run: what is larger keeps the GPU busy by itself
# Runs of one model at once: one computes while pictures of the next are copied. The second
# begins only when it is full; as long as the GPU keeps up, one run with all is sooner done.
LANES = 2
WARM_UP_S = 60.0  # that the threads wait for one another


class Recorded:
    """One shape of run as a CUDA graph: pictures are copied to where it reads them, and it runs.

    onnxruntime keeps the graph for the thread that ran first: all runs are to be of one thread.
    """

    def __init__(
        self, session: Any, feed: dict[str, Array], outputs: dict[str, Array], device: str
    ) -> None:
        """Of a session for the shape of `feed` alone; `outputs` are like what it answers."""
        ((name, x),) = feed.items()
        self.session = session
        self.x = ort.OrtValue.ortvalue_from_numpy(x, device, 0)
        self.binding = session.io_binding()
        self.binding.bind_ortvalue_input(name, self.x)
        self.outputs = []
        for wanted, like in outputs.items():
            value = ort.OrtValue.ortvalue_from_shape_and_type(like.shape, like.dtype, device, 0)
            self.binding.bind_ortvalue_output(wanted, value)
            self.outputs.append(value)

    def run(self, x: Array) -> list[Array]:
        """The outputs for x, of the recorded shape."""
        self.x.update_inplace(x)
        self.session.run_with_iobinding(self.binding)
        return [value.numpy() for value in self.outputs]


class LaneSession:
    """A session whose runs are those of `lanes`, LANES threads that all sessions of a model share;
    has what Model needs of onnxruntime's."""

    def __init__(self, session: Any, lanes: Executor) -> None:
        self.session = session
        self.lanes = lanes
        self.input: str = session.get_inputs()[0].name

    def run(self, names: Sequence[str], feed: dict[str, Array]) -> list[Array]:
        """The named outputs. Raises whatever onnxruntime raises."""
        outputs: list[Array] = self.lanes.submit(self.session.run, list(names), feed).result()
        return outputs

    def warm_up(self, names: Sequence[str], feed: dict[str, Array]) -> None:
        """A run on each thread. Raises whatever onnxruntime raises."""
        together = Barrier(LANES)

        def run() -> None:
            together.wait(WARM_UP_S)
            self.session.run(list(names), feed)

        runs = [self.lanes.submit(run) for _ in range(LANES)]
        wait(runs)
        for each in runs:
            each.result()


class CudaSession(LaneSession):
    """A session of G: its runs are of few sizes, of which small ones can be recorded.

    `sized` opens a session of the same graph for one shape, ready to be recorded.
    """

    def __init__(
        self, session: Any, lanes: Executor, sized: Callable[[Shape], Any], device: str = "cuda"
    ) -> None:
        super().__init__(session, lanes)
        self.sized = sized
        self.device = device
        self.recorded: dict[tuple[Shape, tuple[str, ...]], Recorded] = {}
        self.thread = ThreadPoolExecutor(1, "cuda-graphs")  # the recorded runs'

    def run(self, names: Sequence[str], feed: dict[str, Array]) -> list[Array]:
        """The named outputs for pictures [N, H, W, 3]. Raises whatever onnxruntime raises."""
        ((name, x),) = feed.items()
        n = len(x)
        size = next((size for size in CUDA_SIZES if size >= n), n)
        if size > n:
            x = np.concatenate([x, np.zeros((size - n, *x.shape[1:]), x.dtype)])
        recorded = self.recorded.get((x.shape, tuple(names)))
        if recorded is None:
            outputs = super().run(names, {name: x})
        else:
            outputs = self.thread.submit(recorded.run, x).result()
        return [output[:n] for output in outputs]

    def record(self, names: Sequence[str], feed: dict[str, Array]) -> None:
        """Let runs of feed's shape be recorded from now on.

        Raises ValueError where a recorded run does not answer as others do, and whatever
        onnxruntime raises.
        """
        ((_, x),) = feed.items()
        expected = super().run(names, feed)
        outputs = dict(zip(names, expected, strict=True))

        def make() -> Recorded:
            made = Recorded(self.sized(x.shape), feed, outputs, self.device)
            for _ in range(2):  # recorded, then replayed
                for found, wanted in zip(made.run(x), expected, strict=True):
                    if not alike(found, wanted):
                        raise ValueError("a recorded run answers otherwise")
            return made

        self.recorded[x.shape, tuple(names)] = self.thread.submit(make).result()


def alike(a: Array, b: Array) -> bool:
    """Whether two runs' answers for the same pictures are the same, but for rounding."""
    return a.shape == b.shape and np.allclose(
        a.astype(np.float32), b.astype(np.float32), rtol=0.01, atol=1
    )
