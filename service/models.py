"""Models: the ONNX graphs of a model folder, each in an onnxruntime session."""

import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
import onnxruntime as ort

from service.manifest import ModelError, Tensor, read_graph, read_manifest
from service.pictures import Pixels
from service.problems import Problem
from service.schemas import GraphCard, ModelCard
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

# Heights and widths that a model must cope with before it counts as ready: usual ones, then
# the extremes that make a letterbox round a side to nothing.
WARM_UP_SIZES = ((32, 32), (96, 96), (97, 43), (1, 1), (1, 200), (200, 1))


class Model:
    """G of one model folder: uint8 [N, H, W, 3] -> uint8 [N, h, w, 1 or 3].

    Used from several threads at once. Raises ModelError where the folder is not as its
    manifest says, or where CUDA was asked for and does not work.
    """

    def __init__(self, folder: Path, device: Device = "auto", threads: int = 1) -> None:
        self.manifest = read_manifest(folder)
        self.sessions: dict[str, Any] = {}
        for role, graph in self.manifest.graphs.items():
            content = read_graph(folder, graph)
            try:
                self.sessions[role] = open_session(content, device, threads)
            except ModelError as error:
                raise ModelError(f"{folder / graph.file}: {error}") from error
            outputs = [self.manifest.output.name]
            if role == "distance":
                outputs.append(str(self.manifest.distance_output))
            check_signature(folder / graph.file, self.sessions[role], self.manifest.input, outputs)
        providers = {session.get_providers()[0] for session in self.sessions.values()}
        self.provider: str = CUDA if providers == {CUDA} else CPU
        self.device: Literal["cpu", "cuda"] = "cuda" if self.provider == CUDA else "cpu"
        # Runs side by side on one GPU only compete for its memory, and have made CUDA fail.
        self.turn: AbstractContextManager[Any] = Lock() if CUDA in providers else nullcontext()

    @property
    def reference(self) -> str:
        """`name@version`."""
        return self.manifest.reference

    @property
    def has_distance(self) -> bool:
        return "distance" in self.sessions

    def __call__(self, x: Pixels, distance: bool = False) -> tuple[Pixels, list[float | None]]:
        """G(x) and, where asked for, Eq. 8's ‖f(x) − f(G(x))‖ of each picture.

        A distance that is no finite number is None: JSON could not carry it. Raises Problem
        invalid_parameter where the graphs cannot process pictures of this size.
        """
        try:
            return self.run(x, distance)
        except Exception as error:
            # onnxruntime's exceptions share no base class. What they have in common is that
            # warm-up went well, so that it is this picture's size which is out of the ordinary.
            log.exception("%s failed on a picture of shape %s", self.reference, x.shape)
            height, width = x.shape[1:3]
            raise Problem(
                "invalid_parameter",
                f"{self.reference} cannot process a picture of {width} x {height} pixels",
            ) from error

    def run(self, x: Pixels, distance: bool) -> tuple[Pixels, list[float | None]]:
        """What __call__ answers. Raises whatever onnxruntime raises."""
        feed = {self.manifest.input.name: x}
        with self.turn:
            if not distance:
                (y,) = self.sessions["transfer"].run([self.manifest.output.name], feed)
                return y, [None] * len(y)
            names = [self.manifest.output.name, self.manifest.distance_output]
            y, f_distance = self.sessions["distance"].run(names, feed)
        return y, [float(d) if math.isfinite(d) else None for d in f_distance]

    def warm_up(self) -> None:
        """Run every graph on small pictures, so that the first request finds all allocated.

        Raises ModelError where a graph fails or answers other than its manifest says.
        """
        for distance in (False, True) if self.has_distance else (False,):
            for height, width in WARM_UP_SIZES:
                x = np.full((1, height, width, 3), 127, np.uint8)
                where = f"{self.reference}: warm-up with {width} x {height} pixels"
                try:
                    y, f_distance = self.run(x, distance)
                except Exception as error:  # as in __call__
                    raise ModelError(f"{where}: {first_line(error)}") from error
                if y.dtype != np.uint8 or y.shape != output_shape(self.manifest.output, y.shape):
                    raise ModelError(f"{where}: answers {y.dtype}{list(y.shape)}")
                if distance and (len(f_distance) != 1 or f_distance[0] is None):
                    raise ModelError(f"{where}: the distance is {f_distance}")

    def card(self, default: bool) -> ModelCard:
        """What GET /models tells of this model."""
        told = self.manifest.model_dump(exclude={"schema_version", "distance_output", "graphs"})
        transfer = self.manifest.graphs["transfer"]
        return ModelCard(
            **told,
            model=self.reference,
            default=default,
            sha256=transfer.sha256,
            bytes=transfer.bytes,
            graphs={
                role: GraphCard(**graph.model_dump())
                for role, graph in self.manifest.graphs.items()
            },
            device=self.device,
            provider=self.provider,
        )


@dataclass(frozen=True)
class Models:
    """The served models by name, and the one of requests that name none."""

    by_name: Mapping[str, Model]
    default: str

    def find(self, wanted: str | None) -> Model:
        """The model of `name` or `name@version`. Raises Problem unknown_model."""
        name, at, version = (self.default if wanted is None else wanted).partition("@")
        model = self.by_name.get(name)
        if model is None or (at and version != model.manifest.version):
            served = ", ".join(sorted(m.reference for m in self))
            raise Problem("unknown_model", f"no such model; there is: {served}")
        return model

    def __iter__(self) -> Iterator[Model]:
        return iter(self.by_name.values())

    def cards(self) -> list[ModelCard]:
        return [model.card(model.manifest.name == self.default) for model in self]


def load_models(directory: Path, default: str, device: Device, threads: int) -> Models:
    """Every model folder of a directory. Raises ModelError, also where there is none."""
    folders = model_folders(directory)
    models = {folder.name: Model(folder, device, threads) for folder in folders}
    if default not in models:
        raise ModelError(
            f"no model {default!r} in {directory} to be the default; there is: {', '.join(models)}"
        )
    for model in models.values():
        log.info("%s runs on %s (%s)", model.reference, model.device, model.provider)
    return Models(models, default)


def model_folders(directory: Path) -> list[Path]:
    """The folders in a directory of models, sorted; hidden ones are none of ours."""
    try:
        found = sorted(p for p in directory.iterdir() if p.is_dir() and p.name[0] != ".")
    except OSError as error:
        raise ModelError(f"no models: {directory}: {error.strerror}") from error
    if not found:
        raise ModelError(f"no models in {directory}: train and export one, or set DTN_MODELS")
    return found


def open_session(content: bytes, device: Device, threads: int) -> Any:
    """An onnxruntime session of a graph, on the device asked for.

    Raises ModelError where `cuda` is asked for and does not work, or the graph is invalid.
    """
    if device == "cuda" or (device == "auto" and CUDA in ort.get_available_providers()):
        try:
            return open_on_cuda(content, threads)
        except ModelError as error:
            if device == "cuda":
                raise ModelError(f"DTN_DEVICE=cuda: {error}") from error
            log.warning("CUDA is not used: %s", error)
    return open_with(content, threads, [CPU])


def open_on_cuda(content: bytes, threads: int) -> Any:
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
    session = open_with(content, threads, [(CUDA, CUDA_OPTIONS), CPU])
    if session.get_providers()[0] != CUDA:
        raise ModelError(
            f"onnxruntime could not start {CUDA} and would use {session.get_providers()[0]}; "
            "its log says why, usually a missing driver, CUDA or cuDNN library"
        )
    try:
        session.run(None, {session.get_inputs()[0].name: np.zeros((1, 32, 32, 3), np.uint8)})
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise ModelError(f"a first run failed: {first_line(error)}") from error
    return session


def open_with(content: bytes, threads: int, providers: list[Any]) -> Any:
    """A session with these providers, as far as onnxruntime can start them."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads would take the cores from decoding and encoding.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # The arena never gives memory back: one huge picture would be paid for until the end.
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(content, options, providers=providers)
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise ModelError(f"onnxruntime refuses the graph: {first_line(error)}") from error
    session.disable_fallback()  # else a failing run would silently move to the CPU
    return session


def first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def check_signature(path: Path, session: Any, x: Tensor, outputs: Iterable[str]) -> None:
    """Raises ModelError where a graph's inputs and outputs are not the manifest's."""
    found = {put.name: put for put in session.get_inputs()}
    if set(found) != {x.name}:
        raise ModelError(f"{path}: has the inputs {sorted(found)}, the manifest says {x.name!r}")
    given = found[x.name]
    if given.type != f"tensor({x.dtype})" or len(given.shape) != len(x.shape):
        raise ModelError(f"{path}: input {x.name!r} is {given.type} {given.shape}")
    if any(isinstance(axis, int) for axis in given.shape[:3]):
        raise ModelError(f"{path}: input {x.name!r} takes one size only: {given.shape}")
    missing = set(outputs) - {put.name for put in session.get_outputs()}
    if missing:
        raise ModelError(f"{path}: has no output {sorted(missing)}")


def output_shape(y: Tensor, actual: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that an output for one picture must have; free axes are taken as they come."""
    if len(actual) != len(y.shape):
        return ()
    axes = zip(y.shape[1:], actual[1:], strict=True)
    return (1, *(said if isinstance(said, int) else found for said, found in axes))
