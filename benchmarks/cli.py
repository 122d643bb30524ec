"""dtn bench: race our service against others, watch servers when things go wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import click

from benchmarks.bulk import BulkBenchError
from benchmarks.bulk import bench as run_bulk
from benchmarks.replicas import ClusterError
from benchmarks.scaling import PARTS
from benchmarks.scaling import bench as run_scaling
from benchmarks.scaling_report import report as scaling_report
from benchmarks.scaling_report import with_figures
from benchmarks.serving.asking import Doses
from benchmarks.serving.device import ROOT
from benchmarks.serving.probes import PROBES, probe_all
from benchmarks.serving.process import NotServingError
from benchmarks.serving.race import race as run_race
from benchmarks.serving.results import probe_report, report
from benchmarks.serving.servers import BARE_LOOP, PEERS, SERVERS, ModelName, Server
from benchmarks.serving.wrk import WrkError, find_wrk
from service.cli import Fault
from service.manifest import ModelError

MODELS: tuple[ModelName, ...] = get_args(ModelName)


class Names(click.ParamType[tuple[str, ...]]):
    """Comma-separated names out of those there are, or `all`."""

    name = "names"

    def __init__(self, known: Iterable[str]) -> None:
        self.known = tuple(known)

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        names = self.known if value == "all" else tuple(str(value).split(","))
        for name in names:
            if name not in self.known:
                self.fail(f"{name!r} is none of {', '.join(self.known)}", param, ctx)
        return names


class Numbers(click.ParamType[tuple[int, ...]]):
    """Comma-separated positive integers."""

    name = "numbers"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        try:
            numbers = tuple(int(number) for number in str(value).split(","))
        except ValueError:
            numbers = ()
        if not numbers or min(numbers) < 1:
            self.fail(f"{value!r} are no positive numbers", param, ctx)
        return numbers


SERVERS_OPTION = click.option(
    "--servers",
    default="all",
    show_default=True,
    help=f"Comma-separated: {', '.join(SERVERS)}. `all` goes without those not installed.",
)


def out_option(folder: str) -> Callable[[Any], Any]:
    """--out, by default `folder` of this repository."""
    return click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False, exists=True),
        default=ROOT / folder,
        show_default=folder,
        help="Folder to write the results to.",
    )


@click.group(invoke_without_command=True)
@click.pass_context
def bench(ctx: click.Context) -> None:
    """Race the service against other servers of the same model.

    Without a command: the race, with its defaults.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(race)


@bench.command()
@SERVERS_OPTION
@out_option("benchmarks/serving")
@click.option(
    "--models",
    type=Names(MODELS),
    default="all",
    show_default=True,
    help=f"Comma-separated: {', '.join(MODELS)}.",
)
@click.option(
    "--concurrency",
    type=Numbers(),
    default="1,8,32,64",
    show_default=True,
    help="Connections that wrk keeps busy, comma-separated.",
)
@click.option("--seconds", type=click.FloatRange(1), default=5.0, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
def race(
    servers: str,
    out: Path,
    models: Sequence[ModelName],
    concurrency: Sequence[int],
    seconds: float,
    rounds: int,
) -> None:
    """Servers in turn under wrk; prints one table and writes RESULTS.md."""
    chosen = choose(servers)
    try:
        find_wrk()
        with stoppable(), TemporaryDirectory(prefix="dtn-bench-") as scratch:
            run = run_race(chosen, models, concurrency, seconds, rounds, Path(scratch), tell)
    except WrkError as error:
        raise Fault(str(error)) from error
    if not run.laps:
        raise Fault(
            f"nothing was measured: {'; '.join(f'{k}: {v}' for k, v in run.absent.items())}"
        )
    text = report(run, command_line())
    (out / "RESULTS.md").write_text(text)
    click.echo(text)


@bench.command()
@SERVERS_OPTION
@out_option("benchmarks/serving")
@click.option(
    "--only",
    "names",
    type=Names(PROBES),
    default="all",
    show_default=True,
    help=f"Comma-separated: {', '.join(PROBES)}.",
)
@click.option("--seconds", type=click.FloatRange(1), default=10.0, show_default=True)
@click.option(
    "--repeats",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="SIGTERMs, reloads, cold starts.",
)
@click.option("--clients", type=click.IntRange(1), default=300, show_default=True)
@click.option("--hostile", type=click.IntRange(1), default=20_000, show_default=True)
def probes(
    servers: str,
    out: Path,
    names: Sequence[str],
    seconds: float,
    repeats: int,
    clients: int,
    hostile: int,
) -> None:
    """What servers do when things go wrong; prints one table and writes PROBES.md."""
    doses = Doses(seconds, repeats, clients, hostile)
    with stoppable(), TemporaryDirectory(prefix="dtn-bench-") as scratch:
        told = probe_all(choose(servers), names, doses, Path(scratch), tell)
    text = probe_report(told, command_line())
    (out / "PROBES.md").write_text(text)
    click.echo(text)


@bench.command()
@out_option("benchmarks")
@click.option("--pictures", type=click.IntRange(1), default=100_000, show_default=True)
@click.option(
    "--ray-pictures", type=click.IntRange(1), help="Of these, for Ray's runs; by default all."
)
@click.option("--rounds", type=click.IntRange(1), default=1, show_default=True)
def bulk(out: Path, pictures: int, ray_pictures: int | None, rounds: int) -> None:
    """dtn bulk killed half way and started again, and by Ray; prints a table, writes BULK.md."""
    try:
        with stoppable(), TemporaryDirectory(prefix="dtn-bench-") as scratch:
            told = run_bulk(pictures, ray_pictures or pictures, rounds, Path(scratch), tell)
    except BulkBenchError as error:
        raise Fault(str(error)) from error
    text = f"# Bulk work\n\nWritten by `{command_line()}`.\n\n{told}\n"
    (out / "BULK.md").write_text(text)
    click.echo(text)


@bench.command()
@out_option("benchmarks")
@click.option(
    "--only",
    "parts",
    type=Names(PARTS),
    default="all",
    show_default=True,
    help=f"Comma-separated: {', '.join(PARTS)}.",
)
@click.option("--seconds", type=click.FloatRange(1), default=4.0, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option(
    "--sizing",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="A docs/sizing.md, whose figures to replace.",
)
def scaling(
    out: Path, parts: Sequence[str], seconds: float, rounds: int, sizing: Path | None
) -> None:
    """Replicas behind HAProxy with the shipped configuration: what more of them bring, what the
    balancer costs, what a core serves. Writes SCALING.json and, from that, SCALING.md."""
    try:
        with stoppable(), TemporaryDirectory(prefix="dtn-bench-") as scratch:
            result = run_scaling(parts, seconds, rounds, Path(scratch), command_line(), tell)
    except (ClusterError, WrkError) as error:
        raise Fault(str(error)) from error
    (out / "SCALING.json").write_text(json.dumps(result, indent=1) + "\n")
    text = scaling_report(result)
    (out / "SCALING.md").write_text(text)
    if sizing is not None:
        try:
            sizing.write_text(with_figures(sizing.read_text(), result))
        except ValueError as error:
            raise Fault(f"{sizing}: {error}") from error
    click.echo(text)


@bench.command()
@click.argument("peers", nargs=-1, required=True)
def install(peers: tuple[str, ...]) -> None:
    """Make an environment for each of PEERS, or `all`, by pip."""
    known = {peer.name: peer for peer in [*PEERS, BARE_LOOP]}
    wanted = list(known) if peers == ("all",) else peers
    for name in wanted:
        if name not in known:
            raise Fault(f"{name!r} is no peer; there is: {', '.join(known)}")
    for name in wanted:
        tell(f"installing {name}")
        install_one(known[name])


def install_one(peer: Server) -> None:
    """An environment with what the peer's requirements pin. Raises Fault."""
    environment = peer.python.parents[1]
    shutil.rmtree(environment, ignore_errors=True)
    pip = [str(peer.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)  # noqa: S603
        subprocess.run([*pip, "-r", peer.requirements], check=True)  # noqa: S603
    except (subprocess.CalledProcessError, OSError) as error:
        raise Fault(f"{peer.name} could not be installed: {error}") from error
    peer.stamp.touch()


@bench.command()
@click.option("--data", type=click.Path(path_type=Path), default=Path("data"), show_default=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option(
    "--presets",
    type=Names(("digits_paper", "digits", "emoji")),
    default="digits_paper",
    show_default=True,
    help="Comma-separated: digits_paper, digits, emoji.",
)
@click.option("--batch", type=click.IntRange(2), help="By default the preset's own.")
@click.option("--steps", type=click.IntRange(1), default=20, show_default=True, help="A round.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@out_option("benchmarks/training")
def training(
    data: Path,
    device: str,
    presets: Sequence[str],
    batch: int | None,
    steps: int,
    rounds: int,
    out: Path,
) -> None:
    """Steps a second of training, against a plain loop of the digits', and how far the floor is."""
    from benchmarks.training import speed  # noqa: PLC0415 -- torch, for this one alone
    from training.options import on_device  # noqa: PLC0415

    try:
        on_device(device)
        speeds = [speed.measure(data, device, batch, steps, rounds, name) for name in presets]
        text = speed.report(speeds, command_line())
    except (FileNotFoundError, ValueError) as error:
        raise Fault(str(error)) from error
    (out / ("RESULTS.md" if device == "cpu" else "CUDA.md")).write_text(text)
    click.echo(text)


@bench.command()
@click.option(
    "--models",
    "folders",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    multiple=True,
    default=(ROOT / "models/digits", ROOT / "models/emoji"),
    help="A model folder; give it several times. By default the shipped models.",
)
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option("--batches", type=Numbers(), default="1,2,4,8,16,32,64,128,256", show_default=True)
@click.option("--seconds", type=click.FloatRange(0), default=1.0, show_default=True)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Folder of digits/ and faces/ for real pictures; without it, house numbers drawn by us.",
)
@click.option("--pictures", type=click.IntRange(1), default=2000, show_default=True)
@out_option("benchmarks/gpu")
def gpu(
    folders: Sequence[Path],
    device: str,
    batches: Sequence[int],
    seconds: float,
    data: Path | None,
    pictures: int,
    out: Path,
) -> None:
    """The shipped graphs on a GPU by every way that onnxruntime and PyTorch have, parity with the
    CPU, and how far the floor is. Prints it and writes RESULTS.md."""
    from benchmarks.gpu import speed  # noqa: PLC0415 -- torch, as above
    from benchmarks.gpu.ways import WAYS  # noqa: PLC0415

    try:
        if device == "cuda":
            speed.require_cuda()
        found = []
        for folder in folders:
            tell(f"measuring {folder}")
            found.append(speed.measure(folder, device, batches, WAYS, seconds, data, pictures))
        text = speed.report(found, speed.device_of(device), command_line())
    except (ModelError, FileNotFoundError, ValueError) as error:
        raise Fault(str(error)) from error
    (out / "RESULTS.md").write_text(text)
    click.echo(text)


@bench.command()
@click.option(
    "--model",
    "folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=ROOT / "models/emoji",
    help="A model folder among others; by default the shipped emoji.",
)
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option("--connections", type=Numbers(), default="1,8,32,64", show_default=True)
@click.option("--pictures", type=click.IntRange(1), default=16, show_default=True)
@click.option("--seconds", type=click.IntRange(1), default=3, show_default=True)
def served(
    folder: Path, device: str, connections: Sequence[int], pictures: int, seconds: int
) -> None:
    """The service over HTTP with tensors for pictures, beside its session alone. Prints a table."""
    from benchmarks.gpu import served as over_http  # noqa: PLC0415 -- torch, as above

    try:
        alone, laps = over_http.bench(folder, device, connections, pictures, seconds)
    except (ModelError, NotServingError, WrkError) as error:
        raise Fault(str(error)) from error
    click.echo(over_http.report(folder, alone, laps, len(os.sched_getaffinity(0))))


def choose(names: str) -> list[Server]:
    """The servers asked for. Raises Fault where one asked for by name is not installed."""
    if names == "all":
        return list(SERVERS.values())
    chosen = []
    for name in names.split(","):
        if name not in SERVERS:
            raise Fault(f"{name!r} is no server; there is: {', '.join(SERVERS)}")
        if not SERVERS[name].installed:
            raise Fault(f"{name} is not installed: dtn bench install {name}")
        chosen.append(SERVERS[name])
    return chosen


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C would, so that no server outlives the benchmark."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def tell(line: str) -> None:
    click.echo(line, err=True)


def command_line() -> str:
    """What was typed, without the program's path."""
    return " ".join(["dtn", *sys.argv[1:]])
