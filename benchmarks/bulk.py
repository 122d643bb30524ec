"""dtn bench bulk: is every picture there once after a kill -9, and how fast does it go."""

import json
import os
import platform
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from PIL import Image

from benchmarks.serving.results import cpu_model, markdown
from service.commands import read_settings
from service.models import Model
from service.pictures import Pixels, encode
from service.png import png_size

SIDE = 32
SHARD = 1024  # pictures of a tar shard, and of a chunk of dtn bulk
BARE_RUNS = 10_000  # pictures of the bare loop
WAIT_S = 3600.0

Tell = Callable[[str], None]


class BulkBenchError(Exception):
    """Why there are no figures."""


@dataclass(frozen=True)
class Timed:
    """One run of dtn bulk, from its start until all is committed."""

    engine: str
    workers: int
    pictures: int
    seconds: float

    @property
    def per_second(self) -> float:
        return self.pictures / self.seconds


@dataclass(frozen=True)
class Killed:
    """A run that was killed, and the one after it."""

    pictures: int
    before: int  # pictures that were committed when it was killed
    after: int  # pictures that the second run drew
    missing: int
    doubled: int


def colours(number: int) -> Pixels:
    """A picture of its own for each number: smooth colours, uint8 [32, 32, 3]."""
    rng = np.random.default_rng(number)
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def write_shards(folder: Path, pictures: int) -> None:
    """Tar shards of PNGs, SHARD in each."""
    folder.mkdir()
    for first in range(0, pictures, SHARD):
        with tarfile.open(folder / f"{first // SHARD:05d}.tar", "w") as tar:
            for number in range(first, min(first + SHARD, pictures)):
                content = encode(colours(number), "png")
                member = tarfile.TarInfo(f"{number:08d}.png")
                member.size = len(content)
                tar.addfile(member, BytesIO(content))


def names(pictures: int) -> Iterator[str]:
    """What the pictures are called in OUT."""
    return (f"{number // SHARD:05d}/{number:08d}.png" for number in range(pictures))


def command(shards: Path, out: Path, engine: str, workers: int, limit: int) -> list[str]:
    options = ["--engine", engine, "--workers", str(workers), "--limit", str(limit), "--json"]
    return [sys.executable, "-m", "service", "bulk", str(shards), str(out), *options]


def run_to_end(shards: Path, out: Path, engine: str, workers: int, limit: int) -> Timed:
    """Raises BulkBenchError where the command fails or does not draw them all."""
    began = time.monotonic()
    result = subprocess.run(  # noqa: S603
        command(shards, out, engine, workers, limit),
        env=os.environ | {"DTN_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    seconds = time.monotonic() - began
    if result.returncode != 0:
        raise BulkBenchError(f"{engine}, {workers} workers: {result.stderr.strip()[-300:]}")
    drawn: int = json.loads(result.stdout.splitlines()[-1])["drawn_in_all"]
    if drawn != limit:
        raise BulkBenchError(f"{engine}, {workers} workers: {drawn} of {limit} were drawn")
    return Timed(engine, workers, limit, seconds)


def committed(out: Path) -> int:
    """Pictures that the manifest tells of, while it is being written."""
    try:
        told = (out / "manifest.jsonl").read_text()
    except FileNotFoundError:
        return 0
    return sum(json.loads(line)["pictures"] for line in told.split("\n")[:-1])


def kill_and_go_on(shards: Path, out: Path, workers: int, pictures: int) -> Killed:
    """kill -9 as soon as half is committed, the same command again, and what is there then."""
    process = subprocess.Popen(  # noqa: S603
        command(shards, out, "local", workers, pictures),
        env=os.environ | {"DTN_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + WAIT_S
    while committed(out) < pictures / 2:
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            raise BulkBenchError("the run ended before it could be killed half way")
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = committed(out)
    run_to_end(shards, out, "local", workers, pictures)
    return Killed(pictures, before, committed(out) - before, *count_faults(out, pictures))


def count_faults(out: Path, pictures: int) -> tuple[int, int]:
    """Pictures that are missing, and those that are there again or are none of ours."""
    found, wanted = Counter(found_in(out)), set(names(pictures))
    again = sum(found.values()) - len(found)
    return len(wanted - found.keys()), again + len(found.keys() - wanted)


def found_in(out: Path) -> Iterator[str]:
    """The names of all whole pictures in OUT."""
    for shard in out.glob("*.tar"):
        with tarfile.open(shard) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is not None and png_size(file.read()) == (SIDE, SIDE):
                    yield member.name


def bare_loop(processes: int, pictures: int) -> float:
    """Pictures a second of session.run and nothing else, in so many processes at once."""
    context = get_context("spawn")
    barrier = context.Barrier(processes)
    queue: Any = context.Queue()
    arguments = barrier, queue, pictures
    crew = [context.Process(target=run_bare, args=arguments) for _ in range(processes)]
    for process in crew:
        process.start()
    spans = [queue.get(timeout=WAIT_S) for _ in crew]
    for process in crew:
        process.join()
    first, last = min(began for began, _ in spans), max(ended for _, ended in spans)
    return float(pictures * processes / (last - first))


def run_bare(barrier: Any, queue: Any, pictures: int) -> None:
    """One process of bare_loop; when it began and ended."""
    settings = read_settings()
    model = Model(settings.models / settings.default_model, settings.device, 1)
    model.warm_up()
    x = np.stack([colours(number) for number in range(model.most)])
    barrier.wait()
    began = time.monotonic()
    for _ in range(-(-pictures // model.most)):
        model.run(x, distance=False)
    queue.put((began, time.monotonic()))


def bench(pictures: int, ray_pictures: int, rounds: int, scratch: Path, tell: Tell) -> str:
    """The report. Raises BulkBenchError."""
    shards = scratch / "in"
    tell(f"making {pictures} pictures")
    write_shards(shards, pictures)
    tell("killed half way, and started again")
    killed = kill_and_go_on(shards, scratch / "killed", 2, pictures)
    tell(f"{killed.before} before, {killed.after} after, {killed.missing} missing")
    bare = {}
    for processes in (1, 2):
        bare[processes] = bare_loop(processes, min(BARE_RUNS, pictures))
        tell(f"session.run alone, {processes} at once: {bare[processes]:.0f} pictures/s")
    runs = []
    for turn in range(rounds):
        for engine, count in (("local", pictures), ("ray", ray_pictures)):
            for workers in (1, 2):
                out = scratch / f"{engine}-{workers}-{turn}"
                runs.append(run_to_end(shards, out, engine, workers, count))
                tell(f"{engine}, {workers} workers: {runs[-1].per_second:.0f} pictures/s")
    return report(killed, bare, runs)


def report(killed: Killed, bare: dict[int, float], runs: Sequence[Timed]) -> str:
    """BULK.md, without the line that tells of the command."""
    rows = [
        ["session.run alone", str(n), "", "", f"{rate:.0f}", "1.00", gain(rate, bare[1])]
        for n, rate in bare.items()
    ]
    for engine, workers in sorted({(run.engine, run.workers) for run in runs}):
        run = best_of(runs, engine, workers)
        one = best_of(runs, engine, 1)
        rows.append(
            [
                engine,
                str(workers),
                str(run.pictures),
                f"{run.seconds:.1f}",
                f"{run.per_second:.0f}",
                f"{run.per_second / bare[workers]:.2f}",
                gain(run.per_second, one.per_second),
            ]
        )
    columns = (
        "engine",
        "workers",
        "pictures",
        "seconds",
        "pictures/s",
        "to session.run",
        "to one worker",
    )
    once = killed.missing == killed.doubled == 0
    return "\n".join(
        [
            f"- {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {cpu_model()}, {os.cpu_count()} cores, "
            f"{platform.system()} {platform.release()}",
            f"- Python {platform.python_version()}, "
            + ", ".join(f"{name} {version(name)}" for name in ("dtn", "ray"))
            + f", onnxruntime {ort.__version__}",
            f"- {killed.pictures} PNGs of {SIDE} x {SIDE} in tar shards of {SHARD}, model digits; "
            "a worker runs its graph with one thread.",
            f"- `local` with 2 workers, kill -9 after {killed.before} pictures were committed, and "
            f"the same command again, which drew {killed.after}: {killed.missing} missing, "
            f"{killed.doubled} twice or unknown; every picture exactly once: "
            f"{'yes' if once else 'NO'}.",
            "- Seconds are those of the whole command, its start (Ray's, too) and the writing of "
            "tar shards included"
            + (f"; the best of {len(runs) // 4} runs." if len(runs) > 4 else "."),
            "- session.run alone: the same graph on pictures decoded before, in batches as `dtn "
            "bulk` runs them, nothing encoded, in as many processes.",
            "",
            markdown(columns, rows),
        ]
    )


def best_of(runs: Sequence[Timed], engine: str, workers: int) -> Timed:
    fitting = (run for run in runs if (run.engine, run.workers) == (engine, workers))
    return max(fitting, key=lambda run: run.per_second)


def gain(rate: float, one: float) -> str:
    return f"{rate / one:.2f}"
