"""Photos carried over by a service elsewhere; nothing is loaded here."""

from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import cast

from service.carried import Carried, Wish
from service.cli import Fault
from service.client import Client, ClientError, Done, Transferred
from service.client.calls import models_call
from service.schemas import ModelCard

FIRST_RETRIES = 2  # of the first call, which finds out whether the URL is right at all


class There:
    """A Carrier. Raises Fault where the service cannot be asked or has no such model."""

    def __init__(self, client: Client, wish: Wish, concurrency: int) -> None:
        self.client = client
        self.wish = wish
        self.concurrency = concurrency
        card = card_of(ask_models(client), wish)
        self.name = card.name
        self.reference = card.model
        self.of_faces = card.alignment is not None

    def each(self, photos: Sequence[Path]) -> Generator[Carried, None, None]:
        wish = self.wish
        model = wish.reference or self.name
        if self.of_faces:
            many = self.client.emoji_many(
                photos,
                model=model,
                format=wish.picture_format,
                size=wish.size,
                concurrency=self.concurrency,
            )
        else:
            many = self.client.transfer_many(
                photos,
                model=model,
                format=wish.picture_format,
                distance=wish.distance,
                concurrency=self.concurrency,
            )
        with closing(many):
            yield from map(carried, many)

    def keep(self, person: str, photos: Sequence[Path]) -> tuple[list[Carried], Carried]:
        """Let the service keep the best emoji of a person: the photos, and that emoji.

        Raises Fault where none can be used.
        """
        wish = self.wish
        try:
            kept = self.client.person(person).emoji(
                *photos,
                model=wish.reference or self.name,
                format=wish.picture_format,
                size=wish.size,
            )
        except (ClientError, ValueError) as error:
            raise Fault(error.detail if isinstance(error, ClientError) else str(error)) from error
        judged = [
            Carried(
                photo,
                each.status,
                each.status.replace("_", " "),
                f_distance=each.f_distance,
                face=each.face,
                chosen=each.chosen,
            )
            for photo, each in zip(photos, kept.photos, strict=True)
        ]
        best = Carried(Path(person), "ok", "", kept.image, kept.model, kept.f_distance, kept.face)
        return judged, best


def carried(done: Done[Transferred]) -> Carried:
    photo = cast(Path, done.photo)
    if done.error is not None:
        return Carried(photo, done.error.code, done.error.detail)
    drawn = done.result
    return Carried(photo, "ok", "", drawn.image, drawn.model, drawn.f_distance, drawn.face)


def open_client(url: str, api_key: str | None) -> Client:
    """Raises Fault where the URL or the key cannot be right."""
    try:
        return Client(url, api_key)
    except ValueError as error:
        raise Fault(str(error)) from error


def ask_models(client: Client) -> list[ModelCard]:
    """The cards of the served models. Raises Fault where they cannot be had."""
    try:
        return client.run(models_call(), retries=FIRST_RETRIES)
    except ClientError as error:
        hint = "; give --api-key or set DTN_API_KEY" if error.code == "unauthorized" else ""
        raise Fault(f"{error.detail}{hint}") from error


def card_of(cards: list[ModelCard], wish: Wish) -> ModelCard:
    """The card of the model that is meant. Raises Fault."""
    served = ", ".join(card.model for card in cards)
    if wish.reference is not None:
        name, at, version = wish.reference.partition("@")
        found = [c for c in cards if c.name == name and (not at or c.version == version)]
        if not found:
            raise Fault(f"no model {wish.reference!r} is served; there is: {served}")
        return found[-1]
    if not wish.person:
        return next(card for card in cards if card.default)
    faces = {card.name: card for card in cards if card.alignment is not None}
    if len(faces) != 1:
        which = ", ".join(faces) or f"none of faces; there is: {served}"
        raise Fault(f"--model: name the model of faces, of those that are served: {which}")
    return next(iter(faces.values()))
