"""The command dtn doctor: what would keep the service from running well here, and what to do."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import click

from service.commands import json_option, print_json
from service.doctor.finding import Finding
from service.doctor.machine import (
    look_at_cores,
    look_at_files,
    look_at_memory,
    look_at_packages,
    look_at_port,
    look_at_python,
)
from service.doctor.service import look_at_database, look_at_models, read_valid_settings

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}

Check = Callable[..., Iterator[Finding]]


@click.command()
@json_option
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Look whether the service can run here as it is set up, and say what to do.

    Nothing is changed or made. The exit code is 1 where something fails, else 0.
    """
    logging.disable(logging.ERROR)  # what models say while they load is told as a finding
    marks = []
    try:
        for finding in findings():
            marks.append(finding.mark)
            if as_json:
                print_json(vars(finding))
            else:
                mark = click.style(f"{finding.mark:<6}", fg=COLOURS[finding.mark])
                click.echo(f"{mark}{finding.topic:<15}{finding.told}")
                if finding.advice:
                    click.echo(f"{'':<21}-> {finding.advice}")
    finally:
        logging.disable(logging.NOTSET)
    failed, warned = marks.count("fail"), marks.count("warn")
    if not as_json:
        click.echo(f"{failed} to mend, {warned} to look at" if failed + warned else "all is well")
    ctx.exit(1 if failed else 0)


def findings() -> Iterator[Finding]:
    """All that is found, one after another."""
    yield from looked(look_at_python)
    yield from looked(look_at_packages)
    settings, told = read_valid_settings()
    yield from told
    if settings is None:
        yield Finding("warn", "more", "not looked at: it depends on the settings")
        return
    yield from looked(look_at_files)
    checks: tuple[Check, ...] = (
        *(look_at_cores, look_at_memory, look_at_port),
        *(look_at_models, look_at_database),
    )
    for check in checks:
        yield from looked(check, settings)


def looked(check: Check, *arguments: Any) -> Iterator[Finding]:
    """What a check finds; that it fails itself is a finding, too, and the others go on."""
    try:
        yield from check(*arguments)
    except Exception as error:
        topic = check.__name__.removeprefix("look_at_").replace("_", " ")
        told = f"could not be looked at: {type(error).__name__}: {error}"
        yield Finding("fail", topic, told, "please report this: it is a fault of dtn doctor")
