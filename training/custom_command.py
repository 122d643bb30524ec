"""`dtn train custom`: from two folders of pictures to a report and a model that can be served."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import torch

from training.custom import (
    PRESET,
    Pictures,
    custom_config,
    gather_pictures,
    settled,
    train_custom,
)
from training.custom_export import export_custom, require_own
from training.custom_f import FACES, LABELLED, chosen, given_net
from training.custom_metrics import ROWS, measure, shown
from training.custom_report import write_report
from training.errors import one_line_errors
from training.onnx_f import range_of
from training.options import data_option, device_option, on_device
from training.parallel import ranks
from training.run import Run

OWN_RUNS = {"digits": Path("runs/digits")}  # an f's short name


class PresetOrCustom(click.Command):
    """`dtn train PRESET`, where `custom` is a command with options of its own."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        if args[:1] == [PRESET]:
            return custom.make_context(f"{info_name} {PRESET}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        return super().invoke(ctx) if ctx.command is self else ctx.command.invoke(ctx)


@click.command(PRESET)
@click.option("--source", type=click.Path(path_type=Path), required=True, help="Folder of s.")
@click.option("--target", type=click.Path(path_type=Path), required=True, help="Folder of t.")
@click.option(
    "--f",
    required=True,
    metavar=f"MODEL.onnx|RUN|digits|{FACES}|{LABELLED}",
    help="What should stay the same: an ONNX classifier or embedding, the f of a run of digits, "
    f"the network for faces of --data, or `{LABELLED}`: one that is taught here, on a source with "
    "a subfolder for each class.",
)
@click.option("--layer", help="Of an ONNX f: the value that is f(x).")
@click.option(
    "--f-range",
    help="Of an ONNX f: imagenet, 0..1, -1..1, 0..255, or MEAN/DEVIATION of the channels in 0..1.",
)
@click.option("--f-side", type=click.IntRange(8, 512), help="Of an ONNX f of any size: pixels.")
@click.option(
    "--size",
    type=click.Choice(["32", "64", "128"]),
    default="32",
    show_default=True,
    help="Pixels of G(x).",
)
@click.option(
    "--fit",
    type=click.Choice(["crop", "pad"]),
    help="How pictures become square: crop (the default) takes the middle, pad repeats the edge.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Run folder; default runs/custom.")
@click.option(
    "--export",
    "model",
    type=click.Path(path_type=Path),
    default=Path("models") / PRESET,
    show_default=True,
    help="Model folder; its name is the model's.",
)
@click.option("--seed", type=int)
@click.option("--steps", type=click.IntRange(1), help="Steps of g and D.")
@click.option("--f-steps", type=click.IntRange(1), help="Steps of a labelled f.")
@click.option("--batch", type=click.IntRange(2), help="Pictures of s in a step, and of t.")
@click.option("--lr", type=float, help="Learning rate of g and D.")
@click.option("--alpha", type=float, help="Weight of L_CONST; more keeps more of x.")
@click.option("--beta", type=float, help="Weight of L_TID.")
@click.option("--gamma", type=float, help="Weight of L_TV; more is smoother.")
@data_option
@device_option
@one_line_errors
def custom(
    source: Path,
    target: Path,
    f: str,
    size: str,
    out: Path | None,
    model: Path,
    data: Path,
    device: str,
    **given: Any,
) -> None:
    """Train a DTN between two folders of pictures, report on it, and export it.

    Goes on where an earlier start stopped. Afterwards `dtn serve` serves it:
    POST /transfer?model=custom.
    """
    if ranks() > 1:
        raise ValueError("a custom run trains on one device: start it without torchrun")
    if given["f_range"] is not None:
        range_of(given["f_range"])
    if not f.endswith(".onnx") and any(given[name] for name in ("layer", "f_range", "f_side")):
        raise ValueError("--layer, --f-range and --f-side are of an ONNX f")
    if f != LABELLED and given["f_steps"]:
        raise ValueError("--f-steps are of --f labelled")
    require_own(model)
    where = str(OWN_RUNS[f]) if f in OWN_RUNS and not Path(f).is_dir() else f
    config = settled(source, target, where, int(size), **given)
    if f != LABELLED:  # what cannot be trained shall leave no run behind
        given_net(config, data, torch.device("cpu"))
    pictures = gather_pictures(config)
    run = Run(out or Path("runs") / PRESET, PRESET, config, on_device(device))
    for line in finish(run, pictures, data, model):
        click.echo(line)


def finish(run: Run, pictures: Pictures, data: Path, model: Path) -> Sequence[str]:
    """Train what is left, measure, report, export. Returns what to tell."""
    config = custom_config(run)
    trained = train_custom(run, data, pictures)
    metrics, drawn = measure(trained)
    record = run.write_metrics("two folders, a tenth held out", pictures.sizes, metrics)
    found = chosen(trained.f.net)
    report = write_report(run, config, record, drawn, found)
    export_custom(run, trained, model)
    f_lines = [f"f: {', '.join(f'{name} {value}' for name, value in found.items())}"] * bool(found)
    return [
        *f_lines,
        *(f"{ROWS[name]}: {shown(name, m['value'])}" for name, m in metrics.items()),
        f"report: {report}",
        f"model: {model}; dtn serve, then POST /transfer?model={model.resolve().name}",
    ]
