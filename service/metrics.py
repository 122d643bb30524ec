"""What GET /metrics tells: Prometheus metrics of one application."""

import os
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from threading import Lock

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector
from starlette.routing import BaseRoute, Route, compile_path
from starlette.types import Scope

MULTIPROC = "PROMETHEUS_MULTIPROC_DIR"
REFRESH_S = 1.0
KEPT = 256  # observations, at most

# From 50 us, which is what a small PNG takes to decode, to the deadline's default.
SECONDS = (
    *(50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
# A client may send any word as its method; a label must not take just any.
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
OTHER = "other"
OPENMETRICS = "application/openmetrics-text"

NVIDIA_SMI = (
    *("nvidia-smi", "--query-gpu=index,memory.used,memory.total"),
    "--format=csv,noheader,nounits",
)
NVIDIA_SMI_TIMEOUT_S = 2.0
NVIDIA_SMI_FRESH_S = 5.0
MIB = 1024 * 1024


class Tally:
    """What a histogram, and a counter of as many, are told some hundreds at a time: between a
    request and the next their code has left the processor's caches, and takes thrice as long."""

    def __init__(self, most: int, histogram: Histogram, counter: Counter | None = None) -> None:
        self.most = most
        self.histogram = histogram
        self.counter = counter
        self.kept: deque[float] = deque()

    def observe(self, amount: float) -> None:
        self.kept.append(amount)
        if len(self.kept) >= self.most:
            self.tell()

    def tell(self) -> None:
        """Tell what is kept."""
        with suppress(IndexError):  # none is left, or another thread has taken the last
            while True:
                self.histogram.observe(self.kept.popleft())
                if self.counter is not None:
                    self.counter.inc()


class Metrics:
    """The metrics of one application, in a registry of its own.

    Where the environment names a PROMETHEUS_MULTIPROC_DIR, values lie in files there and
    every process tells those of all; the directory must be empty when the first one starts.
    Methods and attributes may be used from any thread.
    """

    def __init__(self) -> None:
        self.shared = os.environ.get(MULTIPROC)
        if self.shared:
            Path(self.shared).mkdir(parents=True, exist_ok=True)
        # What processes share is told at once: the one that is asked cannot ask the others.
        self.most_kept = most = 1 if self.shared else KEPT
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "dtn_requests",
            "Answered requests; route is a template such as /persons/{person}",
            ("method", "route", "status"),
            registry=registry,
        )
        self.request_seconds = Histogram(
            "dtn_request_seconds",
            "Seconds from a request's head to the end of its answer",
            ("route",),
            buckets=SECONDS,
            registry=registry,
        )
        stages = Histogram(
            "dtn_stage_seconds",
            "Seconds of one stage of a request",
            ("stage",),
            buckets=SECONDS,
            registry=registry,
        )
        self.read = Tally(most, stages.labels("read"))  # the upload arrives
        self.decode = Tally(most, stages.labels("decode"))  # bytes to pixels
        self.queue = Tally(most, stages.labels("queue"))  # waiting to be run
        self.run = Tally(most, stages.labels("run"))  # in onnxruntime
        self.encode = Tally(most, stages.labels("encode"))  # pixels to bytes
        self.batch_size = Histogram(
            "dtn_batch_size",
            "Pictures in one run of a model",
            ("model",),
            buckets=SIZES,
            registry=registry,
        )
        self.problems = Counter(
            "dtn_rejected", "Problems answered, by their code", ("code",), registry=registry
        )
        self.abandoned = Counter(
            "dtn_abandoned", "Pieces of work dropped because the client left", registry=registry
        )
        # Of live processes only: what a dead one held it holds no more.
        self.queue_depth = Gauge(
            "dtn_queue_depth",
            "Pictures waiting to be run",
            ("model",),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.uploads_bytes = Gauge(
            "dtn_uploads_bytes",
            "Bytes of uploads held in memory",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.model_info = Gauge(
            "dtn_model_info",
            "1 for each served model, 0 for one no longer served; where it really runs",
            ("model", "device", "provider", "sha256"),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.machine: tuple[Collector, ...] = (
            DeviceMemory(),
            PlatformCollector(CollectorRegistry()),
        )
        for collector in self.machine:
            registry.register(collector)
        # Left out by all() where processes share: nobody can tell which one they are of.
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)

        # Looking a child up by its labels takes longer than counting: each is found once.
        self.counted: dict[tuple[str, str, int], Tally] = {}
        self.refused: dict[str, Counter] = {}
        self.batches: dict[str, Histogram] = {}
        self.watched: dict[Gauge, Callable[[], float]] = {}
        self.told: dict[str, Gauge] = {}

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answer. `route` is a template, never what the client sent."""
        key = (method, route, status)
        tally = self.counted.get(key)
        if tally is None:
            known = method if method in METHODS else OTHER
            tally = Tally(
                self.most_kept,
                self.request_seconds.labels(route),
                self.requests.labels(known, route, str(status)),
            )
            if known is not method:  # kept, made-up methods would fill the dictionary
                tally.observe(seconds)
                tally.tell()
                return
            self.counted[key] = tally
        tally.observe(seconds)

    def rejected(self, code: str) -> None:
        """Count a problem that was answered."""
        child = self.refused.get(code)
        if child is None:
            child = self.refused[code] = self.problems.labels(code)
        child.inc()

    def batch(self, model: str, size: int) -> None:
        """Count a run of the model `name@version` on `size` pictures."""
        child = self.batches.get(model)
        if child is None:
            child = self.batches[model] = self.batch_size.labels(model)
        child.observe(size)

    def watch_queue(self, model: str, depth: Callable[[], float]) -> None:
        """Tell from now on what `depth` returns as dtn_queue_depth of the model `name@version`."""
        self.watched[self.queue_depth.labels(model)] = depth

    def watch_uploads(self, held: Callable[[], float]) -> None:
        """Tell from now on what `held` returns as dtn_uploads_bytes."""
        self.watched[self.uploads_bytes] = held

    def tell_model(self, model: str, device: str, provider: str, sha256: str) -> None:
        """Tell that the model `name@version` is served, in place of one called the same."""
        child = self.model_info.labels(model, device, provider, sha256)
        before = self.told.get(model, child)
        before.set(0)  # not removed: what processes share knows no removal
        child.set(1)
        self.told[model] = child

    def forget_model(self, model: str) -> None:
        """Tell that the model `name@version` is served no longer."""
        self.told.pop(model).set(0)
        queue = self.queue_depth.labels(model)
        self.watched.pop(queue, None)
        queue.set(0)

    def refresh(self) -> None:
        """Ask what is watched for its values. Where processes share, do so every REFRESH_S:
        the one that is asked for its metrics cannot ask the others."""
        for gauge, value in self.watched.items():
            gauge.set(value())

    def tell(self) -> None:
        """Tell what the tallies keep."""
        stages = (self.read, self.decode, self.queue, self.run, self.encode)
        for tally in (*stages, *tuple(self.counted.values())):
            tally.tell()

    def all(self, accept: str) -> tuple[bytes, str]:
        """The metrics as text, and its media type: OpenMetrics where Accept wants it. Blocks."""
        # Only whether it wants it: what else clients may write there, the library stumbles over.
        encode, media_type = choose_encoder(OPENMETRICS if OPENMETRICS in accept else "")
        self.tell()
        registry = self.registry
        if self.shared:
            forget_dead(Path(self.shared))
            registry = CollectorRegistry()
            MultiProcessCollector(registry, self.shared)  # type: ignore[no-untyped-call]
            for collector in self.machine:
                registry.register(collector)
        return encode(registry), media_type

    def close(self) -> None:
        """Take this process's gauges out of the sum of all."""
        if self.shared:
            mark_process_dead(os.getpid(), self.shared)  # type: ignore[no-untyped-call]


def forget_dead(directory: Path) -> None:
    """Drop the gauges of processes that were killed: no queue of theirs is left."""
    for pid in {int(path.stem.rpartition("_")[2]) for path in directory.glob("gauge_live*.db")}:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]
        except PermissionError:
            continue  # there is such a process


class DeviceMemory(Collector):
    """dtn_device_memory_bytes of each GPU, from nvidia-smi; nothing where there is none."""

    def __init__(self) -> None:
        self.program = shutil.which(NVIDIA_SMI[0])
        self.lock = Lock()
        self.lines: list[str] = []
        self.stale = 0.0  # time.monotonic()

    def collect(self) -> Iterable[Metric]:
        if self.program is None:
            return
        family = GaugeMetricFamily(
            "dtn_device_memory_bytes",
            "Memory of a GPU, of all who use it",
            labels=("device", "kind"),
        )
        for line in self.read(self.program):
            index, *sizes = (word.strip() for word in line.split(","))
            for kind, size in zip(("used", "total"), sizes, strict=False):
                if size.isdecimal():  # a GPU may know no number, such as one cut into parts
                    family.add_metric((f"cuda:{index}", kind), int(size) * MIB)
        yield family

    def read(self, program: str) -> list[str]:
        """nvidia-smi's lines, at most NVIDIA_SMI_FRESH_S old; none where it fails."""
        with self.lock:
            if time.monotonic() >= self.stale:
                try:
                    self.lines = subprocess.run(  # noqa: S603 - no word of it comes from outside
                        (program, *NVIDIA_SMI[1:]),
                        timeout=NVIDIA_SMI_TIMEOUT_S,
                        capture_output=True,
                        text=True,
                        check=True,
                    ).stdout.splitlines()
                except (OSError, subprocess.SubprocessError):
                    self.lines = []
                self.stale = time.monotonic() + NVIDIA_SMI_FRESH_S
            return self.lines


class Templates:
    """The routes' templates: what a request was for, in one of a few words."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        paths = {route.path for route in routes if isinstance(route, Route)}
        self.fixed = frozenset(path for path in paths if "{" not in path)
        self.patterns = [(compile_path(path)[0], path) for path in sorted(paths - self.fixed)]

    def of(self, scope: Scope) -> str:
        """Such as /persons/{person}, or `other`; also of what was refused before the router."""
        path: str = scope["path"]
        if path in self.fixed:
            return path
        route = scope.get("route")
        if route is not None:
            return str(getattr(route, "path", OTHER))
        return next((template for regex, template in self.patterns if regex.match(path)), OTHER)
