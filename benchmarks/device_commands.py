"""dtn bench training, gpu and served: what is measured on a GPU, or on the CPU in its place.

They alone want torch, which each imports when it is called.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import click

from benchmarks.options import Names, Numbers, command_line, out_option, tell
from benchmarks.serving.device import ROOT
from benchmarks.serving.process import NotServingError
from benchmarks.serving.wrk import WrkError
from service.cli import Fault
from service.manifest import ModelError


@click.command()
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
    from benchmarks.training import speed  # noqa: PLC0415 -- torch
    from training.options import on_device  # noqa: PLC0415

    try:
        on_device(device)
        speeds = [speed.measure(data, device, batch, steps, rounds, name) for name in presets]
        text = speed.report(speeds, command_line())
    except (FileNotFoundError, ValueError) as error:
        raise Fault(str(error)) from error
    (out / ("RESULTS.md" if device == "cpu" else "CUDA.md")).write_text(text)
    click.echo(text)


@click.command()
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


@click.command()
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


COMMANDS = (training, gpu, served)
