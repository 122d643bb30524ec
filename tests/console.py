"""Checks of the lines in the documents' ```console blocks: what would take too long to run.

Each goes as far as it goes without running: dtn's commands are parsed by dtn itself, torchrun's by
torchrun; for make, docker compose and kubectl what they name must be there.
"""

import re
import shlex
import tomllib
from collections.abc import Callable, Iterator

import click
import yaml
from torch.distributed.run import get_args_parser

from service.cli import main
from service.settings import Settings
from tests.snippets import ROOT

ASSIGNMENT = re.compile(r"(\w+)=(.*)", re.DOTALL)
# Not the service's own: the client's key, what compose takes, and those of others.
OTHER_VARIABLES = {
    "DTN_API_KEY",
    "OMP_NUM_THREADS",
    "ORT_DISABLE_TELEMETRY",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "PROMETHEUS_MULTIPROC_DIR",
}
COMPOSE_FLAGS = {"--build", "--detach", "--no-recreate", "--force-recreate"}
COMPOSE_COMMANDS = {"up", "down", "ps", "logs", "exec"}


def lines_of(text: str) -> Iterator[list[str]]:
    """Each command's words, without comments."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield words


def check(words: list[str]) -> None:
    """Raises AssertionError or click.UsageError where a command could not be run as it stands."""
    while words and (given := ASSIGNMENT.fullmatch(words[0])):
        check_variable(given[1])
        words = words[1:]
    if words:
        program, *rest = words
        program = re.sub(r"^\.venv(-serve)?/bin/", "", program)
        assert program in PROGRAMS, f"nothing checks {program}"
        PROGRAMS[program](rest)


def check_variable(name: str) -> None:
    settings = {f"DTN_{field.upper()}" for field in Settings.model_fields}
    compose = set(re.findall(r"\$\{(\w+):-", (ROOT / "docker-compose.yml").read_text()))
    assert name in settings | compose | OTHER_VARIABLES, name


def check_export(words: list[str]) -> None:
    for word in words:
        given = ASSIGNMENT.fullmatch(word)
        assert given, word
        check_variable(given[1])


def check_dtn(words: list[str]) -> None:
    """Raises click.UsageError on an option or a value that there is none of."""
    command: click.Command = main
    context: click.Context | None = None
    name, rest = "dtn", words
    while True:
        context = command.make_context(name, list(rest), parent=context)
        command = context.command
        if not isinstance(command, click.Group):
            return
        rest = [*getattr(context, "_protected_args", []), *context.args]
        if not rest:
            assert command.invoke_without_command, f"{name} wants a command"
            return
        found, inner, rest = command.resolve_command(context, rest)
        assert found and inner, rest
        name, command = found, inner


def check_torchrun(words: list[str]) -> None:
    given = get_args_parser().parse_args(words)
    assert (given.module, given.training_script) == (True, "service")
    check_dtn(given.training_script_args)


def check_make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for word in words:
        variable = ASSIGNMENT.fullmatch(word)
        pattern = rf"^{variable[1]} \?=" if variable else rf"^{re.escape(word)}:"
        assert re.search(pattern, makefile, re.MULTILINE), word


def check_docker(words: list[str]) -> None:
    """docker compose: the profiles, services and flags are known."""
    assert words.pop(0) == "compose", words
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    profiles = {name for service in services.values() for name in service.get("profiles", [])}
    while words:
        word = words.pop(0)
        if word == "--profile":
            assert words.pop(0) in profiles
        elif word == "--scale":
            name, number = words.pop(0).split("=")
            assert name in services
            assert number.isdecimal()
        elif word == "exec":
            assert words.pop(0) in services
            return
        else:
            assert word in COMPOSE_FLAGS | COMPOSE_COMMANDS | services.keys(), word


def check_kubectl(words: list[str]) -> None:
    assert words[:2] == ["apply", "-k"], words
    (folder,) = words[2:]
    assert (ROOT / folder / "kustomization.yaml").is_file(), folder


def check_pip(words: list[str]) -> None:
    """pip install "dtn[extra]": there is such an extra."""
    assert words[0] == "install", words
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = re.fullmatch(r"dtn\[([\w,]+)\]", words[1])
    assert extras, words
    assert set(extras[1].split(",")) <= project["optional-dependencies"].keys()


def check_script(path: str) -> Callable[[list[str]], None]:
    def check_it(words: list[str]) -> None:
        assert not words
        assert (ROOT / path).is_file()

    return check_it


PROGRAMS: dict[str, Callable[[list[str]], None]] = {
    "dtn": check_dtn,
    "torchrun": check_torchrun,
    "make": check_make,
    "docker": check_docker,
    "kubectl": check_kubectl,
    "pip": check_pip,
    "export": check_export,
    "docker/secrets.sh": check_script("docker/secrets.sh"),
}
