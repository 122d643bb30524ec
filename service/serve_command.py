"""The command dtn serve."""

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import click

from service import logs
from service.cli import Fault, bring
from service.commands import read_settings
from service.manifest import ModelError
from service.settings import Settings, describe, unknown_variables

log = logging.getLogger(__name__)


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
    logs.configure(settings)
    for name in unknown_variables():
        log.warning("%s is no setting of the service; see dtn serve --help", name)
    models = load_early(settings)
    server, store = bring("service.server", "cpu"), bring("service.store", "cpu")
    by = bring("service.fronts", "cpu") if settings.fronts else server
    try:
        by.serve(settings, models.result())
    except (ModelError, server.ServeError, store.StoreError) as error:
        raise Fault(str(error)) from error


def load_early(settings: Settings) -> Future[Any]:
    """The service.models.Models, read and then warmed up in threads, where both hardly need
    Python: meanwhile the server's modules can be imported, which takes as long."""
    loading = bring("service.models", "cpu")
    threads = ThreadPoolExecutor(settings.workers, "models")

    def load() -> Any:
        models = loading.models_of(settings)
        # Side by side, but on a GPU, whose runs are recorded: then nothing else may run there.
        on_cpu = all(model.device == "cpu" for model in models)
        for part in [[model] for model in models] if on_cpu else [list(models)]:
            threads.submit(warm_up, part)
        return models

    return threads.submit(load)


def warm_up(models: list[Any]) -> None:
    """Where one of them fails, who serves it is told on warming it up again."""
    with suppress(ModelError):
        for model in models:
            model.warm_up()
