"""Runs of a graph on a GPU.

They are those of a few threads: for every thread that runs a session onnxruntime makes handles and
workspaces of CUDA's libraries anew, which takes long and much memory. They have few sizes, are
filled up with black, and each size has a session of its own: a session plans its convolutions anew
whenever their size is not that of its last run, which takes longer than most runs. Small ones are
recorded as CUDA graphs: their hundreds of kernels are each done sooner than the next is launched,
recorded they are launched as one. Large ones are put together in page-locked memory, from which a
GPU copies by itself. What each brings is in benchmarks/gpu/RESULTS.md.
"""

import ctypes
import logging
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Barrier
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

# Pictures of recorded runs, which are of one shape: larger ones keep the GPU busy by themselves.
RECORDED = (1, 2, 4, 8, 16)
SIZES = (1, 16, 32, 48, 64, 96, 128, 192, 256)  # of the others, of any shape
# Runs of one model at once: one computes while pictures of the next are put together and copied.
LANES = 2
WARM_UP_S = 60.0  # that the threads wait for one another
RUNTIMES = ("libcudart.so.13", "libcudart.so.12")  # which onnxruntime has loaded before


def page_locked(size: int) -> Array:
    """Bytes that a GPU reads by itself, uint8 [size]; from others the driver makes a copy first.

    Raises OSError where there is no CUDA, or no such memory.
    """
    runtime = next(filter(None, map(loaded, RUNTIMES)), None)
    if runtime is None:
        raise OSError(f"none of {', '.join(RUNTIMES)} is there")
    place = ctypes.c_void_p()
    code = runtime.cudaHostAlloc(ctypes.byref(place), ctypes.c_size_t(size), 0)
    if code or place.value is None:
        raise OSError(f"cudaHostAlloc of {size} bytes: error {code}")
    held = (ctypes.c_uint8 * size).from_address(place.value)
    weakref.finalize(held, runtime.cudaFreeHost, place)
    return np.frombuffer(memoryview(held).cast("B"), np.uint8)


def loaded(name: str) -> ctypes.CDLL | None:
    """A library, where it is there."""
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


class Rooms:
    """Places for the pictures of large runs: page-locked where that can be had."""

    def __init__(self, size: int, allocate: Callable[[int], Array] = page_locked) -> None:
        """As many as there are lanes, and one that is filled meanwhile, of so many bytes each."""
        self.size = size
        self.free: SimpleQueue[Array] = SimpleQueue()
        for _ in range(LANES + 1):
            try:
                self.free.put(allocate(size))
            except OSError as error:
                log.warning("the driver copies pictures once more: %s", error)
                self.free.put(np.empty(size, np.uint8))

    @contextmanager
    def filled(self, x: Array, size: int) -> Iterator[Array]:
        """Pictures uint8 [N, H, W, 3] in a place of `size` ones, black from the Nth on; waits for
        a place that is free."""
        room = self.free.get()
        try:
            place = room[: size * x[0].nbytes].reshape(size, *x.shape[1:])
            place[: len(x)] = x
            place[len(x) :] = 0
            yield place
        finally:
            self.free.put(room)


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
        self.run_on_each(self.session, names, feed)

    def run_on_each(self, session: Any, names: Sequence[str], feed: dict[str, Array]) -> None:
        together = Barrier(LANES)

        def run() -> None:
            together.wait(WARM_UP_S)
            session.run(list(names), feed)

        runs = [self.lanes.submit(run) for _ in range(LANES)]
        wait(runs)
        for each in runs:
            each.result()


class CudaSession(LaneSession):
    """A session of G whose runs are of few sizes, once these are prepared.

    `opened` opens a session of the same graph for pictures of this shape, of which only the first
    axes need be given; to be recorded where that is wanted.
    """

    def __init__(
        self,
        session: Any,
        lanes: Executor,
        opened: Callable[[Shape, bool], Any],
        device: str = "cuda",
    ) -> None:
        super().__init__(session, lanes)
        self.opened = opened
        self.device = device
        self.sized: dict[int, Any] = {}  # sessions for so many pictures of any shape
        self.recorded: dict[tuple[Shape, tuple[str, ...]], Recorded] = {}
        self.thread = ThreadPoolExecutor(1, "cuda-graphs")  # the recorded runs'
        self.rooms: Rooms | None = None  # for the usual shape, which warm-up brings

    def run(self, names: Sequence[str], feed: dict[str, Array]) -> list[Array]:
        """The named outputs for pictures [N, H, W, 3]. Raises whatever onnxruntime raises."""
        ((name, x),) = feed.items()
        n = len(x)
        size = at_least(n, RECORDED)
        if recorded := self.recorded.get(((size, *x.shape[1:]), tuple(names))):
            outputs = self.thread.submit(recorded.run, filled(x, size)).result()
        else:
            size = at_least(n, self.sized)
            session = self.sized.get(size, self.session)
            with self.place(x, size) as place:
                outputs = self.lanes.submit(session.run, list(names), {name: place}).result()
        return [output[:n] for output in outputs]

    @contextmanager
    def place(self, x: Array, size: int) -> Iterator[Array]:
        """x filled up to `size` pictures, in page-locked memory where they are many."""
        if self.rooms is None or size <= RECORDED[-1] or size * x[0].nbytes > self.rooms.size:
            yield filled(x, size)
        else:
            with self.rooms.filled(x, size) as place:
                yield place

    def prepare(self, names: Sequence[str], feed: dict[str, Array]) -> None:
        """Let runs of as many pictures as feed's be those of a session of their own, on each
        thread. Raises whatever onnxruntime raises."""
        ((_, x),) = feed.items()
        session = self.opened(x.shape[:1], False)
        self.run_on_each(session, names, feed)
        self.sized[len(x)] = session
        if self.rooms is None:
            self.rooms = Rooms(SIZES[-1] * x[0].nbytes)

    def forget_above(self, size: int) -> None:
        """Let go of sessions for more pictures."""
        self.sized = {most: session for most, session in self.sized.items() if most <= size}

    def record(self, names: Sequence[str], feed: dict[str, Array]) -> None:
        """Let runs of feed's shape be recorded from now on.

        Raises ValueError where a recorded run does not answer as others do, and whatever
        onnxruntime raises.
        """
        ((_, x),) = feed.items()
        expected = self.run(names, feed)
        outputs = dict(zip(names, expected, strict=True))

        def make() -> Recorded:
            made = Recorded(self.opened(x.shape, True), feed, outputs, self.device)
            for _ in range(2):  # recorded, then replayed
                for found, wanted in zip(made.run(x), expected, strict=True):
                    if not alike(found, wanted):
                        raise ValueError("a recorded run answers otherwise")
            return made

        self.recorded[x.shape, tuple(names)] = self.thread.submit(make).result()


def at_least(n: int, sizes: Iterable[int]) -> int:
    """The smallest of the sizes that is not below n; n where there is none."""
    return min((size for size in sizes if size >= n), default=n)


def filled(x: Array, size: int) -> Array:
    """Pictures uint8 [N, H, W, 3], black ones behind them: [size, H, W, 3]."""
    missing = size - len(x)
    return np.concatenate([x, np.zeros((missing, *x.shape[1:]), x.dtype)]) if missing else x


def alike(a: Array, b: Array) -> bool:
    """Whether two runs' answers for the same pictures are the same, but for rounding."""
    return a.shape == b.shape and np.allclose(
        a.astype(np.float32), b.astype(np.float32), rtol=0.01, atol=1
    )
