"""What the commands of `dtn bench` have in common: options, what they tell, how they stop."""

import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from benchmarks.serving.device import ROOT


class Names(click.ParamType[tuple[str, ...]]):
    """Comma-separated names out of those there are, or `all`."""

    name = "names"

    def __init__(self, known: Iterable[str]) -> None:
        self.known = tuple(known)

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        names = self.known if value == "all" else tuple(str(value).split(","))
        for name in names:
            if name not in self.known:
                self.fail(f"{name!r} is none of {', '.join(self.known)}", param, ctx)
        return names


class Numbers(click.ParamType[tuple[int, ...]]):
    """Comma-separated positive integers."""

    name = "numbers"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        try:
            numbers = tuple(int(number) for number in str(value).split(","))
        except ValueError:
            numbers = ()
        if not numbers or min(numbers) < 1:
            self.fail(f"{value!r} are no positive numbers", param, ctx)
        return numbers


def out_option(folder: str) -> Callable[[Any], Any]:
    """--out, by default `folder` of this repository."""
    return click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False, exists=True),
        default=ROOT / folder,
        show_default=folder,
        help="Folder to write the results to.",
    )


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C would, so that no server outlives the benchmark."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def tell(line: str) -> None:
    click.echo(line, err=True)


def command_line() -> str:
    """What was typed, without the program's path."""
    return " ".join(["dtn", *sys.argv[1:]])
