"""The service's own commands: dtn serve, dtn transfer."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args

import click
from pydantic import ValidationError
from tqdm import tqdm

from service.best import best
from service.cli import Fault
from service.emoji import draw_emoji, finish
from service.fronts import serve as serve_by_fronts
from service.manifest import ModelError
from service.models import Model, Models, model_folders
from service.problems import Problem
from service.schemas import EmojiSize, PictureFormat
from service.server import ServeError
from service.server import serve as serve_until_stopped
from service.settings import PREFIX, Settings, describe
from service.store import StoreError
from service.transfer import Transferred
from service.transfer import transfer as transfer_picture

Carry = Callable[[Path], Transferred | None]
SIZES = [str(size) for size in get_args(EmojiSize)]


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
        if settings.fronts:
            serve_by_fronts(settings)
        else:
            serve_until_stopped(settings)
    except (ModelError, ServeError, StoreError) as error:
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
@click.option(
    "--person",
    is_flag=True,
    help="PHOTOS are of one person: write the emoji with the smallest distance only, as "
    "person-MODEL.FORMAT.",
)
@click.option(
    "--size",
    type=click.Choice(SIZES),
    default="256",
    show_default=True,
    help="Pixels of an emoji's side.",
)
@click.pass_context
def transfer(
    ctx: click.Context,
    *,
    photos: tuple[Path, ...],
    output: Path,
    reference: str | None,
    picture_format: PictureFormat,
    distance: bool,
    person: bool,
    size: str,
) -> None:
    """Carry PHOTOS over with a model, as the service does, and print what was written.

    A model of faces draws the largest face in each as an emoji, as POST /emoji does; others
    take the whole picture, as POST /transfer does.

    A photo that fails is reported and the others are still done; the exit code is then 2.
    """
    settings = read_settings()
    default = settings.emoji_model if person else settings.default_model
    model = load_model(settings, reference or default)
    carry = partial(
        carry_photo,
        model=model,
        picture_format=picture_format,
        size=int(size),
        distance=distance or person,
        max_pixels=settings.max_pixels,
    )
    ending = f"-{model.manifest.name}.{picture_format}"
    if person:
        done = carry_person(photos, output, ending, model, carry)
    else:
        done = carry_each(plan(photos, output, ending), carry)
    if not done:
        ctx.exit(2)


def carry_photo(
    photo: Path,
    *,
    model: Model,
    picture_format: PictureFormat,
    size: int,
    distance: bool,
    max_pixels: int,
) -> Transferred | None:
    """What the service would answer to a photo; None, and a line on stderr, where it fails."""
    try:
        content = photo.read_bytes()
        if model.manifest.alignment is None:
            return transfer_picture(
                content, model, picture_format, distance=distance, max_pixels=max_pixels
            )
        emoji = draw_emoji(content, model, max_pixels=max_pixels)
        return finish(emoji.y, emoji.f_distance, model, size, picture_format)
    except (Problem, OSError) as error:
        complain(photo, error)
        return None


def complain(file: Path, error: Problem | OSError) -> None:
    reason = error.strerror if isinstance(error, OSError) else error
    tqdm.write(f"Error: {file}: {reason}", file=sys.stderr)


def carry_each(targets: dict[Path, Path], carry: Carry) -> bool:
    """Write each photo's picture; whether all went well."""
    well = True
    # disable=None: no bar where stderr is no terminal.
    for photo, target in tqdm(targets.items(), unit="photo", disable=None):
        result = carry(photo)
        if result is None or not write(target, result):
            well = False
            continue
        told = "" if result.f_distance is None else f"\t{result.f_distance:.6g}"
        tqdm.write(f"{target}{told}", file=sys.stdout)
    return well


def carry_person(
    photos: tuple[Path, ...], output: Path, ending: str, model: Model, carry: Carry
) -> bool:
    """Write the best emoji of all photos (Eq. 8), tell each one's distance; whether all went
    well. Raises Fault where the model is none of faces."""
    if model.manifest.alignment is None:
        raise Fault(f"--person: {model.reference} is no model of faces")
    (target,) = plan((Path("person"),), output, ending, photos).values()
    results = [carry(photo) for photo in tqdm(photos, unit="photo", disable=None)]
    chosen = best(result.f_distance if result else None for result in results)
    for i, (photo, result) in enumerate(zip(photos, results, strict=True)):
        if result is not None:
            mark = "\tchosen" if i == chosen else ""
            tqdm.write(f"{photo}\t{result.f_distance:.6g}{mark}", file=sys.stdout)
    winner = None if chosen is None else results[chosen]
    if winner is None or not write(target, winner):
        return False
    tqdm.write(str(target), file=sys.stdout)
    return None not in results


def write(target: Path, result: Transferred) -> bool:
    """Whether the picture could be written."""
    try:
        target.write_bytes(result.content)
    except OSError as error:
        complain(target, error)
        return False
    return True


def load_model(settings: Settings, reference: str) -> Model:
    """The one model that is asked for. Raises Fault."""
    name = reference.partition("@")[0]
    try:
        folders = model_folders(settings.models)
        versions = [folder for folder in folders if folder.name.partition("@")[0] == name]
        if not versions:
            names = ", ".join(folder.name for folder in folders)
            raise Fault(f"no model {name!r} in {settings.models}; there is: {names}")
        models = [Model(folder, settings.device, settings.threads) for folder in versions]
        return Models(models, name).find(reference)
    except (ModelError, Problem) as error:
        raise Fault(str(error)) from error


def plan(
    photos: tuple[Path, ...], output: Path, ending: str, inputs: tuple[Path, ...] | None = None
) -> dict[Path, Path]:
    """Photo -> file to write, in an output directory that exists afterwards.

    Raises Fault where two photos would be written to one file, or one of `inputs`, by default
    the photos, be overwritten.
    """
    targets = {photo: output / (photo.stem + ending) for photo in photos}
    if len(set(targets.values())) < len(targets):
        raise Fault(f"photos of the same name would overwrite each other in {output}")
    kept = {photo.resolve() for photo in inputs or photos}
    for target in targets.values():
        if target.resolve() in kept:
            raise Fault(f"{target} is one of the photos, it would be overwritten")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Fault(f"{output}: {error.strerror}") from error
    return targets
