"""The command dtn transfer: photos in, files out, by models here or by a service there."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import click
from tqdm import tqdm

from service.best import best
from service.carried import Carried, Carrier, Wish
from service.cli import Fault, bring
from service.commands import (
    asks_a_service,
    json_option,
    picture_options,
    print_json,
    read_settings,
)
from service.schemas import EmojiSize, PictureFormat

MOST_AT_ONCE = 256


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
@picture_options
@click.option("--distance", is_flag=True, help="Print ‖f(x) − f(G(x))‖ (Eq. 8), too.")
@click.option(
    "--person",
    is_flag=True,
    help="PHOTOS are of one person: write the emoji with the smallest distance only, as "
    "person-MODEL.FORMAT. Nothing is kept.",
)
@asks_a_service
@click.option(
    "--keep-as",
    metavar="ID",
    help="With --url, of a --person: let the service keep the best emoji under this id, and "
    "write the best of these photos and all before, as ID-MODEL.FORMAT.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, MOST_AT_ONCE),
    default=8,
    show_default=True,
    help="Photos on their way to --url at once.",
)
@json_option
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
    url: str | None,
    api_key: str | None,
    keep_as: str | None,
    concurrency: int,
    as_json: bool,
) -> None:
    """Carry PHOTOS over with a model, as the service does, and print what was written.

    A model of faces draws the largest face in each as an emoji, as POST /emoji does; others
    take the whole picture, as POST /transfer does. The model is loaded here or, with --url, a
    running service is asked, again and again while it is busy or restarts.

    A photo that fails is reported and the others are still done; the exit code is then 2.
    """
    if keep_as is not None and url is None:
        raise Fault("--keep-as needs --url: only a service keeps something of a person")
    person = person or keep_as is not None
    wish = Wish(reference, picture_format, cast(EmojiSize, int(size)), distance or person, person)
    told = Told(as_json)
    with ExitStack() as stack:
        if url is None:
            carrier: Any = bring("service.transfer_here", "cpu").Here(read_settings(), wish)
        else:
            there = bring("service.transfer_there", "cpu")
            client = stack.enter_context(there.open_client(url, api_key))
            carrier = there.There(client, wish, concurrency)
        ending = f"-{carrier.name}.{picture_format}"
        if not person:
            well = carry_each(plan(photos, output, ending), carrier, told)
        else:
            if not carrier.of_faces:
                raise Fault(f"--person: {carrier.reference} is no model of faces")
            (target,) = plan((Path(keep_as or "person"),), output, ending, photos).values()
            if keep_as is not None:
                judged, winner = carrier.keep(keep_as, photos)
            else:
                judged, winner = choose(carrier, photos)
            well = write_person(judged, winner, target, told)
    if not well:
        ctx.exit(2)


class Told:
    """What is printed: lines of text or of JSON on stdout, and why photos fail on stderr."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def failed(self, photo: Path, status: str, detail: str) -> None:
        if self.as_json:
            print_json({"photo": str(photo), "status": status, "detail": detail})
        else:
            tqdm.write(f"Error: {photo}: {detail}", file=sys.stderr)

    def done(self, text: Sequence[object], members: dict[str, Any]) -> None:
        """Fields of a line of text, or a JSON object's members."""
        if self.as_json:
            print_json(members)
        else:
            tqdm.write("\t".join(str(part) for part in text if part != ""))


def members_of(result: Carried) -> dict[str, Any]:
    """What is known of a result but the picture, for JSON."""
    return {
        "photo": str(result.photo),
        "status": result.status,
        "f_distance": result.f_distance,
        "face": result.face.model_dump() if result.face else None,
    }


def distance_of(result: Carried) -> str:
    return "" if result.f_distance is None else f"{result.f_distance:.6g}"


def carry_each(targets: dict[Path, Path], carrier: Carrier, told: Told) -> bool:
    """Write each photo's picture; whether all went well."""
    well = True
    for result in carrier.each(list(targets)):
        target = targets[result.photo]
        if result.status != "ok":
            told.failed(result.photo, result.status, result.detail)
            well = False
        elif not write(target, result, told):
            well = False
        else:
            written = {"file": str(target), "model": result.model}
            told.done((target, distance_of(result)), members_of(result) | written)
    return well


def choose(carrier: Carrier, photos: Sequence[Path]) -> tuple[list[Carried], Carried | None]:
    """All photos of a person carried over, and the best of them (Eq. 8)."""
    results = list(carrier.each(photos))
    chosen = best(result.f_distance for result in results)
    judged = [replace(result, chosen=i == chosen) for i, result in enumerate(results)]
    return judged, None if chosen is None else judged[chosen]


def write_person(
    judged: Sequence[Carried], winner: Carried | None, target: Path, told: Told
) -> bool:
    """Write a person's best emoji, tell each photo's distance; whether all went well."""
    well = True
    for result in judged:
        if result.status != "ok":
            told.failed(result.photo, result.status, result.detail)
            well = False
            continue
        mark = "chosen" if result.chosen else ""
        told.done(
            (result.photo, distance_of(result), mark),
            members_of(result) | {"chosen": result.chosen},
        )
    if winner is None or not write(target, winner, told):
        return False
    members = {"file": str(target), "model": winner.model, "f_distance": winner.f_distance}
    told.done((target,), members)
    return well


def write(target: Path, result: Carried, told: Told) -> bool:
    """Whether the picture could be written."""
    try:
        target.write_bytes(result.content)
    except OSError as error:
        told.failed(target, "unwritable", error.strerror or str(error))
        return False
    return True


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
