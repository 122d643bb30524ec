"""Models: the ONNX graphs of a model folder, each in an onnxruntime session."""

import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from service.cuda import LANES, CudaSession, LaneSession, Shape
from service.manifest import (
    DETECT_INPUT,
    DETECT_OUTPUTS,
    UPSCALE_INPUT,
    UPSCALE_OUTPUTS,
    Alignment,
    ModelError,
    read_file,
    read_manifest,
)
from service.pictures import Pixels
from service.problems import Problem
from service.schemas import GraphCard, ModelCard
from service.sessions import (
    CPU,
    CUDA,
    Company,
    CPUSession,
    check_signature,
    open_session,
    open_sized,
)
from service.settings import Device, Settings
from service.warm_up import warm_up

Floats = npt.NDArray[np.float32]

# Graphs that never run on a GPU: photographs come in any size, and for each new one a GPU would
# plan all convolutions anew, which takes longer than the CPU does for the picture.
ON_CPU = frozenset({"detect"})

# Graphs that take a third of a request for an emoji each, and little memory: their runs have more
# threads while they are alone. More than MOST_ALONE hardly help.
WIDE = frozenset({"detect", "upscale"})
MOST_ALONE = 4

log = logging.getLogger(__name__)


class Model:
    """G of one model folder: uint8 [N, H, W, 3] -> uint8 [N, h, w, 1 or 3].

    Used from several threads at once. A run has so many `threads` of the CPU, one that is alone up
    to `alone` where that pays. Raises ModelError where the folder is not as its manifest says, or
    where CUDA was asked for and does not work.
    """

    def __init__(
        self, folder: Path, device: Device = "auto", threads: int = 1, alone: int = 1
    ) -> None:
        self.manifest = read_manifest(folder)
        self.sessions: dict[str, Any] = {}
        x = self.manifest.input
        inputs = {"detect": DETECT_INPUT, "upscale": UPSCALE_INPUT}
        weights = self.manifest.weights
        shared = {weights.file: read_file(folder, weights)} if weights else {}
        tf32 = self.manifest.tf32
        for role, graph in self.manifest.graphs.items():
            content = read_file(folder, graph)
            on: Device = "cpu" if role in ON_CPU else device
            try:
                self.sessions[role] = open_session(content, shared, on, threads, tf32)
                check_signature(self.sessions[role], inputs.get(role, x), self.outputs(role))
            except ModelError as error:
                raise ModelError(f"{folder / graph.file}: {error}") from error
        providers = {
            session.get_providers()[0]
            for role, session in self.sessions.items()
            if role not in ON_CPU
        }
        self.provider: str = CUDA if providers == {CUDA} else CPU
        self.device: Literal["cpu", "cuda"] = "cuda" if self.provider == CUDA else "cpu"
        self.threads = threads
        self.most = 1  # pictures that one run should draw; warm_up finds how many pay
        self.company = Company()
        self.warming = Lock()
        self.warm = False
        self.widen(folder, shared, min(alone, MOST_ALONE))
        if CUDA in providers:
            lanes = ThreadPoolExecutor(LANES, f"cuda-{self.manifest.name}")
            free = not isinstance(x.shape[0], int)
            for role, graph in self.manifest.graphs.items():
                session = self.sessions[role]
                if free and role in ("transfer", "distance"):
                    opened = partial(self.open_sized, read_file(folder, graph), shared)
                    self.sessions[role] = CudaSession(session, lanes, opened)
                elif role not in ON_CPU:
                    self.sessions[role] = LaneSession(session, lanes)

    def widen(self, folder: Path, shared: Mapping[str, bytes], threads: int) -> None:
        """Let runs of the WIDE graphs that are on the CPU have more threads while they are alone
        among the model's."""
        if threads <= self.threads or not WIDE & self.sessions.keys():
            return
        for role, graph in self.manifest.graphs.items():
            session = self.sessions[role]
            if session.get_providers()[0] == CPU:
                wide = None
                if role in WIDE:
                    wide = open_session(read_file(folder, graph), shared, "cpu", threads)
                self.sessions[role] = CPUSession(session, wide, self.company)

    def open_sized(
        self, content: bytes, shared: Mapping[str, bytes], shape: Shape, record: bool
    ) -> Any:
        """A session on CUDA of a graph of G for pictures of this shape alone, whose last axes may
        be left out."""
        axes = zip(self.manifest.input.shape, shape, strict=False)
        free = {name: size for name, size in axes if isinstance(name, str)}
        return open_sized(content, shared, self.threads, free, self.manifest.tf32, record)

    @property
    def reference(self) -> str:
        """`name@version`."""
        return self.manifest.reference

    @property
    def has_distance(self) -> bool:
        return "distance" in self.sessions

    @property
    def has_upscale(self) -> bool:
        return "upscale" in self.sessions

    def lanes(self, parallel: int) -> int:
        """Runs at once where `parallel` pictures may be drawn side by side: that many on the CPU,
        LANES on a GPU."""
        return parallel if self.device == "cpu" else LANES

    def begins(self, running: int, waiting: int, parallel: int) -> bool:
        """Whether one more run should begin beside those running, with the pictures that wait."""
        if self.device == "cpu" or not running:
            return running < parallel
        return running < LANES and waiting >= self.enough

    @property
    def enough(self) -> int:
        """Pictures for which a second run on a GPU pays: half of those that one should draw. With
        fewer, it is sooner done that waits and takes with it what comes meanwhile."""
        return math.ceil(self.most / 2)

    def face_alignment(self) -> Alignment:
        """How faces must lie. Raises Problem invalid_parameter where this is no model of faces."""
        if self.manifest.alignment is None:
            raise Problem("invalid_parameter", f"model: {self.reference} is no model of faces")
        return self.manifest.alignment

    def __call__(self, x: Pixels, distance: bool = False) -> tuple[Pixels, list[float | None]]:
        """G(x) and, where asked for, Eq. 8's ‖f(x) − f(G(x))‖ of each picture.

        A distance that is no finite number is None: JSON could not carry it. Raises Problem
        invalid_parameter where the graphs cannot process pictures of this size.
        """
        with self.answering(x):
            return self.run(x, distance)

    def draw(self, x: Pixels) -> tuple[Pixels, float | None]:
        """G(x) of one picture uint8 [H, W, 3], with the distance. Raises Problem as __call__."""
        y, (f_distance,) = self(x[np.newaxis], distance=True)
        return y[0], f_distance

    @contextmanager
    def answering(self, x: Pixels) -> Iterator[None]:
        """Makes a failing run a Problem: after warm-up it is this picture that is at fault."""
        try:
            yield
        except Problem:
            raise
        except Exception as error:
            raise self.blame(x[0], error) from error

    def blame(self, x: Pixels, error: Exception) -> Problem:
        """What a failed run means for the picture uint8 [H, W, 3] it was of; logs the error.

        onnxruntime's exceptions share no base class. What they have in common is that warm-up
        went well, so that it is this picture's size which is out of the ordinary. A Problem is
        no fault of the picture and stays what it is.
        """
        if isinstance(error, Problem):
            return error
        log.error("%s failed on a picture of shape %s", self.reference, x.shape, exc_info=error)
        height, width = x.shape[:2]
        return Problem(
            "invalid_parameter",
            f"{self.reference} cannot process a picture of {width} x {height} pixels",
        )

    def run(self, x: Pixels, distance: bool) -> tuple[Pixels, list[float | None]]:
        """What __call__ answers. Raises whatever onnxruntime raises."""
        feed = {self.manifest.input.name: x}
        if not distance:
            (y,) = self.sessions["transfer"].run([self.manifest.output.name], feed)
            return y, [None] * len(y)
        names = [self.manifest.output.name, self.manifest.distance_output]
        y, f_distance = self.sessions["distance"].run(names, feed)
        return y, [float(d) if math.isfinite(d) else None for d in f_distance]

    def detect(self, x: Pixels) -> tuple[Floats, Floats, Floats]:
        """The faces in a picture uint8 [H, W, 3]: boxes [M, 4], scores [M], points [M, 5, 2].

        In pixels of x, best score first. Raises Problem as __call__ does.
        """
        with self.answering(x[np.newaxis]):
            boxes, scores, points = self.sessions["detect"].run(
                DETECT_OUTPUTS, {DETECT_INPUT.name: x[np.newaxis]}
            )
        return boxes, scores, points

    def upscale(self, y: Pixels) -> Pixels:
        """A picture uint8 [64, 64, 3] -> [512, 512, 3]. Raises Problem as __call__ does."""
        with self.answering(y[np.newaxis]):
            (large,) = self.sessions["upscale"].run(
                UPSCALE_OUTPUTS, {UPSCALE_INPUT.name: y[np.newaxis]}
            )
        return np.asarray(large[0])

    def warm_up(self) -> None:
        """Run every graph once as `service.warm_up` has it; finds `most`. Raises ModelError."""
        with self.warming:
            if not self.warm:
                warm_up(self)
                self.warm = True

    def outputs(self, role: str) -> list[str]:
        """Names of what a graph answers."""
        y, f_distance = self.manifest.output.name, str(self.manifest.distance_output)
        return {
            "transfer": [y],
            "distance": [y, f_distance],
            "detect": DETECT_OUTPUTS,
            "upscale": UPSCALE_OUTPUTS,
        }[role]

    def card(self, default: bool) -> ModelCard:
        """What GET /models tells of this model."""
        told = self.manifest.model_dump(
            exclude={"schema_version", "distance_output", "graphs", "weights"}
        )
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


class Models:
    """The served models, and the one of requests that name none."""

    def __init__(self, models: Iterable[Model], default: str) -> None:
        """Raises ModelError where two are the same version of one model, or none is `default`."""
        self.default = default
        self.versions: dict[str, dict[str, Model]] = {}  # by name, the newest version last
        for model in sorted(models, key=age):
            versions = self.versions.setdefault(model.manifest.name, {})
            if model.manifest.version in versions:
                raise ModelError(f"there are two folders of {model.reference}")
            versions[model.manifest.version] = model
        if default not in self.versions:
            names = ", ".join(self.versions)
            raise ModelError(
                f"no model {default!r} to be the default (DTN_DEFAULT_MODEL); there is: {names}"
            )

    def find(self, wanted: str | None) -> Model:
        """The model of `name`, its newest version, or of `name@version`.

        Raises Problem unknown_model.
        """
        name, at, version = (self.default if wanted is None else wanted).partition("@")
        versions = self.versions.get(name, {})
        if not versions or (at and version not in versions):
            served = ", ".join(sorted(m.reference for m in self))
            raise Problem("unknown_model", f"no such model; there is: {served}")
        return versions[version] if at else next(reversed(versions.values()))

    def __iter__(self) -> Iterator[Model]:
        for versions in self.versions.values():
            yield from versions.values()

    def cards(self) -> list[ModelCard]:
        default = self.find(None)
        return [model.card(model is default) for model in self]


def age(model: Model) -> tuple[str, list[tuple[int, int, str]]]:
    """Sorts models by name, then versions as people count them: 9 before 10, 1.2 before 1.10."""
    parts = re.findall(r"\d+|[^\d]+", model.manifest.version)
    numbered = [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
    return model.manifest.name, numbered


def load_models(
    directory: Path,
    default: str,
    device: Device,
    threads: int,
    before: Iterable[Model] = (),
    alone: int = 1,
) -> Models:
    """The models of every folder of a directory; of those `before` that are unchanged, the
    very same. Threads are as in Model. Raises ModelError, also where there is none.
    """
    loaded = []
    for folder in model_folders(directory):
        manifest = read_manifest(folder)
        model = next((known for known in before if known.manifest == manifest), None)
        if model is None:
            model = Model(folder, device, threads, alone)
            log.info("%s runs on %s (%s)", model.reference, model.device, model.provider)
        loaded.append(model)
    try:
        return Models(loaded, default)
    except ModelError as error:
        raise ModelError(f"{directory}: {error}") from error


def models_of(settings: Settings, before: Iterable[Model] = ()) -> Models:
    """What the settings say is served, by load_models."""
    return load_models(
        settings.models,
        settings.default_model,
        settings.device,
        settings.threads,
        before,
        alone=settings.workers,
    )


def model_folders(directory: Path) -> list[Path]:
    """The folders in a directory of models, sorted; hidden ones are none of ours."""
    try:
        found = sorted(p for p in directory.iterdir() if p.is_dir() and p.name[0] != ".")
    except OSError as error:
        raise ModelError(f"no models: {directory}: {error.strerror}") from error
    if not found:
        raise ModelError(f"no models in {directory}: train and export one, or set DTN_MODELS")
    return found
