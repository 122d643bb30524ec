"""The race as one table, and RESULTS.md with when, where and with what it was run."""

import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median, median_low

import onnxruntime as ort  # of either package, for the CPU or a GPU

from benchmarks.serving.race import NOT_INSTALLED, Lap, Race
from benchmarks.serving.servers import OURS, SERVERS, ModelName, Server
from benchmarks.serving.wrk import find_wrk

COLUMNS = (
    "model",
    "connections",
    "server",
    "images/s",
    "range",
    "to ours",
    "p50 ms",
    "p99 ms",
    "CPU us/image",
    "to ours",
    "failed",
    "wrong",
)
MODELS: dict[ModelName, str] = {
    "digits": "the shipped graph on the CPU",
    "standin": "a device of 1 ms a call and 20 us an image, shared by all processes",
}
WITHOUT_SERVER = {
    "session.run": "session.run and nothing else",
    "loop": "decode, session.run and encode, without a server",
}


def table(race: Race) -> str:
    """One row per model, concurrency and server, the fastest first; medians of the rounds."""
    rows = []
    for key in sorted({(lap.model, lap.concurrency) for lap in race.laps}):
        groups: dict[str, list[Lap]] = {}
        for lap in race.laps:
            if (lap.model, lap.concurrency) == key:
                groups.setdefault(lap.server, []).append(lap)
        ours = groups.get(OURS.name)
        for name in sorted(groups, key=lambda name: -middle(groups[name], "images_per_s")):
            rows.append([key[0], str(key[1]), name, *cells(groups[name], ours)])
    for name, reason in race.absent.items():
        told = reason if reason == NOT_INSTALLED else "failed to serve, see below"
        rows.append(["", "", name, told, *[""] * 8])
    return markdown(COLUMNS, rows)


def cells(laps: Sequence[Lap], ours: Sequence[Lap] | None) -> list[str]:
    speeds = [lap.images_per_s for lap in laps]
    return [
        f"{median(speeds):.0f}",
        f"{min(speeds):.0f}-{max(speeds):.0f}",
        ratio(laps, ours, "images_per_s"),
        f"{median(lap.load.p50_ms for lap in laps):.1f}",
        f"{median(lap.load.p99_ms for lap in laps):.1f}",
        f"{middle(laps, 'cpu_us'):.0f}",
        ratio(laps, ours, "cpu_us"),
        str(sum(lap.load.failed for lap in laps)),
        str(sum(lap.load.wrong for lap in laps)),
    ]


def middle(laps: Iterable[Lap], figure: str) -> float:
    return float(median(getattr(lap, figure) for lap in laps))


def ratio(laps: Sequence[Lap], ours: Sequence[Lap] | None, figure: str) -> str:
    if not ours or middle(ours, figure) == 0:
        return ""
    return f"{middle(laps, figure) / middle(ours, figure):.2f}"


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, its columns aligned for who reads it in a terminal."""
    lines = [list(columns), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    padded = ([cell.ljust(w) for cell, w in zip(line, widths, strict=True)] for line in lines)
    return "\n".join("| " + " | ".join(line) + " |" for line in padded)


def without_server(race: Race) -> list[str]:
    """What the work costs one core without a server, and how near ours comes to it."""
    lines = []
    for (model, name), runs in race.bare.items():
        if (model, name) == ("standin", "session.run"):
            continue  # it sleeps, and says nothing about a core
        held = median(run["images_per_core_s"] for run in runs)
        most = median(run["slice_per_core_s"] for run in runs)
        batch = median_low(run["batch"] for run in runs)
        lines.append(
            f"- {model}, {WITHOUT_SERVER[name]}, batches of {batch:.0f}: {held:.0f} images/s "
            f"per core, all busy{ours_per_core(race, model, held)}. Its best fifth of a second: "
            f"{most:.0f}{ours_per_core(race, model, most)}"
        )
    return lines


def ours_per_core(race: Race, model: ModelName, most: float) -> str:
    """Of each concurrency, what share ours reaches per core that it uses."""
    groups: dict[int, list[Lap]] = {}
    for lap in race.laps:
        if lap.server == OURS.name and lap.model == model:
            groups.setdefault(lap.concurrency, []).append(lap)
    shares = (
        f"{1e6 / middle(groups[concurrency], 'cpu_us') / most:.2f} at {concurrency}"
        for concurrency in sorted(groups)
    )
    return f"; ours per core: {', '.join(shares)}" if groups else ""


def surroundings() -> list[str]:
    """Date, hardware and versions, without which the figures say nothing."""
    cores = len(os.sched_getaffinity(0))
    own = ("dtn", "numpy", "uvicorn", "fastapi")
    return [
        f"- {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {cpu_model()}, {cores} cores, "
        f"{platform.system()} {platform.release()}",
        f"- Python {platform.python_version()}, onnxruntime {ort.__version__}, "
        + ", ".join(f"{name} {version(name)}" for name in own),
    ]


def wrk_version() -> str:
    told = subprocess.run([find_wrk(), "-v"], capture_output=True, text=True, check=False)  # noqa: S603
    found = re.search(r"wrk \S+", told.stdout + told.stderr)
    return found.group() if found else "wrk"


def cpu_model() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found.group(1) if found else platform.machine()


def pins(servers: Iterable[Server]) -> list[str]:
    """A line per peer with what was asked for and what is in its requirements."""
    lines = [f"- ours: {OURS.sends}"]
    for server in servers:
        if server.stem and server.installed:
            wanted = server.requirements.read_text().splitlines()
            packages = ", ".join(line.partition("#")[0].strip() for line in wanted)
            lines.append(f"- {server.name}: {server.sends}; {packages}")
    return lines


def probe_report(told: Mapping[str, Mapping[str, str]], command: str) -> str:
    """PROBES.md: a row per finding, a column per server."""
    names = [name for name, found in told.items() if "all" not in found]
    rows = dict.fromkeys(row for name in names for row in told[name])
    body = [[row, *(told[name].get(row, "") for name in names)] for row in rows]
    absent = [f"- {name}: {found['all']}" for name, found in told.items() if "all" in found]
    return "\n".join(
        [
            "# When things go wrong",
            "",
            f"Written by `{command}`; what each probe does: README.md.",
            "",
            *surroundings(),
            *absent,
            "",
            markdown(["", *names], body),
            "",
        ]
    )


def report(race: Race, command: str) -> str:
    """RESULTS.md."""
    elsewhere = median(lap.elsewhere for lap in race.laps)
    models = sorted({lap.model for lap in race.laps})
    return "\n".join(
        [
            "# The race",
            "",
            f"Written by `{command}`. What the columns mean, how answers are checked: README.md.",
            "",
            *surroundings(),
            f"- {wrk_version()}",
            f"- Cores busy with neither a server nor wrk meanwhile: {elsewhere:.2f} (median)",
            *(f"- {model}: {MODELS[model]}" for model in models),
            *without_server(race),
            "",
            table(race),
            "",
            *(f"- {name}: {why}" for name, why in race.absent.items() if why != NOT_INSTALLED),
            "What was sent, and the peers' versions:",
            "",
            *pins(SERVERS.values()),
            "",
        ]
    )
