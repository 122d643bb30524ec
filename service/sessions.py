"""onnxruntime sessions: on the device asked for, or not at all."""

import logging
from collections.abc import Iterable, Mapping
from threading import Lock
from types import MappingProxyType
from typing import Any

import numpy as np
import onnxruntime as ort

from service.manifest import ModelError, Tensor
from service.settings import Device

log = logging.getLogger(__name__)

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
CUDA_OPTIONS = {
    # Request shapes vary: an exhaustive search for the best convolution per shape would stall
    # requests, and an arena that grows by doubling would hold memory for good.
    "cudnn_conv_algo_search": "HEURISTIC",
    "arena_extend_strategy": "kSameAsRequested",
}
# TF32 keeps 10 bits of a number: twice as fast with channels last, which without it are slower; but
# emoji are up to 9 grey levels off the CPU's then (benchmarks/gpu/RESULTS.md).
FULL = {"use_tf32": "0", "prefer_nhwc": "0"}
TF32 = {"use_tf32": "1", "prefer_nhwc": "1"}


class Company:
    """Runs at once; `with` it counts one more, and answers how many there are with it."""

    def __init__(self) -> None:
        self.runs = 0
        self.lock = Lock()

    def __enter__(self) -> int:
        with self.lock:
            self.runs += 1
            return self.runs

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.runs -= 1


class CPUSession:
    """A graph on the CPU, beside its like: a run that is alone gets `wide`, a session of more
    threads, where there is one. Else cores would be idle; with others it would take theirs."""

    def __init__(self, session: Any, wide: Any, company: Company) -> None:
        self.session = session
        self.wide = session if wide is None else wide
        self.company = company

    def run(self, names: list[str], feed: dict[str, Any]) -> list[Any]:
        """The named outputs. Raises whatever onnxruntime raises."""
        with self.company as runs:
            session = self.wide if runs == 1 else self.session
            outputs: list[Any] = session.run(names, feed)
        return outputs


def cuda_options(tf32: bool) -> dict[str, str]:
    """Of onnxruntime's CUDA provider."""
    return CUDA_OPTIONS | (TF32 if tf32 else FULL)


def open_session(
    content: bytes, shared: Mapping[str, bytes], device: Device, threads: int, tf32: bool = False
) -> Any:
    """An onnxruntime session of a graph, on the device asked for; `tf32` is of a GPU.

    `shared` holds the files that the graph keeps tensors in, by name: they are never looked
    for on the disk.

    Raises ModelError where `cuda` is asked for and does not work, or the graph is invalid.
    """
    if device == "cuda" or (device == "auto" and CUDA in ort.get_available_providers()):
        try:
            return open_on_cuda(content, shared, threads, tf32)
        except ModelError as error:
            if device == "cuda":
                raise ModelError(f"DTN_DEVICE=cuda: {error}") from error
            log.warning("CUDA is not used: %s", error)
    return open_with(content, shared, threads, [CPU])


def open_on_cuda(content: bytes, shared: Mapping[str, bytes], threads: int, tf32: bool) -> Any:
    """A session that has proved to run on CUDA. Raises ModelError with the reason otherwise.

    onnxruntime falls back to the CPU without an error; what counts is what the session says of
    itself, and that it can run at all.
    """
    available = ort.get_available_providers()
    if CUDA not in available:
        raise ModelError(
            f'this onnxruntime has no {CUDA}, only {", ".join(available)}; pip install "dtn[gpu]"'
        )
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # finds CUDA and cuDNN where pip has put them
    session = open_with(content, shared, threads, [(CUDA, cuda_options(tf32)), CPU])
    if session.get_providers()[0] != CUDA:
        raise ModelError(
            f"onnxruntime could not start {CUDA} and would use {session.get_providers()[0]}; "
            "its log says why, usually a missing driver, CUDA or cuDNN library"
        )
    try:
        x = session.get_inputs()[0]
        sides = (
            found if isinstance(found, int) else usual
            for found, usual in zip(x.shape, (1, 32, 32, 3), strict=True)
        )
        session.run(None, {x.name: np.zeros(tuple(sides), np.uint8)})
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise ModelError(f"a first run failed: {first_line(error)}") from error
    return session


def open_sized(
    content: bytes,
    shared: Mapping[str, bytes],
    threads: int,
    axes: Mapping[str, int],
    tf32: bool,
    record: bool,
) -> Any:
    """A session on CUDA whose free axes have these sizes; with `record` its first run is recorded
    as a CUDA graph."""
    cuda = cuda_options(tf32) | ({"enable_cuda_graph": "1"} if record else {})
    return open_with(content, shared, threads, [(CUDA, cuda), CPU], axes)


def open_with(
    content: bytes,
    shared: Mapping[str, bytes],
    threads: int,
    providers: list[Any],
    axes: Mapping[str, int] = MappingProxyType({}),
) -> Any:
    """A session with these providers, as far as onnxruntime can start them; `axes` are sizes of
    free axes by name."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads would take the cores from decoding and encoding.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # The arena never gives memory back: one huge picture would be paid for until the end.
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    for name, size in axes.items():
        options.add_free_dimension_override_by_name(name, size)
    if shared:
        sizes = [len(part) for part in shared.values()]
        options.add_external_initializers_from_files_in_memory(
            list(shared), list(shared.values()), sizes
        )
    try:
        session = ort.InferenceSession(content, options, providers=providers)
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise ModelError(f"onnxruntime refuses the graph: {first_line(error)}") from error
    session.disable_fallback()  # else a failing run would silently move to the CPU
    return session


def first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def check_signature(session: Any, x: Tensor, outputs: Iterable[str]) -> None:
    """Raises ModelError where a graph's inputs and outputs are not those it must have."""
    found = {put.name: put for put in session.get_inputs()}
    if set(found) != {x.name}:
        raise ModelError(f"has the inputs {sorted(found)}, not {x.name!r}")
    given = found[x.name]
    if given.type != f"tensor({x.dtype})" or len(given.shape) != len(x.shape):
        raise ModelError(f"input {x.name!r} is {given.type} {given.shape}")
    axes = list(zip(given.shape, x.shape, strict=True))
    if any(isinstance(axis, int) and isinstance(wanted, str) for axis, wanted in axes[:3]):
        raise ModelError(f"input {x.name!r} takes one size only: {given.shape}")
    missing = set(outputs) - {put.name for put in session.get_outputs()}
    if missing:
        raise ModelError(f"has no output {sorted(missing)}")
