"""What to answer with: the Accept header (RFC 9110, 12.5.1) and ?format= made one choice."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from service.pictures import MEDIA_TYPES
from service.problems import Problem
from service.schemas import PictureFormat

JSON = "application/json"


@dataclass(frozen=True)
class Choice:
    """The body of the answer, and the format of the picture in it."""

    body: Literal["picture", "json"]
    picture_format: PictureFormat


@lru_cache(maxsize=1024)
def negotiate(accept: str, wanted: PictureFormat | None) -> Choice:
    """The answer a client likes best.

    Quality decides; between equals, a type that is named comes before what only `*/*` allows,
    then pictures before JSON, then PNG before WebP before JPEG. Raises Problem
    unsupported_format where nothing on offer is acceptable.
    """
    ranges = parse_accept(accept)
    formats: list[PictureFormat] = [wanted] if wanted else list(MEDIA_TYPES)
    offers = [(preference(MEDIA_TYPES[name], ranges), Choice("picture", name)) for name in formats]
    offers.append((preference(JSON, ranges), Choice("json", formats[0])))
    (quality, _), choice = max(offers, key=lambda offer: offer[0])  # the first of equals
    if quality == 0:
        on_offer = ", ".join([*(MEDIA_TYPES[name] for name in formats), JSON])
        raise Problem("unsupported_format", f"nothing in Accept is on offer here: {on_offer}")
    return choice


def parse_accept(accept: str) -> dict[str, float]:
    """Media range -> quality, 0 to 1. No header accepts everything; malformed ranges nothing."""
    ranges = {}
    for item in accept.split(",") if accept.strip() else ["*/*"]:
        media_range, *parameters = (part.strip().lower() for part in item.split(";"))
        quality = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                quality = parse_quality(value.strip())
        ranges[media_range] = quality
    return ranges


def parse_quality(value: str) -> float:
    """`0.5` -> 0.5; what is no number between 0 and 1 -> 0."""
    try:
        quality = float(value)
    except ValueError:
        return 0.0
    return quality if 0 <= quality <= 1 else 0.0


def preference(media_type: str, ranges: dict[str, float]) -> tuple[float, bool]:
    """Quality of a type by the most specific range that covers it, and whether that names it."""
    kind = media_type.partition("/")[0]
    for media_range, named in ((media_type, True), (f"{kind}/*", True), ("*/*", False)):
        if media_range in ranges:
            return ranges[media_range], named
    return 0.0, False
