"""What the service's own commands share: settings as they read them, options of a service that
is asked, lines of JSON. Imports nothing that runs a model."""

import json
from collections.abc import Callable
from typing import Any, TypeVar, get_args

import click
from pydantic import ValidationError
from tqdm import tqdm

from service.cli import Fault
from service.schemas import EmojiSize, PictureFormat
from service.settings import PREFIX, Settings

Command = TypeVar("Command", bound=Callable[..., Any])


def read_settings(**overrides: Any) -> Settings:
    """The settings, with options that were given on the command line instead of variables.

    Raises Fault on a value out of bounds.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        raise Fault(fault_of(error.errors()[0])) from error


def fault_of(error: Any) -> str:
    """One of pydantic's errors as a line about a variable."""
    return f"{PREFIX}{str(error['loc'][0]).upper()}: {error['msg']}"


def asks_a_service(command: Command) -> Command:
    """Adds --url and --api-key."""
    key = click.option(
        "--api-key",
        envvar="DTN_API_KEY",
        show_envvar=True,
        metavar="KEY",
        help="Key of the service at --url; others on the machine can read a command line, "
        "but not its environment.",
    )
    url = click.option("--url", metavar="URL", help="Ask the service there; load nothing here.")
    return url(key(command))


def picture_options(command: Command) -> Command:
    """Adds --model, --format and --size, of what is drawn."""
    model = click.option(
        "--model", "reference", help="name or name@version; by default the service's."
    )
    picture_format = click.option(
        "--format",
        "picture_format",
        type=click.Choice(get_args(PictureFormat)),
        default="png",
        show_default=True,
        help="Format of the written pictures.",
    )
    size = click.option(
        "--size",
        type=click.Choice([str(size) for size in get_args(EmojiSize)]),
        default="256",
        show_default=True,
        help="Pixels of an emoji's side.",
    )
    return model(picture_format(size(command)))


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print a line of JSON for each instead of text."
)


def print_json(members: dict[str, Any]) -> None:
    """A line of JSON on stdout, above a progress bar."""
    tqdm.write(json.dumps(members, ensure_ascii=False))
