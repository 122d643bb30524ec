"""The command `dtn`: finds its commands and loads the one that is called.

Nothing heavy is imported here. `dtn --help` and the shell's completion are instant, the
service's commands work where torch is not installed, and training's where onnxruntime is not.
"""

import ast
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import click
from click.exceptions import NoArgsIsHelpError
from click.shell_completion import CompletionItem

from service import __version__


class Own(NamedTuple):
    """A command of this package: the module that has it under its name, and a line of help."""

    module: str
    text: str


OWN = {
    "serve": Own("service.serve_command", "Serve the models over HTTP."),
    "transfer": Own("service.transfer_command", "Carry photos over with a model, here or there."),
    "models": Own("service.models_command", "List the models."),
    "doctor": Own("service.doctor.command", "Say what is amiss here, and what to do."),
    "bulk": Own("service.bulk.command", "Carry over any number of pictures."),
    "database": Own("service.database", "Look after the database of persons."),
    "completion": Own("service.completion", "Print a shell's completion script."),
}


class Fault(click.ClickException):
    """An expected error: one line, exit code 2."""

    exit_code = 2


class LazyGroup(click.Group):
    """A group of the service's own commands and those that other packages register.

    The latter are entry points of the group `dtn.commands`, each a click.Command.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*OWN, *sorted(registered())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now. Raises Fault where what it needs is not installed."""
        try:
            if cmd_name in OWN:
                return load(cmd_name, OWN[cmd_name].module, cmd_name, "cpu")
            point = registered().get(cmd_name)
            return load(cmd_name, point.module, point.attr, "training") if point else None
        except Fault:
            if ctx.resilient_parsing:  # a shell that asks what could come next
                return None
            raise

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Raises Fault where there is no such command, with the nearest that there are."""
        name = args[0]
        known = self.list_commands(ctx)
        if name not in known and not name.startswith("-") and not ctx.resilient_parsing:
            near = " or ".join(f"dtn {each}" for each in get_close_matches(name, known, 2))
            hint = f"did you mean {near}?" if near else "dtn --help lists them"
            raise Fault(f"No such command {name!r}; {hint}")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands and their help, without importing them."""
        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        return [
            CompletionItem(name, help=text) for name, text in texts() if name.startswith(incomplete)
        ]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in --help, written without importing any command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(texts()))

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with one_line():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with one_line():
            return super().invoke(ctx)


@contextmanager
def one_line() -> Iterator[None]:
    """Makes click's errors of usage, which repeat the command's usage, a Fault."""
    try:
        yield
    except NoArgsIsHelpError:
        raise  # it prints the help
    except click.UsageError as error:
        message = " ".join(error.format_message().split()).removesuffix(".")
        hint = f". See {error.ctx.command_path} --help." if error.ctx else "."
        raise Fault(message + hint) from error


def texts() -> Iterator[tuple[str, str]]:
    """Each command and what it does."""
    for name, own in OWN.items():
        yield name, own.text
    for name, point in sorted(registered().items()):
        package = point.module.partition(".")[0]
        yield name, summary(point.module, point.attr) or f"From the package `{package}`."


def summary(module: str, function: str) -> str | None:
    """The first line of a function's docstring, read from its source without importing it."""
    package, *inner = module.split(".")
    try:
        spec = find_spec(package)
        (folder, *_) = (spec and spec.submodule_search_locations) or [""]
        tree = ast.parse(Path(folder).joinpath(*inner).with_suffix(".py").read_bytes())
    except (ImportError, OSError, SyntaxError, ValueError):
        return None
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return (ast.get_docstring(node) or "").partition("\n")[0] or None
    return None


def registered() -> dict[str, EntryPoint]:
    """Entry points by the name of their command; our own names cannot be taken over."""
    return {p.name: p for p in entry_points(group="dtn.commands") if p.name not in OWN}


def bring(module: str, extra: str) -> Any:
    """A module, imported now; `extra` is what brings the packages it needs. Raises Fault."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Fault(
            f'this command needs the {extra} extra: pip install "dtn[{extra}]" ({error})'
        ) from error


def load(name: str, module: str, attribute: str, extra: str) -> click.Command:
    """The click.Command of a module. Raises Fault as bring does, and where it is none."""
    try:
        command = getattr(bring(module, extra), attribute)
    except AttributeError as error:
        raise Fault(f"the command {name!r} is missing from {module}") from error
    if not isinstance(command, click.Command):
        raise Fault(f"{module}:{attribute} is no command")
    return command


@click.group("dtn", cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dtn")
def main() -> None:
    """Train a Domain Transfer Network, export it, serve it."""
