import io
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service.client import (
    BrokenError,
    Client,
    ClientError,
    PhotoError,
    RefusedError,
    Transferred,
    UnreachableError,
)
from service.emoji import draw_emoji, sized
from service.models import Models
from tests.service.dummy import SIDE, encoded, noise
from tests.service.dummy_faces import photo_of

OpenServer = Callable[..., AbstractContextManager[httpx.Client]]

RED = (60, 80, 120, "red")
BLUE = (250, 60, 60, "blue")
NEAR, FAR = (encoded(photo_of(RED, grey=grey)) for grey in (100, 160))
NO_FACE = encoded(photo_of())


@pytest.fixture(scope="module")
def url(client: httpx.Client) -> str:
    """Of a server with default settings."""
    return str(client.base_url)


@pytest.fixture(scope="module")
def dtn(url: str) -> Iterator[Client]:
    with Client(url) as opened:
        yield opened


def expected(models: Models, photo: Image.Image | bytes, name: str = "digits") -> np.ndarray:
    """y of the model itself: [H, W, C]."""
    picture = Image.open(io.BytesIO(photo)) if isinstance(photo, bytes) else photo
    y, _ = models.find(name)(np.asarray(picture.convert("RGB"))[np.newaxis])
    return np.asarray(y[0])


def same(drawn: Transferred, y: np.ndarray) -> bool:
    return np.array_equal(np.asarray(drawn.picture).reshape(y.shape), y)


# Photos


def test_transfer_gives_what_the_model_makes(dtn: Client, models: Models, photo: bytes) -> None:
    drawn = dtn.transfer(photo)
    assert same(drawn, expected(models, photo))
    assert (drawn.model, drawn.media_type) == ("digits@1", "image/png")
    assert (drawn.f_distance, drawn.face) == (None, None)
    assert len(drawn.request_id) == 32


@pytest.mark.parametrize("kind", ["path", "text", "bytes", "bytearray", "file", "memory", "pil"])
def test_a_photo_is_whatever_users_have(
    dtn: Client, models: Models, photo: bytes, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "ein Foto.png"
    path.write_bytes(photo)
    with path.open("rb") as file:
        given: dict[str, Any] = {
            "path": path,
            "text": str(path),
            "bytes": photo,
            "bytearray": bytearray(photo),
            "file": file,
            "memory": io.BytesIO(photo),
            "pil": Image.open(io.BytesIO(photo)),
        }
        assert same(dtn.transfer(given[kind]), expected(models, photo))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV", "F", "I"])
def test_pictures_of_all_modes_are_sent(dtn: Client, mode: str) -> None:
    assert dtn.transfer(Image.new(mode, (40, 30))).picture.size == (SIDE, SIDE)


def test_a_picture_is_sent_upright(dtn: Client, models: Models) -> None:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(30, 40)).save(file, "PNG", exif=exif)
    turned = Image.fromarray(noise(30, 40)).transpose(Image.Transpose.ROTATE_270)
    for photo in (file.getvalue(), Image.open(file)):
        assert same(dtn.transfer(photo), expected(models, turned))


@pytest.mark.parametrize(
    ("photo", "reason"),
    [
        ("missing.png", "No such file"),
        (".", "Is a directory"),
        (b"", "empty"),
        ("nu\0ll", "null"),
        (io.BytesIO(), "empty"),
    ],
)
def test_a_photo_that_cannot_be_read_is_told(dtn: Client, photo: Any, reason: str) -> None:
    with pytest.raises(PhotoError, match=reason) as caught:
        dtn.transfer(photo)
    assert (caught.value.code, caught.value.status) == ("unreadable", None)


def test_what_is_no_photo_is_the_callers_mistake(dtn: Client) -> None:
    for wrong in (7, io.StringIO("text")):
        with pytest.raises(TypeError):
            dtn.transfer(wrong)  # type: ignore[arg-type]


# Options and answers


def test_model_and_format_are_chosen(dtn: Client, models: Models, photo: bytes) -> None:
    drawn = dtn.transfer(photo, model="plain@1", format="webp")
    assert (drawn.model, drawn.media_type, drawn.picture.format) == (
        "plain@1",
        "image/webp",
        "WEBP",
    )


def test_the_distance_comes_with_all_digits(dtn: Client, models: Models, photo: bytes) -> None:
    x = np.asarray(Image.open(io.BytesIO(photo)))[np.newaxis]
    (f_distance,) = models.find("digits")(x, distance=True)[1]
    assert dtn.transfer(photo, distance=True).f_distance == f_distance


def test_emoji_draws_a_face(dtn: Client, models: Models) -> None:
    drawn = dtn.emoji(NEAR, size=128)
    model = models.find("emoji")
    emoji = draw_emoji(NEAR, model, max_pixels=10**7)
    assert same(drawn, sized(emoji.y, 128, model))
    assert drawn.f_distance == emoji.f_distance
    assert drawn.face is not None
    assert drawn.face.box == (60, 80, 120, 120)


def test_emoji_takes_another_face(dtn: Client) -> None:
    face = dtn.emoji(photo_of(RED, BLUE), face=1).face
    assert face is not None
    assert (face.box, face.count) == ((250, 60, 60, 60), 2)


def test_models_are_cards(dtn: Client) -> None:
    cards = {card.name: card for card in dtn.models()}
    assert set(cards) == {"digits", "plain", "emoji"}
    assert cards["digits"].default
    assert cards["emoji"].alignment is not None


def test_ready_is_asked_once(dtn: Client) -> None:
    assert dtn.ready()
    with Client("http://127.0.0.1:1", deadline=600, retries=100) as nobody:
        assert not nobody.ready()


# Persons


def test_a_person_is_judged_kept_told_of_and_forgotten(dtn: Client, person: str) -> None:
    ann = dtn.person(person)
    kept = ann.emoji(FAR, NO_FACE, NEAR)
    assert [photo.status for photo in kept.photos] == ["ok", "no_face", "ok"]
    assert [photo.chosen for photo in kept.photos] == [False, False, True]
    assert [photo.f_distance is None for photo in kept.photos] == [False, True, False]
    assert kept.f_distance == kept.photos[2].f_distance
    assert kept.person == person
    again = ann.emoji(FAR)
    assert [photo.chosen for photo in again.photos] == [False]
    assert again.image == kept.image == ann.best().image
    (about,) = ann.about().emojis
    assert (about.f_distance, about.photo) == (kept.f_distance, 2)
    assert ann.forget()
    assert not ann.forget()
    for ask in (ann.best, ann.about):
        with pytest.raises(RefusedError) as caught:
            ask()
        assert caught.value.code == "unknown_person"


def test_names_of_files_are_told_back(dtn: Client, person: str, tmp_path: Path) -> None:
    path = tmp_path / "Ä b.png"
    path.write_bytes(NEAR)
    assert [photo.name for photo in dtn.person(person).emoji(path, NEAR).photos] == [
        "Ä b.png",
        "photo-1",
    ]


def test_the_best_emoji_is_not_sent_again(url: str, person: str) -> None:
    transport = Recording()
    with Client(url, transport=transport) as client:
        ann = client.person(person)
        ann.emoji(FAR)
        first, second = ann.best(), ann.best()
        assert transport.statuses[-2:] == [200, 304]
        assert second.image == first.image
        assert second.request_id != first.request_id
        assert ann.best(size=64).picture.size == (64, 64)
        ann.emoji(NEAR)
        assert ann.best().image != first.image
        assert transport.statuses[-1] == 200


class Recording(httpx.BaseTransport):
    """A transport that notes what goes through it."""

    def __init__(self) -> None:
        self.inner = httpx.HTTPTransport()
        self.statuses: list[int] = []
        self.requests: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self.inner.handle_request(request)
        self.statuses.append(response.status_code)
        self.requests.append(request)
        return response

    def close(self) -> None:
        self.inner.close()


def test_a_person_without_a_usable_photo_is_refused_with_each(dtn: Client, person: str) -> None:
    with pytest.raises(RefusedError) as caught:
        dtn.person(person).emoji(NO_FACE, b"text")
    assert caught.value.code == "no_face"
    told = [photo["status"] for photo in caught.value.members["photos"]]
    assert told == ["no_face", "not_an_image"]


@pytest.mark.parametrize("id_", ["", "..", "a/b", "a b", "ä", "x" * 129, "../models"])
def test_what_is_no_id_of_a_person_is_refused_here(dtn: Client, id_: str) -> None:
    with pytest.raises(ValueError, match="1 to 128"):
        dtn.person(id_)


def test_a_person_wants_a_photo(dtn: Client) -> None:
    with pytest.raises(ValueError, match="photo is wanted"):
        dtn.person("ann").emoji()


# Errors


def test_a_refusal_has_a_code_and_the_id_it_is_logged_under(dtn: Client) -> None:
    with pytest.raises(RefusedError) as caught:
        dtn.transfer(b"text")
    error = caught.value
    assert (error.code, error.status) == ("not_an_image", 415)
    assert len(error.request_id or "") == 32
    assert str(error) == f"not_an_image: {error.detail}"


def test_errors_can_be_pickled() -> None:
    error = RefusedError("no_face", "none", 422, "id", None, {"photos": []})
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert vars(copy) == vars(error)
    assert type(copy) is RefusedError


def test_a_key_is_sent_where_one_is_wanted(open_server: OpenServer, photo: bytes) -> None:
    with open_server(api_keys="secret") as server:
        address = str(server.base_url)
        with Client(address, "secret") as client:
            client.transfer(photo)
        for key in (None, "other"):
            with Client(address, key) as client, pytest.raises(RefusedError) as caught:
                client.transfer(photo)
            assert caught.value.code == "unauthorized"


def test_nobody_there_is_told_with_the_address() -> None:
    told = r"http://127\.0\.0\.1:1 cannot be reached"
    with (
        Client("http://127.0.0.1:1", retries=1) as client,
        pytest.raises(UnreachableError, match=told),
    ):
        client.models()


@pytest.mark.parametrize(
    "url", ["", "localhost:8000", "ftp://host", "http://", "http://host:port", "/x"]
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Client(url)


@pytest.mark.parametrize("wrong", [{"api_key": ""}, {"api_key": "a\nb"}, {"timeout": 0.0}])
def test_values_out_of_bounds_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Client("http://host", **wrong)


def answering(response: httpx.Response) -> Client:
    return Client("http://host", transport=httpx.MockTransport(lambda _: response), retries=0)


@pytest.mark.parametrize(
    ("response", "kind", "reason"),
    [
        (httpx.Response(200, text="<html>"), BrokenError, "is the URL that of the service"),
        (httpx.Response(200, json=[]), BrokenError, "is the URL that of the service"),
        (httpx.Response(200, json={"image": 7}), BrokenError, "is the URL that of the service"),
        (httpx.Response(404, text="nginx"), RefusedError, r"404 \(Not Found\) and not the"),
        (httpx.Response(404, json={"code": 1}), RefusedError, r"404 \(Not Found\) and not the"),
        (httpx.Response(301, headers={"location": "http://x/"}), BrokenError, "leads to http://x/"),
        (httpx.Response(500, text="oops"), BrokenError, "500"),
    ],
)
def test_answers_of_something_else_are_told_as_such(
    response: httpx.Response, kind: type[ClientError], reason: str, photo: bytes
) -> None:
    with answering(response) as client, pytest.raises(kind, match=reason) as caught:
        client.transfer(photo, distance=True)
    assert caught.value.code == "bad_answer"


def test_an_answer_without_end_is_not_swallowed(
    monkeypatch: pytest.MonkeyPatch, photo: bytes
) -> None:
    monkeypatch.setattr("service.client.http.MAX_ANSWER_BYTES", 1000)
    endless = answering(httpx.Response(200, content=bytes(1001)))
    with endless as client, pytest.raises(BrokenError, match="more than 1000 bytes"):
        client.transfer(photo)


# Imports

PROGRAM = """
import sys
for name in ("onnxruntime", "fastapi", "starlette", "uvicorn", "sqlalchemy", "torch", "numpy"):
    sys.modules[name] = None  # makes an import of it fail
from service.client import AsyncClient, Client
with Client({url!r}) as client:
    print(client.transfer({path!r}).model)
"""


def test_the_client_needs_nothing_of_the_service(url: str, photo: bytes, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(photo)
    program = PROGRAM.format(url=url, path=str(path))
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout) == (0, "digits@1\n"), result.stderr
