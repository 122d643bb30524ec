"""Ways to run one graph on one batch size: onnxruntime's and PyTorch's, on a GPU or the CPU.

Each way takes pictures uint8 [N, S, S, 3] in the host's memory to G(x) uint8 [N, h, w, C] there,
as the service needs it: the copies to the device and back count.
"""

import copy
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from service.manifest import Manifest, read_manifest
from service.models import Model
from service.pictures import Pixels
from service.sessions import CPU, CUDA, FULL, TF32, cuda_options
from service.settings import Device
from training.onnx_f import producers
from training.onnx_torch import OnnxModule, read_onnx

Run = Callable[[Pixels], Pixels]
DIGIT_SIDE = 32  # of the pictures that a model without faces is asked with
TF32_NCHW = TF32 | {"prefer_nhwc": "0"}
WARM = 3  # runs before a CUDA graph is captured


@dataclass(frozen=True)
class Graph:
    """G of a model folder, as it is shipped and as a single float32 graph of full weights."""

    folder: Path
    manifest: Manifest
    model: onnx.ModelProto

    @property
    def side(self) -> int:
        """S."""
        return self.manifest.alignment.side if self.manifest.alignment else DIGIT_SIDE


Way = Callable[[Graph, str, int], Run]  # of a graph, a device and a size of batch


def read_graph(folder: Path) -> Graph:
    """The graph `transfer` of a model folder. Raises ModelError, ValueError, FileNotFoundError."""
    manifest = read_manifest(folder)
    model = read_onnx(folder / manifest.graphs["transfer"].file)
    return Graph(folder, manifest, whole(model))


def whole(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with its weights as float32, where they are stored as float16 with a Cast."""
    model = copy.deepcopy(model)
    stored = {weight.name: weight for weight in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        weight = stored.get(node.input[0]) if node.op_type == "Cast" else None
        if weight is None or weight.data_type != TensorProto.FLOAT16:
            kept.append(node)
            continue
        values = numpy_helper.to_array(weight).astype(np.float32)
        weight.CopyFrom(numpy_helper.from_array(values, node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


@lru_cache(maxsize=2)
def served(folder: Path, device: str) -> Model:
    """The service's own model, warm, once for all sizes of batches."""
    model = Model(folder, cast(Device, device), torch.get_num_threads())
    model.warm_up()
    return model


def as_served(graph: Graph, device: str, batch: int) -> Run:
    """The service's own model: sizes are free, pictures go in and out as NumPy has them."""
    model = served(graph.folder, device)
    return lambda pictures: model.run(pictures, distance=False)[0]


def halved(graph: Graph, device: str, batch: int) -> Run:
    """As served, but as two runs of half the batch, side by side, as when many pictures wait."""
    model, pool = served(graph.folder, device), ThreadPoolExecutor(2)

    def run(pictures: Pixels) -> Pixels:
        halves = [half for half in np.array_split(pictures, 2) if len(half)]
        return np.concatenate(list(pool.map(lambda half: model.run(half, False)[0], halves)))

    return run


def sized(
    graph: Graph,
    device: str,
    batch: int,
    half: bool = False,
    cuda: dict[str, str] | None = None,
    profiled: Path | None = None,
) -> Any:
    """A session for one size of batch, in float16 where `half`; `cuda` are further options.

    With `profiled` it writes there what every operator took. Raises ValueError where CUDA is asked
    for and does not start.
    """
    model = graph.model
    if half:
        model = convert_float_to_float16(
            copy.deepcopy(model), keep_io_types=True, disable_shape_infer=True
        )
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    for axis, size in zip(
        graph.manifest.input.shape, (batch, graph.side, graph.side), strict=False
    ):
        if isinstance(axis, str):
            options.add_free_dimension_override_by_name(axis, size)
    if profiled is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profiled)
    providers: list[Any] = [CPU]
    if device == "cuda":
        providers = [(CUDA, cuda_options(graph.manifest.tf32) | (cuda or {})), CPU]
    session = ort.InferenceSession(model.SerializeToString(), options, providers=providers)
    if device == "cuda" and session.get_providers()[0] != CUDA:
        raise ValueError(f"onnxruntime could not start {CUDA}")
    return session


def plainly(session: Any, graph: Graph) -> Run:
    """NumPy in, NumPy out."""
    x, y = graph.manifest.input.name, graph.manifest.output.name

    def run(pictures: Pixels) -> Pixels:
        return cast(Pixels, session.run([y], {x: pictures})[0])

    return run


def bound(session: Any, graph: Graph, device: str, batch: int) -> Run:
    """IO binding: input and output stay where they are on the device, only pictures are copied."""
    shape = (batch, graph.side, graph.side, 3)
    x = ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.uint8), device, 0)
    sides = graph.manifest.output.shape[1:]
    y = ort.OrtValue.ortvalue_from_shape_and_type((batch, *sides), np.uint8, device, 0)
    binding = session.io_binding()
    binding.bind_ortvalue_input(graph.manifest.input.name, x)
    binding.bind_ortvalue_output(graph.manifest.output.name, y)

    def run(pictures: Pixels) -> Pixels:
        x.update_inplace(pictures)
        session.run_with_iobinding(binding)
        return cast(Pixels, y.numpy())

    return run


def fixed(graph: Graph, device: str, batch: int) -> Run:
    """As served, but with every size known when the session starts."""
    return plainly(sized(graph, device, batch), graph)


def fixed_bound(
    graph: Graph, device: str, batch: int, half: bool = False, cuda: dict[str, str] | None = None
) -> Run:
    return bound(sized(graph, device, batch, half, cuda), graph, device, batch)


def captured(
    graph: Graph, device: str, batch: int, half: bool = False, cuda: dict[str, str] | None = None
) -> Run:
    """onnxruntime's CUDA graphs: all kernels of a run are launched as one."""
    cuda_only(device)
    session = sized(graph, device, batch, half, {"enable_cuda_graph": "1"} | (cuda or {}))
    return bound(session, graph, device, batch)


def cuda_only(device: str) -> None:
    """Raises ValueError on any other device."""
    if device != "cuda":
        raise ValueError("CUDA graphs are of a GPU")


class Network(nn.Module):
    """The same graph in PyTorch: pictures uint8 [N, S, S, 3] to G(x) uint8 [N, h, w, C]."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        made = producers(graph.model)
        name = graph.manifest.output.name
        while made[name].op_type in ("Transpose", "Cast"):  # to uint8: no gradient comes through
            name = made[name].input[0]
        self.net = OnnxModule(graph.model, (1, graph.side, graph.side, 3), [name])

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x.float())[0]
        return y.permute(0, 2, 3, 1).to(torch.uint8)


def eager(graph: Graph, device: str, batch: int, half: bool = False) -> Run:
    return in_torch(Network(graph).to(device), device, half)


def compiled(graph: Graph, device: str, batch: int, half: bool = False) -> Run:
    """torch.compile, which on a GPU captures CUDA graphs, too."""
    mode = "reduce-overhead" if device == "cuda" else "default"
    return in_torch(torch.compile(Network(graph).to(device), mode=mode), device, half)


def in_torch(net: Callable[[Tensor], Tensor], device: str, half: bool) -> Run:
    """A module between the host's pictures; with `half`, under autocast to a 16-bit type."""
    kind = torch.float16 if device == "cuda" else torch.bfloat16

    @torch.inference_mode()
    def run(pictures: Pixels) -> Pixels:
        x = torch.from_numpy(pictures).to(device)
        with torch.autocast(device, kind, enabled=half):
            return cast(Pixels, net(x).cpu().numpy())

    return run


def graphed(graph: Graph, device: str, batch: int) -> Run:
    """PyTorch's eager kernels, captured as one CUDA graph."""
    cuda_only(device)
    net = Network(graph).to(device)
    x = torch.zeros(batch, graph.side, graph.side, 3, dtype=torch.uint8, device=device)
    with torch.inference_mode():
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(WARM):
                net(x)
        torch.cuda.current_stream().wait_stream(beside)
        capture = torch.cuda.CUDAGraph()
        with torch.cuda.graph(capture):
            y = net(x)

    def run(pictures: Pixels) -> Pixels:
        x.copy_(torch.from_numpy(pictures))
        capture.replay()
        return cast(Pixels, y.cpu().numpy())

    return run


def without_tf32(way: Way) -> Way:
    """A way of PyTorch's without TF32, as the service has it."""

    def made(graph: Graph, device: str, batch: int) -> Run:
        with full_precision():
            run = way(graph, device, batch)

        def precisely(pictures: Pixels) -> Pixels:
            with full_precision():
                return run(pictures)

        return precisely

    return made


@contextmanager
def full_precision() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


SERVED = "onnxruntime, as served"
# What the service does, what it might do, and the peers.
WAYS: dict[str, Way] = {
    SERVED: as_served,
    "onnxruntime, as served, two halves at once": halved,
    "onnxruntime, one size": fixed,
    "onnxruntime, IO binding": fixed_bound,
    "onnxruntime, IO binding, no TF32": partial(fixed_bound, cuda=FULL),
    "onnxruntime, IO binding, TF32": partial(fixed_bound, cuda=TF32_NCHW),
    "onnxruntime, IO binding, TF32, NHWC": partial(fixed_bound, cuda=TF32),
    "onnxruntime, CUDA graph": captured,
    "onnxruntime, CUDA graph, no TF32": partial(captured, cuda=FULL),
    "onnxruntime, CUDA graph, TF32, NHWC": partial(captured, cuda=TF32),
    "onnxruntime, 16 bits, IO binding": partial(fixed_bound, half=True),
    "onnxruntime, 16 bits, CUDA graph": partial(captured, half=True),
    "PyTorch, no TF32": without_tf32(eager),
    "PyTorch, CUDA graph, no TF32": without_tf32(graphed),
    "PyTorch, torch.compile, no TF32": without_tf32(compiled),
    "PyTorch, TF32": eager,
    "PyTorch, CUDA graph, TF32": graphed,
    "PyTorch, torch.compile, TF32": compiled,
    "PyTorch, 16 bits": partial(eager, half=True),
    "PyTorch, 16 bits, torch.compile": partial(compiled, half=True),
}
COMPILED = (64, 256)  # sizes at which torch.compile is measured: each takes it half a minute


def kernels(graph: Graph, device: str, pictures: Pixels, runs: int = 20) -> dict[str, float]:
    """Seconds of a run of onnxruntime by what is run, most first.

    Of the session of one size, on a batch uint8 [N, S, S, 3]: on a GPU by kernel, as CUDA's own
    profiler saw them, copies between host and device among them; else by operator.
    """
    seconds = on_gpu(graph, pictures, runs) if device == "cuda" else on_cpu(graph, pictures, runs)
    return dict(sorted(seconds.items(), key=lambda item: -item[1]))


def on_gpu(graph: Graph, pictures: Pixels, runs: int) -> dict[str, float]:
    """PyTorch's profiler sees every kernel of the process, onnxruntime's too."""
    run = plainly(sized(graph, "cuda", len(pictures)), graph)
    for _ in range(WARM):
        run(pictures)
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for _ in range(runs):
            run(pictures)
    seconds: dict[str, float] = {}
    for event in seen.key_averages():
        name = short(event.key)
        seconds[name] = seconds.get(name, 0.0) + event.self_device_time_total / 1e6 / runs
    return {name: taken for name, taken in seconds.items() if taken > 0}


def short(kernel: str) -> str:
    """A kernel's name without its types: templates run over pages."""
    return kernel.removeprefix("void ").partition("<")[0][:80]


def on_cpu(graph: Graph, pictures: Pixels, runs: int) -> dict[str, float]:
    """By onnxruntime's own profile, which on a GPU would see launches alone."""
    with TemporaryDirectory(prefix="dtn-bench-") as scratch:
        session = sized(graph, "cpu", len(pictures), profiled=Path(scratch) / "profile")
        run = plainly(session, graph)
        for _ in range(runs):
            run(pictures)
        events = json.loads(Path(session.end_profiling()).read_text())
    seconds: dict[str, float] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["args"]["op_name"]
            seconds[name] = seconds.get(name, 0.0) + event["dur"] / 1e6 / runs
    return seconds
