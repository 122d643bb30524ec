"""`dtn reproduce TABLE`: train whatever of a table is missing, several runs at a time."""

import json
import subprocess
import sys
import traceback
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from training.captured import STREAMS, take_stream
from training.config import DigitsConfig, of_digits, preset
from training.evaluate import TABLES
from training.rows import DANN, DTN_PLUS, TABLE1_PLUS, TABLE3_PLUS
from training.run import Run
from training.shelf import shelf_names, train_digits

# The scale of two CPU cores, in fields of DTNConfig: a few minutes of a core for each run.
SMALL = {"steps": 1200, "batch": 32, "lr": 5e-4}
SMALL_ALREADY = {row.preset for row in (DTN_PLUS, DANN, *TABLE1_PLUS, *TABLE3_PLUS)}


@dataclass(frozen=True)
class Job:
    """One run that is missing."""

    preset: str
    seed: int
    folder: Path
    changes: dict[str, float]
    metrics: frozenset[str]  # that the table wants of it

    @property
    def log(self) -> Path:
        """Its last words, where it failed."""
        return self.folder / "output.log"

    def config(self) -> DigitsConfig:
        return of_digits(preset(self.preset, seed=self.seed, **self.changes))

    @property
    def shelf(self) -> Path:
        """Where the runs of a folder keep the classifiers they have in common."""
        return self.folder.parent / "shelf"

    @property
    def adapt(self) -> bool:
        """Whether a classifier is wanted, too, that is taught on G(s)."""
        return any(metric.startswith("taught") for metric in self.metrics)

    def command(self, data: Path, device: str) -> list[str]:
        """`dtn train` with the options that make this run."""
        options = [f"--{name}={value}" for name, value in self.changes.items()]
        if self.adapt:
            options.append("--adapt")
        return [
            *(sys.executable, "-m", "service", "train", self.preset, *options),
            *(f"--seed={self.seed}", f"--data={data}", f"--out={self.folder}"),
            *(f"--shelf={self.shelf}", f"--device={device}"),
        ]

    def in_process(self, data: Path, device: str) -> None:
        """A process of its own. Raises subprocess.CalledProcessError."""
        with self.log.open("wb") as log:
            subprocess.run(  # noqa: S603 -- our own command
                self.command(data, device), stdout=log, stderr=log, check=True
            )

    def in_thread(self, data: Path, device: str) -> None:
        """In this thread; raises what the training does."""
        run = Run(self.folder, self.preset, self.config(), device, quiet=True)
        train_digits(run, data, self.shelf, self.adapt)


def missing(table: str, seeds: int, runs: Path, small: bool) -> list[Job]:
    """Runs that `table` lacks a figure of, those of the first seed first."""
    wanted: dict[str, set[str]] = {}
    for line in TABLES[table]:
        if line.preset:
            wanted.setdefault(line.preset, set()).add(line.metric)
    jobs = [
        Job(
            name,
            seed,
            runs / f"{name}-seed{seed}",
            SMALL if small and name not in SMALL_ALREADY else {},
            frozenset(metrics),
        )
        for seed in range(seeds)
        for name, metrics in wanted.items()
    ]
    return [job for job in jobs if not job.metrics <= measured_of(job.folder)]


def measured_of(folder: Path) -> set[str]:
    """Names of the figures that a run has left."""
    path = folder / "metrics.json"
    return set(json.loads(path.read_text())["metrics"]) if path.exists() else set()


def waves(jobs: Iterable[Job], shelf: Path) -> tuple[list[Job], list[Job]]:
    """Those that teach a classifier nobody has yet, one of each kind; and the rest, after them."""
    first: list[Job] = []
    rest: list[Job] = []
    there = {path.name for path in shelf.glob("*.pt")}
    for job in jobs:
        names = set(shelf_names(job.config()).values())
        (rest if names <= there else first).append(job)
        there |= names
    return first, rest


def reproduce(
    table: str, seeds: int, runs: Path, data: Path, device: str, small: bool, at_once: int
) -> list[Path]:
    """Train all that is missing of `table`; the logs of runs that failed.

    Each run has a folder of its own and goes on from where an earlier one stopped. On CPUs it is a
    process with a log; on a GPU, where processes would take turns, a thread.
    """
    jobs = missing(table, seeds, runs, small)
    failed = []
    on_gpu = device == "cuda"
    pool = ThreadPoolExecutor(
        min(at_once, STREAMS) if on_gpu else at_once, initializer=take_stream if on_gpu else None
    )
    with tqdm(total=len(jobs), desc=table) as progress, pool:

        def work(job: Job) -> Path | None:
            job.folder.mkdir(parents=True, exist_ok=True)
            try:
                (job.in_thread if on_gpu else job.in_process)(data, device)
            except subprocess.CalledProcessError:
                return job.log
            except Exception:  # of one run: the others go on
                job.log.write_text(traceback.format_exc())
                return job.log
            finally:
                progress.update()
            return None

        for wave in waves(jobs, runs / "shelf"):
            failed += [path for path in pool.map(work, wave) if path is not None]
    return failed
