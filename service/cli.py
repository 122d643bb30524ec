"""The command `dtn`: finds its commands and loads the one that is called.

Nothing heavy is imported here. `dtn --help` is instant, the service's commands work where
torch is not installed, and training's where onnxruntime is not.
"""

import importlib
from importlib.metadata import EntryPoint, entry_points

import click

from service import __version__

OWN = {
    "serve": "Serve the models over HTTP.",
    "transfer": "Carry photos over with a model.",
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
        if cmd_name in OWN:
            return load(cmd_name, "service.commands", cmd_name, "cpu")
        point = registered().get(cmd_name)
        return load(cmd_name, point.module, point.attr, "training") if point else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in --help, written without importing any command."""
        rows = list(OWN.items())
        for name, point in sorted(registered().items()):
            rows.append((name, f"From the package `{point.module.partition('.')[0]}`."))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def registered() -> dict[str, EntryPoint]:
    """Entry points by the name of their command; our own names cannot be taken over."""
    return {point.name: point for point in entry_points(group="dtn.commands")}


def load(name: str, module: str, attribute: str, extra: str) -> click.Command:
    """The click.Command of a module; `extra` is what brings the packages it needs."""
    try:
        command = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        raise Fault(
            f'this command needs the {extra} extra: pip install "dtn[{extra}]" ({error})'
        ) from error
    except AttributeError as error:
        raise Fault(f"the command {name!r} is missing from {module}") from error
    if not isinstance(command, click.Command):
        raise Fault(f"{module}:{attribute} is no command")
    return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dtn")
def main() -> None:
    """Train a Domain Transfer Network, export it, serve it."""
