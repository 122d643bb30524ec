"""What dtn transfer wants of photos and what it gets, by models here or by a service there."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from service.schemas import EmojiSize, Face, PictureFormat


@dataclass(frozen=True)
class Wish:
    """What the command line asks for, but for the photos."""

    reference: str | None  # of the model; None: the service's default
    picture_format: PictureFormat
    size: EmojiSize
    distance: bool
    person: bool  # all photos are of one


@dataclass(frozen=True)
class Carried:
    """What came of one photo: a picture, or a status other than `ok` and its detail."""

    photo: Path
    status: str
    detail: str = ""
    content: bytes = b""
    model: str = ""  # name@version
    f_distance: float | None = None
    face: Face | None = None
    chosen: bool = False  # of a person's photos


class Carrier(Protocol):
    """Who carries photos over."""

    name: str  # of the model
    reference: str  # name@version
    of_faces: bool

    def each(self, photos: Sequence[Path]) -> Generator[Carried, None, None]:
        """The photos, carried over, in their order, beside a progress bar."""
        ...
