"""The race: servers in turn, round after round, at several concurrencies."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median_low

from benchmarks.serving.device import ROOT
from benchmarks.serving.pictures import Pictures, make_pictures, write_requests
from benchmarks.serving.process import TICKS_PER_S, NotServingError, python_path, running
from benchmarks.serving.servers import BARE_LOOP, ModelName, Server
from benchmarks.serving.wrk import Load, WrkError, load

PICTURES = 512
WARM_UP_S = 2.0
WARM_UP_CONCURRENCY = 32

NOT_INSTALLED = "not installed"

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Lap:
    """One server at one concurrency in one round."""

    server: str
    model: ModelName
    concurrency: int
    load: Load
    cpu_s: float  # of the server's whole tree
    elsewhere: float  # cores that neither the server nor wrk kept busy

    @property
    def images_per_s(self) -> float:
        return self.load.images / self.load.seconds

    @property
    def cpu_us(self) -> float:
        """Microseconds of CPU per picture."""
        return self.cpu_s * 1e6 / max(1, self.load.images)


@dataclass(frozen=True)
class Race:
    """All laps, what the work costs without a server, and who did not run, with the reason."""

    laps: list[Lap]
    bare: dict[tuple[ModelName, str], list[dict[str, float]]]
    absent: dict[str, str]


def race(
    servers: Sequence[Server],
    models: Iterable[ModelName],
    concurrencies: Sequence[int],
    seconds: float,
    rounds: int,
    scratch: Path,
    tell: Tell,
) -> Race:
    """Measure. Rounds run forwards and backwards by turns, so that nobody is always last."""
    absent = {server.name: NOT_INSTALLED for server in servers if not server.installed}
    if not BARE_LOOP.installed:
        absent[BARE_LOOP.name] = NOT_INSTALLED
    present = [server for server in servers if server.installed]
    result = Race([], {}, absent)
    for model in models:
        pictures = make_pictures(model, PICTURES)
        for turn in range(rounds):
            for name, found in without_server(model, seconds):
                result.bare.setdefault((model, name), []).append(found)
            for server in present[:: 1 if turn % 2 == 0 else -1]:
                tell(f"{model}, round {turn + 1} of {rounds}: {server.name}")
                try:
                    for lap in laps(server, pictures, concurrencies, seconds, scratch):
                        result.laps.append(lap)
                        tell(describe(lap))
                except (NotServingError, WrkError) as error:
                    absent[f"{server.name} ({model})"] = str(error)
                    tell(str(error))
    return result


def describe(lap: Lap) -> str:
    found = lap.load
    return (
        f"  {lap.concurrency:3} connections {lap.images_per_s:7.0f} images/s  "
        f"p50 {found.p50_ms:.1f} ms  p99 {found.p99_ms:.1f} ms  {lap.cpu_us:.0f} us of CPU  "
        f"{found.failed} failed  {found.wrong} wrong"
    )


def laps(
    server: Server, pictures: Pictures, concurrencies: Sequence[int], seconds: float, scratch: Path
) -> Iterable[Lap]:
    """One start of a server, driven at each concurrency. Raises NotServingError."""
    with running(server, pictures.model, scratch) as started:
        asyncio.run(started.wait_ready(pictures))
        requests = scratch / f"{server.name}.requests"
        write_requests(requests, server, started.port, pictures)
        for warm_up in (1, WARM_UP_CONCURRENCY):
            load(started.port, requests, warm_up, WARM_UP_S / 2, pictures)
        for concurrency in concurrencies:
            cpu_s, before = started.cpu_s(), machine_s()
            start = time.monotonic()
            found = load(started.port, requests, concurrency, seconds, pictures)
            used = started.cpu_s() - cpu_s
            busy = machine_s() - before - used - found.cpu_s
            elsewhere = max(0.0, busy / (time.monotonic() - start))
            yield Lap(server.name, pictures.model, concurrency, found, used, elsewhere)


def machine_s() -> float:
    """Seconds that all of the machine's cores have been busy since it started."""
    first = Path("/proc/stat").read_text().split("\n", 1)[0]
    user, nice, system, _idle, _wait, irq, softirq, *_ = map(int, first.split()[1:])
    return (user + nice + system + irq + softirq) / TICKS_PER_S


def without_server(model: ModelName, seconds: float) -> Iterable[tuple[str, dict[str, float]]]:
    """bare.py and, where its environment is there, bare_loop.py, for as long as a server is driven
    and on every core at once as a server is, for cores share caches and power. The mean of their
    processes."""
    commands = {"session.run": [sys.executable, "-m", "benchmarks.serving.bare", model]}
    if BARE_LOOP.installed:
        commands["loop"] = BARE_LOOP.command(model)
    environment = os.environ | {
        "PYTHONPATH": python_path(),
        "BENCH_MODEL": model,
        "BENCH_SECONDS": str(seconds),
    }

    def run(command: list[str]) -> dict[str, float]:
        done = subprocess.run(  # noqa: S603 - our own commands
            command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment
        )
        found: dict[str, float] = json.loads(done.stdout)
        return found

    cores = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(cores) as pool:
        for name, command in commands.items():
            found = list(pool.map(run, [command] * cores))
            yield (
                name,
                {
                    "images_per_core_s": mean(one["images_per_core_s"] for one in found),
                    "slice_per_core_s": mean(one["slice_per_core_s"] for one in found),
                    "batch": median_low(one["batch"] for one in found),
                },
            )
