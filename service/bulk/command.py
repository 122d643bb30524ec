"""dtn bulk: carry over any number of pictures, in as many runs as it takes."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import click
from tqdm import tqdm

from service.bulk.chunks import BulkError, Chunk, Done, Job, Kind
from service.bulk.ledger import Ledger, staging_in
from service.bulk.local import draw_local
from service.bulk.sources import Source, open_source, require_extra
from service.cli import Fault
from service.commands import picture_options, read_settings
from service.manifest import read_manifest
from service.models import Model, model_folders
from service.problems import Problem
from service.schemas import PictureFormat
from service.settings import Settings
from service.transfer import require_distance
from service.transfer_here import load_model

Engine = Literal["local", "ray"]
Draw = Callable[[Iterator[Chunk], Job, int], Iterator[Done]]

MOST_TOLD = 20  # complaints that are printed; all are counted


@dataclass
class Summary:
    """What a run has done."""

    model: str
    engine: Engine
    workers: int
    drawn: int = 0
    rejected: int = 0
    unreadable: int = 0  # pictures, shards or folders that another run may be able to read
    seconds: float = 0.0
    per_second: float | None = None  # once workers had started: after the first chunk
    drawn_in_all: int = 0  # by this and earlier runs
    rejected_in_all: int = 0


class Progress:
    """A bar that counts pictures, and complaints above it."""

    def __init__(self, summary: Summary, limit: int | None) -> None:
        self.summary = summary
        # disable=None: no bar where stderr is no terminal.
        self.bar = tqdm(total=limit, unit="picture", disable=None)
        self.began = time.monotonic()
        self.first: tuple[float, int] | None = None

    def complain(self, line: str) -> None:
        """Of what could not be read."""
        self.summary.unreadable += 1
        if self.summary.unreadable <= MOST_TOLD:
            tqdm.write(f"Error: {line}", file=sys.stderr)

    def count(self, done: Done) -> None:
        """A chunk has been committed."""
        summary = self.summary
        summary.drawn += len(done.written)
        summary.rejected += len(done.rejected)
        for key, reason in done.failed:
            self.complain(f"{key}: {reason}")
        now, told = time.monotonic(), summary.drawn + summary.rejected
        summary.seconds = now - self.began
        if self.first is None:
            self.first = now, told
        elif told > self.first[1]:
            summary.per_second = (told - self.first[1]) / (now - self.first[0])
        self.bar.update(len(done.written) + len(done.rejected))
        self.bar.set_postfix(rejected=summary.rejected, refresh=False)


@click.command()
@click.argument("given", metavar="IN")
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path, file_okay=False))
@click.option("--engine", type=click.Choice(get_args(Engine)), default="local", show_default=True)
@picture_options
@click.option("--distance", is_flag=True, help="Keep ‖f(x) − f(G(x))‖ (Eq. 8), too.")
@click.option("--from", "source", type=click.Choice(get_args(Kind)), help="What IN is.")
@click.option("--to", "target", type=click.Choice(get_args(Kind)), help="What OUT is; as IN is.")
@click.option(
    "--column",
    help="Of Parquet the column with the pictures, by default image; of tar shards the ending "
    "of the members that are taken, such as jpg, by default any picture's.",
)
@click.option("--limit", type=click.IntRange(1), help="Pictures of IN that are looked at.")
@click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    help="Processes, or Ray's actors, of one model each; by default DTN_WORKERS.",
)
@click.option(
    "--chunk",
    type=click.IntRange(1, 65536),
    default=1024,
    show_default=True,
    help="Pictures that are committed at once, and of a shard in OUT.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.pass_context
def bulk(
    ctx: click.Context,
    *,
    given: str,
    out: Path,
    engine: Engine,
    reference: str | None,
    picture_format: PictureFormat,
    size: str,
    distance: bool,
    source: Kind | None,
    target: Kind | None,
    column: str | None,
    limit: int | None,
    workers: int | None,
    chunk: int,
    as_json: bool,
) -> None:
    """Carry over all pictures of IN to OUT, each once, in as many runs as it takes.

    IN is a folder with pictures at any depth, a folder, file or pattern of tar shards as
    WebDataset has them, or of Parquet files. OUT is of the same kind, unless --to says another.

    A run that was stopped or killed goes on where it was when the same command is called again;
    what is done is skipped, by its place in IN. Pictures that cannot be drawn are listed in
    OUT/rejects.jsonl. The exit code is 2 where something could not be read; the next run tries
    that again.
    """
    settings = read_settings()
    model = load_model(settings, reference or settings.default_model)
    workers = workers or settings.workers
    try:
        require_distance(model, distance)
        found = open_source(given, source, column, out)
        kind = target or found.kind
        if kind == "parquet":
            require_extra("pyarrow")
        job = Job(
            model=folder_of(model, settings),
            device=settings.device,
            threads=settings.threads,
            picture_format=picture_format,
            size=int(size),
            distance=distance,
            max_bytes=settings.max_bytes,
            max_pixels=settings.max_pixels,
            source=found.kind,
            column=found.column,
            target=kind,
            staging=staging_in(out),
        )
        draw = engine_of(engine)
        summary = Summary(model.reference, engine, workers)
        with closing(Ledger(out, kind, facts(given, model, job), job.staging)) as ledger:
            del model  # the workers have their own
            carry_over(found, ledger, job, draw, summary, limit, chunk)
    except (BulkError, Problem) as error:
        raise Fault(str(error)) from error
    click.echo(json.dumps(asdict(summary)) if as_json else told(summary))
    if summary.unreadable:
        ctx.exit(2)


def carry_over(
    source: Source,
    ledger: Ledger,
    job: Job,
    draw: Draw,
    summary: Summary,
    limit: int | None,
    size: int,
) -> None:
    """Draw what is not done, commit it chunk by chunk, and sum it up. Raises BulkError."""
    progress = Progress(summary, limit)
    with progress.bar:
        groups = source.groups(size, progress.complain)
        for done in draw(
            ledger.plan(groups, f".{job.picture_format}", limit), job, summary.workers
        ):
            ledger.commit(done)
            progress.count(done)
    summary.drawn_in_all, summary.rejected_in_all = ledger.totals()
    if not summary.drawn_in_all + summary.rejected_in_all + summary.unreadable:
        raise BulkError("IN has no pictures")


def engine_of(name: Engine) -> Draw:
    """Raises BulkError where Ray is wanted and not installed."""
    if name == "local":
        return draw_local
    require_extra("ray")
    require_extra("pyarrow")
    from service.bulk.on_ray import draw_by_ray  # noqa: PLC0415 - of the extra `bulk`

    return draw_by_ray


def facts(given: str, model: Model, job: Job) -> dict[str, str]:
    """What all pictures in one OUT have in common."""
    manifest = model.manifest
    return {
        "IN": str(Path(given).resolve()),
        "model": manifest.reference,
        "model of sha256": manifest.graphs["transfer"].sha256,
        "format": job.picture_format,
        "size": str(job.size) if manifest.alignment else "the model's",
        "distance": "always" if manifest.alignment else "yes" if job.distance else "no",
        "OUT of kind": job.target,
        "IN of kind": job.source,
        "column": job.column or "none",
    }


def folder_of(model: Model, settings: Settings) -> Path:
    """Where a model was loaded from."""
    folders = model_folders(settings.models)
    return next(each for each in folders if read_manifest(each) == model.manifest).resolve()


def told(summary: Summary) -> str:
    """The summary as a line for people."""
    speed = f", {summary.per_second:.0f} a second" if summary.per_second else ""
    return (
        f"{summary.model}: {summary.drawn} drawn, {summary.rejected} rejected, "
        f"{summary.unreadable} unreadable in {summary.seconds:.1f} s{speed}; "
        f"in all {summary.drawn_in_all} drawn, {summary.rejected_in_all} rejected"
    )
