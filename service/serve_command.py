"""The command dtn serve."""

import click

from service.cli import Fault
from service.commands import read_settings
from service.fronts import serve as serve_by_fronts
from service.manifest import ModelError
from service.server import ServeError
from service.server import serve as serve_until_stopped
from service.settings import Settings, describe
from service.store import StoreError


class ServeCommand(click.Command):
    """A command whose --help lists the service's environment variables."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        with formatter.section("Environment variables"):
            rows = [describe(name, field) for name, field in Settings.model_fields.items()]
            formatter.write_dl(rows, col_max=40)


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
