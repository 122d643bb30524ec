"""Expected errors on the command line: one line, exit code 2."""

import functools
from collections.abc import Callable
from typing import Any

import click

Command = Callable[..., None]


class BadInput(click.ClickException):
    """An expected error: one line, exit code 2."""

    exit_code = 2


def one_line_errors(command: Command) -> Command:
    """Turn the errors that functions here announce into `BadInput`."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except (FileNotFoundError, ConnectionError, ValueError) as error:
            raise BadInput(str(error)) from error

    return wrapped
