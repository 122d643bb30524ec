"""The commands that reproduce the paper: dtn reproduce, dtn evaluate."""

from pathlib import Path

import click

from training import likeness, table4
from training.errors import one_line_errors
from training.evaluate import TABLES, finished, show
from training.face_evaluate import evaluate_faces
from training.faces import load_faces
from training.options import data_option, device_option, on_device, upscaler_option
from training.reproduce import reproduce as train_missing
from training.reproduction import write_report
from training.run import open_run
from training.upscaler import upscale_by

runs_option = click.option(
    "--runs",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Folder whose subfolders are runs.",
)


@click.command()
@click.argument("table", type=click.Choice(list(TABLES)))
@click.option("--seeds", type=click.IntRange(1, 100), default=3, show_default=True)
@click.option(
    "--small",
    is_flag=True,
    help="1,200 steps of 32 pictures instead of 6,000 of 128: for two CPU cores.",
)
@click.option(
    "--at-once",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Runs side by side: on a GPU threads, else processes; OMP_NUM_THREADS=1 gives each one "
    "core.",
)
@runs_option
@data_option
@device_option
@one_line_errors
def reproduce(
    table: str, seeds: int, small: bool, at_once: int, runs: Path, data: Path, device: str
) -> None:
    """Train what is missing of TABLE, then print it beside the paper's figures.

    table1, table2 and table3 are the paper's; table1_alpha has another weight of L_CONST,
    table1_plain another f; plus has each change beyond the paper, table1_plus and table3_plus what
    it leaves out left out of DTN+, variants the other d and d2 it mentions; reverse is appendix D.
    Started again, it goes on where it stopped.
    """
    failed = train_missing(table, seeds, runs, data, on_device(device), small, at_once)
    click.echo(show(table, finished(runs)))
    if failed:
        logs = ", ".join(str(path) for path in failed)
        raise ValueError(f"{len(failed)} runs failed; their last words are in {logs}")


@click.command()
@click.argument("table", type=click.Choice([*TABLES, "table4", "report"]), default="table1")
@runs_option
@click.option("--run", help="The run of faces, for table4 and the report; without it, emoji.")
@click.option(
    "--protocol",
    type=click.Choice(["paper", "SVHN-train", "SVHN-10k"]),
    help="Only runs on this data; paper: SVHN's extra split to learn from, 26,032 test pictures.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("REPRODUCTION.md"),
    show_default=True,
    help="Of the report.",
)
@upscaler_option
@data_option
@one_line_errors
def evaluate(
    table: str,
    runs: Path,
    run: str | None,
    protocol: str | None,
    out: Path,
    upscaler: Path,
    data: Path,
) -> None:
    """Print TABLE of the paper beside the figures of the finished runs.

    table4 measures a run of faces first: Table 4, Eq. 8, likeness, validity. report writes
    REPRODUCTION.md of all that is finished, and the figures themselves beside it as JSON; those
    of runs that are elsewhere stay in it.
    """
    faces = runs / (run or "emoji")
    if table == "report":
        if run and not (faces / "table4.json").exists():
            raise FileNotFoundError(
                f"{faces} has no table4.json: run `dtn evaluate table4 --run {run}` first"
            )
        for path in write_report(runs, faces, out):
            click.echo(path)
    elif table == "table4":
        opened = open_run(faces, "cpu")
        evaluate_faces(opened, load_faces(opened, data), data, upscale_by(upscaler))
        click.echo(table4.show(opened.folder / "table4.json"))
        click.echo(likeness.show(opened.folder / "likeness.json"))
    elif records := finished(runs):
        click.echo(show(table, records, protocol))
    else:
        raise FileNotFoundError(f"no finished run in {runs}: run `dtn reproduce {table}` first")


COMMANDS = (reproduce, evaluate)
