"""dtn bench: race our service against others, watch servers when things go wrong."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import click

from benchmarks.bulk import BulkBenchError
from benchmarks.bulk import bench as run_bulk
from benchmarks.device_commands import COMMANDS
from benchmarks.options import Names, Numbers, command_line, out_option, stoppable, tell
from benchmarks.replicas import ClusterError
from benchmarks.scaling import PARTS
from benchmarks.scaling import bench as run_scaling
from benchmarks.scaling_report import report as scaling_report
from benchmarks.scaling_report import with_figures
from benchmarks.serving.asking import Doses
from benchmarks.serving.probes import PROBES, probe_all
from benchmarks.serving.race import race as run_race
from benchmarks.serving.results import probe_report, report
from benchmarks.serving.servers import BARE_LOOP, PEERS, SERVERS, ModelName, Server
from benchmarks.serving.wrk import WrkError, find_wrk
from service.cli import Fault

MODELS: tuple[ModelName, ...] = get_args(ModelName)


SERVERS_OPTION = click.option(
    "--servers",
    default="all",
    show_default=True,
    help=f"Comma-separated: {', '.join(SERVERS)}. `all` goes without those not installed.",
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


for command in COMMANDS:
    bench.add_command(command)
