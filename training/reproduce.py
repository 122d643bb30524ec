"""`dtn reproduce TABLE`: train whatever of a table is missing, several runs at a time."""

import json
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from training.config import DigitsConfig, of_digits, preset
from training.evaluate import TABLES
from training.rows import DANN, DTN_PLUS, TABLE1_PLUS, TABLE3_PLUS
from training.shelf import shelf_names

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

    def config(self) -> DigitsConfig:
        return of_digits(preset(self.preset, seed=self.seed, **self.changes))

    def command(self, data: Path, device: str) -> list[str]:
        """`dtn train` with the options that make this run."""
        options = [f"--{name}={value}" for name, value in self.changes.items()]
        if any(metric.startswith("taught") for metric in self.metrics):
            options.append("--adapt")
        return [
            *(sys.executable, "-m", "service", "train", self.preset, *options),
            *(f"--seed={self.seed}", f"--data={data}", f"--out={self.folder}"),
            *(f"--shelf={self.folder.parent / 'shelf'}", f"--device={device}"),
        ]


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

    Each run is a process with a folder and a log of its own, goes on from where an earlier one
    stopped, and is stopped with this one.
    """
    jobs = missing(table, seeds, runs, small)
    failed = []
    with tqdm(total=len(jobs), desc=table) as progress, ThreadPoolExecutor(at_once) as pool:

        def work(job: Job) -> Path | None:
            job.folder.mkdir(parents=True, exist_ok=True)
            path = job.folder / "output.log"
            with path.open("wb") as log:
                code = subprocess.run(  # noqa: S603 -- our own command
                    job.command(data, device), stdout=log, stderr=log, check=False
                ).returncode
            progress.update()
            return path if code else None

        for wave in waves(jobs, runs / "shelf"):
            failed += [path for path in pool.map(work, wave) if path is not None]
    return failed
