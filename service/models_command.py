"""The command dtn models."""

import click

from service.cli import Fault, bring
from service.commands import asks_a_service, json_option, print_json, read_settings
from service.schemas import ModelCard


@click.command()
@asks_a_service
@json_option
def models(url: str | None, api_key: str | None, as_json: bool) -> None:
    """List the models that dtn serve would serve here or, with --url, a service serves there.

    Those here are loaded and their hashes checked, so that it is certain they can be served.
    """
    if url is None:
        cards = cards_here()
    else:
        there = bring("service.transfer_there", "cpu")
        with there.open_client(url, api_key) as client:
            cards = there.ask_models(client)
    for card in cards:
        if as_json:
            print_json(card.model_dump(mode="json"))
        else:
            mark = ", the default" if card.default else ""
            click.echo(
                f"{card.model}\t{card.source_domain} -> {card.target_domain}"
                f"\t{card.bytes:,} bytes on {card.device}{mark}"
            )


def cards_here() -> list[ModelCard]:
    """Raises Fault where a model cannot be served."""
    settings = read_settings()
    loading, manifest = bring("service.models", "cpu"), bring("service.manifest", "cpu")
    try:
        loaded = loading.models_of(settings)
    except manifest.ModelError as error:
        raise Fault(str(error)) from error
    found: list[ModelCard] = loaded.cards()
    return found
