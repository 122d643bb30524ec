"""The service's own commands: dtn serve, dtn transfer."""

import sys
from pathlib import Path
from typing import Any, get_args

import click
from pydantic import ValidationError
from tqdm import tqdm

from service.cli import Fault
from service.manifest import ModelError
from service.models import Model, Models, model_folders
from service.problems import Problem
from service.schemas import PictureFormat
from service.server import ServeError
from service.server import serve as serve_until_stopped
from service.settings import PREFIX, Settings, describe
from service.transfer import transfer as transfer_picture


class ServeCommand(click.Command):
    """A command whose --help lists the service's environment variables."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        with formatter.section("Environment variables"):
            rows = [describe(name, field) for name, field in Settings.model_fields.items()]
            formatter.write_dl(rows, col_max=40)


def read_settings(**overrides: Any) -> Settings:
    """The settings, with options that were given on the command line instead of variables.

    Raises Fault on a value out of bounds.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        raise Fault(f"{PREFIX}{str(first['loc'][0]).upper()}: {first['msg']}") from error


@click.command(cls=ServeCommand)
@click.option("--host", help="Address to listen on, instead of DTN_HOST.")
@click.option("--port", type=int, help="Port to listen on, instead of DTN_PORT.")
def serve(host: str | None, port: int | None) -> None:
    """Serve the models over HTTP until SIGTERM or Ctrl-C.

    Environment variables set everything; two of them have an option, too.
    """
    settings = read_settings(host=host, port=port)
    try:
        serve_until_stopped(settings)
    except (ModelError, ServeError) as error:
        raise Fault(str(error)) from error


@click.command()
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=".",
    show_default="the current one",
    help="Directory to write pictures to, as PHOTO-MODEL.FORMAT.",
)
@click.option("--model", "reference", help="name or name@version; by default the service's.")
@click.option(
    "--format",
    "picture_format",
    type=click.Choice(get_args(PictureFormat)),
    default="png",
    show_default=True,
    help="Format of the written pictures.",
)
@click.option("--distance", is_flag=True, help="Print ‖f(x) − f(G(x))‖ (Eq. 8), too.")
@click.pass_context
def transfer(
    ctx: click.Context,
    *,
    photos: tuple[Path, ...],
    output: Path,
    reference: str | None,
    picture_format: PictureFormat,
    distance: bool,
) -> None:
    """Carry PHOTOs over with a model, as the service does, and print what was written.

    A photo that fails is reported and the others are still done; the exit code is then 2.
    """
    settings = read_settings()
    model = load_model(settings, reference or settings.default_model)
    targets = plan(photos, output, f"-{model.manifest.name}.{picture_format}")
    failed = False
    # disable=None: no bar where stderr is no terminal.
    for photo, target in tqdm(targets.items(), unit="photo", disable=None):
        try:
            result = transfer_picture(
                photo.read_bytes(),
                model,
                picture_format,
                distance=distance,
                max_pixels=settings.max_pixels,
            )
            target.write_bytes(result.content)
        except (Problem, OSError) as error:
            failed = True
            reason = error.strerror if isinstance(error, OSError) else error
            tqdm.write(f"Error: {photo}: {reason}", file=sys.stderr)
            continue
        told = "" if result.f_distance is None else f"\t{result.f_distance:.6g}"
        tqdm.write(f"{target}{told}", file=sys.stdout)
    if failed:
        ctx.exit(2)


def load_model(settings: Settings, reference: str) -> Model:
    """The one model that is asked for. Raises Fault."""
    name = reference.partition("@")[0]
    try:
        folders = {folder.name: folder for folder in model_folders(settings.models)}
        if name not in folders:
            raise Fault(f"no model {name!r} in {settings.models}; there is: {', '.join(folders)}")
        model = Model(folders[name], settings.device, settings.threads)
        return Models({name: model}, name).find(reference)
    except (ModelError, Problem) as error:
        raise Fault(str(error)) from error


def plan(photos: tuple[Path, ...], output: Path, ending: str) -> dict[Path, Path]:
    """Photo -> file to write, in an output directory that exists afterwards.

    Raises Fault where two photos would be written to one file, or a photo be overwritten.
    """
    targets = {photo: output / (photo.stem + ending) for photo in photos}
    if len(set(targets.values())) < len(targets):
        raise Fault(f"photos of the same name would overwrite each other in {output}")
    inputs = {photo.resolve() for photo in photos}
    for target in targets.values():
        if target.resolve() in inputs:
            raise Fault(f"{target} is one of the photos, it would be overwritten")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Fault(f"{output}: {error.strerror}") from error
    return targets
