"""The calls: what is sent, and what is made of the answer. No network here."""

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from io import BytesIO
from typing import Any, Generic, TypeVar

from PIL import Image
from pydantic import BaseModel, ValidationError

from service.client.errors import Answer, BrokenError
from service.client.photos import EncodedPhoto, Photo, encode_photo
from service.schemas import EmojiSize, Face, ModelCard, ModelList, PersonAnswer, PictureFormat
from service.schemas import Person as PersonCard

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

JSON = "application/json"
PERSON = re.compile(r"[A-Za-z0-9._~-]{1,128}")


@dataclass(frozen=True)
class Transferred:
    """A picture that the service drew."""

    image: bytes = field(repr=False)  # encoded, as media_type says
    media_type: str
    model: str  # name@version
    f_distance: float | None  # ‖f(x) − f(G(x))‖ of Eq. 8, where it was computed
    face: Face | None  # where in the photo the face is, of an emoji
    request_id: str

    @cached_property
    def picture(self) -> Image.Image:
        """The decoded picture."""
        return Image.open(BytesIO(self.image))


@dataclass(frozen=True)
class JudgedPhoto:
    """What became of one photo of a person."""

    name: str | None
    status: str  # `ok` or the error's code
    f_distance: float | None
    face: Face | None
    chosen: bool  # whether the person's best emoji is now the one of this photo


@dataclass(frozen=True)
class PersonEmoji(Transferred):
    """The best emoji of a person, and each photo that was sent; if none of them is chosen, the
    one that was kept before stays the best."""

    person: str
    photos: tuple[JudgedPhoto, ...]


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request, and how its answer is read."""

    method: str
    path: str
    read: Callable[[Answer, int], T]  # the answer, and how many attempts failed before
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = field(default=None, repr=False)
    photos: tuple[EncodedPhoto, ...] = field(default=(), repr=False)  # as multipart/form-data
    expected: str | None = None  # the code of an error that is a result here


def transfer_call(
    photo: Photo | EncodedPhoto, model: str | None, picture_format: PictureFormat, distance: bool
) -> Call[Transferred]:
    """POST /transfer. Raises PhotoError."""
    query = {"format": picture_format} | ({"distance": "true"} if distance else {})
    # The picture alone is answered fastest; only JSON has all digits of the distance.
    accept = JSON if distance else f"image/{picture_format}"
    return photo_call("/transfer", photo, accept, named(model) | query)


def emoji_call(
    photo: Photo | EncodedPhoto,
    model: str | None,
    picture_format: PictureFormat,
    size: EmojiSize,
    face: int | None,
) -> Call[Transferred]:
    """POST /emoji. Raises PhotoError."""
    query = named(model) | {"format": picture_format, "size": str(size)}
    if face is not None:
        query["face"] = str(face)
    return photo_call("/emoji", photo, JSON, query)


def photo_call(
    path: str, photo: Photo | EncodedPhoto, accept: str, query: dict[str, str]
) -> Call[Transferred]:
    sent = encode_photo(photo)
    headers = {"Content-Type": sent.media_type, "Accept": accept}
    return Call("POST", path, read_picture, query, headers, sent.content)


def judge_call(
    person: str,
    photos: tuple[Photo, ...],
    model: str | None,
    picture_format: PictureFormat,
    size: EmojiSize,
) -> Call[PersonEmoji]:
    """POST /persons/{id}/emoji. Raises PhotoError; ValueError where there is no photo."""
    if not photos:
        raise ValueError("a photo is wanted, or several")
    query = named(model) | {"format": picture_format, "size": str(size)}
    sent = tuple(encode_photo(photo) for photo in photos)
    path = f"/persons/{person}/emoji"
    return Call("POST", path, read_judged, query, {"Accept": JSON}, photos=sent)


class BestEmojis:
    """A person's best emojis as they came last, with their ETags: what has not changed is not
    sent again."""

    def __init__(self, person: str) -> None:
        self.person = person
        self.known: dict[tuple[str | None, str, int], tuple[str, Transferred]] = {}

    def call(
        self, model: str | None, picture_format: PictureFormat, size: EmojiSize
    ) -> Call[Transferred]:
        """GET /persons/{id}/emoji."""
        key = (model, picture_format, size)
        headers = {"Accept": JSON}
        if key in self.known:
            headers["If-None-Match"] = self.known[key][0]
        query = named(model) | {"format": picture_format, "size": str(size)}
        read = partial(self.read, key)
        return Call("GET", f"/persons/{self.person}/emoji", read, query, headers)

    def read(self, key: tuple[str | None, str, int], answer: Answer, failed: int) -> Transferred:
        if answer.status == 304:
            emoji = replace(self.known[key][1], request_id=id_of(answer))
        else:
            emoji = read_picture(answer, failed)
        if "etag" in answer.headers:
            self.known[key] = (answer.headers["etag"], emoji)
        return emoji


def about_call(person: str) -> Call[PersonCard]:
    """GET /persons/{id}."""
    return Call("GET", f"/persons/{person}", lambda answer, _: parse(PersonCard, answer))


def forget_call(person: str) -> Call[bool]:
    """DELETE /persons/{id}; whether anything was kept.

    Where an earlier attempt's answer was lost, that may have been the one that found it.
    """

    def read(answer: Answer, failed: int) -> bool:
        return answer.status == 204 or failed > 0

    return Call("DELETE", f"/persons/{person}", read, expected="unknown_person")


def models_call() -> Call[list[ModelCard]]:
    """GET /models."""
    return Call("GET", "/models", lambda answer, _: parse(ModelList, answer).models)


def ready_call() -> Call[None]:
    """GET /health/ready."""
    return Call("GET", "/health/ready", lambda answer, failed: None)


def named(model: str | None) -> dict[str, str]:
    return {} if model is None else {"model": model}


def checked_person(person: str) -> str:
    """A person's id. Raises ValueError where it is none: it could name another path."""
    if not PERSON.fullmatch(person) or person.strip(".") == "":
        raise ValueError("a person's id is 1 to 128 of A-Z a-z 0-9 . _ ~ - and not only dots")
    return person


def read_picture(answer: Answer, failed: int) -> Transferred:
    """What /transfer and /emoji answer, as a picture or as JSON."""
    media_type = answer.headers.get("content-type", "")
    if media_type.startswith("image/"):
        return Transferred(
            image=answer.content,
            media_type=media_type,
            model=answer.headers.get("x-model", ""),
            f_distance=None,
            face=None,
            request_id=id_of(answer),
        )
    return Transferred(**picture_fields(answer, members_of(answer)))


def read_judged(answer: Answer, failed: int) -> PersonEmoji:
    """What /persons/{id}/emoji answers.

    Where the answer of an earlier attempt was lost, the service may have kept its emoji already
    and tells now that nothing is better: by its distance the photo is found again.
    """
    told = parse(PersonAnswer, answer)
    chosen, face = told.chosen, told.face
    if chosen is None and failed > 0:
        distances = [photo.f_distance for photo in told.photos]
        if told.f_distance in distances:
            chosen = distances.index(told.f_distance)
            face = told.photos[chosen].face
    fields = picture_fields(answer, told.model_dump())
    photos = tuple(
        JudgedPhoto(photo.name, photo.status, photo.f_distance, photo.face, i == chosen)
        for i, photo in enumerate(told.photos)
    )
    return PersonEmoji(**fields | {"face": face}, person=told.person, photos=photos)


def picture_fields(answer: Answer, told: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a Transferred in an answer of JSON. Raises BrokenError."""
    try:
        return {
            "image": base64.b64decode(told["image"], validate=True),
            "media_type": told["media_type"],
            "model": told["model"],
            "f_distance": told["f_distance"],
            "face": Face.model_validate(told["face"]) if told["face"] else None,
            "request_id": id_of(answer),
        }
    except (KeyError, TypeError, ValueError) as error:
        raise not_ours(answer) from error


def members_of(answer: Answer) -> dict[str, Any]:
    """The members of a JSON object. Raises BrokenError."""
    try:
        told = json.loads(answer.content)
    except ValueError as error:
        raise not_ours(answer) from error
    if not isinstance(told, dict):
        raise not_ours(answer)
    return told


def parse(schema: type[M], answer: Answer) -> M:
    """An answer of this schema. Raises BrokenError."""
    try:
        return schema.model_validate_json(answer.content)
    except ValidationError as error:
        raise not_ours(answer) from error


def not_ours(answer: Answer) -> BrokenError:
    detail = "the answer is none that this client knows: is the URL that of the service?"
    return BrokenError("bad_answer", detail, answer.status, id_of(answer))


def id_of(answer: Answer) -> str:
    return str(answer.headers.get("x-request-id", ""))
