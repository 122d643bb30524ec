import base64
import random
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from email.parser import BytesParser
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service.models import Model, Models
from service.problems import STATUS
from service.settings import MIB
from tests.service.conftest import Gated
from tests.service.dummy import SIDE, encoded, noise, png
from tests.service.test_routes import FORM, RAW, pixels, problem

OpenServer = Callable[..., AbstractContextManager[httpx.Client]]
URL = "/transfer/batch"
MIXED = {"accept": "multipart/mixed"}
SIZES = ((30, 40), (30, 40), (1, 1), (7, 200), (65, 65), (300, 200), (30, 40))
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PNG")
MANY = [
    encoded(Image.fromarray(noise(*size, seed=seed)), format_)
    for seed, (size, format_) in enumerate(zip(SIZES, FORMATS, strict=True))
]


def files(*pictures: bytes, field: str = "files") -> dict[str, Any]:
    return {"files": [(field, (f"{i}.png", picture)) for i, picture in enumerate(pictures)]}


def post(client: httpx.Client, *pictures: bytes, query: str = "") -> list[dict[str, Any]]:
    response = client.post(URL + query, **files(*pictures))
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    results: list[dict[str, Any]] = response.json()["results"]
    assert [result["name"] for result in results] == [f"{i}.png" for i in range(len(pictures))]
    return results


def parts_of(response: httpx.Response) -> list[tuple[dict[str, str], bytes]]:
    """Headers and content of each part of a multipart answer, cut as RFC 2046 says."""
    (boundary,) = re.findall("boundary=(.+)", response.headers["content-type"])
    first, *parts, last = (b"\r\n" + response.content).split(b"\r\n--" + boundary.encode())
    assert (first, last) == (b"", b"--\r\n")
    cut = []
    for part in parts:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        headers = dict(BytesParser().parsebytes(head + b"\r\n\r\n").items())
        assert int(headers.pop("Content-Length")) == len(content)
        cut.append((headers, content))
    return cut


def test_answers_are_those_of_single_requests_and_in_order(client: httpx.Client) -> None:
    results = post(client, *MANY)
    for picture, result in zip(MANY, results, strict=True):
        alone = client.post("/transfer", content=picture, headers=RAW)
        assert result == {
            "name": result["name"],
            "status": "ok",
            "detail": None,
            "width": SIDE,
            "height": SIDE,
            "media_type": "image/png",
            "image": base64.b64encode(alone.content).decode(),
            "f_distance": None,
        }


def test_as_many_as_there_may_be_are_answered(client: httpx.Client) -> None:
    pictures = [encoded(Image.new("L", (4, 4), grey)) for grey in range(256)]
    response = client.post(URL, **files(*pictures), headers=MIXED)
    parts = parts_of(response)
    assert [int(pixels(content)[0, 0]) for _, content in parts] == list(range(256))


@pytest.mark.parametrize(
    "sent", [files(MANY[0], field="file"), {"content": MANY[0], "headers": RAW}]
)
def test_other_ways_to_send_pictures(client: httpx.Client, sent: dict[str, Any]) -> None:
    response = client.post(URL, **sent)
    (result,) = response.json()["results"]
    assert (result["status"], response.headers["x-model"]) == ("ok", "digits@1")


def test_model_format_and_distance_are_of_all_pictures(client: httpx.Client) -> None:
    alone = client.post("/transfer?distance=true", content=MANY[0], headers=RAW)
    first, second = post(client, MANY[0], MANY[4], query="?distance=true&format=webp")
    assert f"{first['f_distance']:.6g}" == alone.headers["x-f-distance"]
    assert first["f_distance"] != second["f_distance"]
    assert first["media_type"] == second["media_type"] == "image/webp"
    grey = pixels(base64.b64decode(first["image"]))[:, :, 0]  # WebP is always in colour
    assert np.array_equal(grey, pixels(alone.content))
    response = client.post(URL + "?model=plain", **files(MANY[0]))
    assert response.json()["model"] == response.headers["x-model"] == "plain@1"


def test_a_bad_picture_fails_alone(client: httpx.Client) -> None:
    bad = [b"text", b"", MANY[0][:-30], b"%PDF-1.7", png(30_000, 30_000), bytes(20 * MIB + 1)]
    results = post(client, MANY[0], *bad, MANY[1])
    assert [result["status"] for result in results] == [
        "ok",
        *("not_an_image", "not_an_image", "not_an_image"),
        *("unsupported_format", "too_large", "too_large"),
        "ok",
    ]
    for result in results[1:-1]:
        assert result.pop("detail")
        assert set(result.values()) == {result["name"], result["status"], None}


def test_where_every_picture_fails_each_has_its_code(client: httpx.Client) -> None:
    assert [result["status"] for result in post(client, b"x", b"y")] == ["not_an_image"] * 2


def test_multipart_answers_need_no_base64(client: httpx.Client) -> None:
    response = client.post(URL + "?distance=true", **files(MANY[0], b"x", MANY[4]), headers=MIXED)
    assert response.headers["vary"] == "Accept"
    first, second, third = parts_of(response)
    alone = client.post("/transfer?distance=true", content=MANY[0], headers=RAW)
    assert first == (
        {
            "Content-Type": "image/png",
            "Content-Disposition": 'attachment; name="0"; filename="0.png"',
            "X-F-Distance": alone.headers["x-f-distance"],
        },
        alone.content,
    )
    assert second[0] == {
        "Content-Type": "application/problem+json",
        "Content-Disposition": 'attachment; name="1"; filename="1.json"',
    }
    details = httpx.Response(200, content=second[1]).json()
    assert (details["code"], details["status"]) == ("not_an_image", STATUS["not_an_image"])
    assert details["request_id"] == response.headers["x-request-id"]
    assert third[0]["Content-Disposition"] == 'attachment; name="2"; filename="2.png"'
    assert pixels(third[1]).shape == (SIDE, SIDE)


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("multipart/mixed, application/json", "application/json"),
        ("multipart/*", "multipart/mixed"),
        ("multipart/mixed, */*;q=0.5", "multipart/mixed"),
        ("application/json;q=0.2, multipart/mixed;q=0.3", "multipart/mixed"),
    ],
)
def test_accept_chooses(client: httpx.Client, accept: str, media_type: str) -> None:
    response = client.post(URL, **files(MANY[0]), headers={"accept": accept})
    assert response.headers["content-type"].partition(";")[0] == media_type


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (files(*[b""] * 257), "too_large"),
        ({}, "bad_request"),
        ({"data": {"a": "b"}, "files": {"c": b"d"}}, "bad_request"),
        ({"content": b"--XX\r\nbroken", "headers": {"content-type": FORM}}, "bad_request"),
        ({"content": MANY[0], "headers": {"content-type": "multipart/form-data"}}, "bad_request"),
        ({"json": []}, "unsupported_format"),
        (files(MANY[0]) | {"headers": {"content-encoding": "gzip"}}, "unsupported_format"),
        (files(MANY[0]) | {"headers": {"accept": "image/png"}}, "unsupported_format"),
        (files(MANY[0]) | {"params": {"model": "nobody"}}, "unknown_model"),
        (files(MANY[0]) | {"params": {"format": "gif"}}, "invalid_parameter"),
        (files(MANY[0]) | {"params": {"size": "64"}}, "invalid_parameter"),
        (files(MANY[0]) | {"params": {"model": "plain", "distance": "1"}}, "invalid_parameter"),
        (files(MANY[0]) | {"headers": {"x-timeout-ms": "soon"}}, "invalid_parameter"),
    ],
)
def test_what_is_wrong_with_the_request_is_a_problem(
    client: httpx.Client, sent: dict[str, Any], code: str
) -> None:
    problem(client.post(URL, **sent), code)


def test_limits_are_those_that_are_set(open_server: OpenServer) -> None:
    with open_server(max_bytes=5000, max_batch_bytes=20_000, max_pixels=2000) as client:
        small, large = encoded(Image.new("L", (9, 9))), MANY[4]
        results = post(client, small, large, small, encoded(Image.new("L", (50, 50))))
        assert [r["status"] for r in results] == ["ok", "too_large", "ok", "too_large"]
        assert "5000 bytes" in results[1]["detail"]
        assert "2000 pixels" in results[3]["detail"]
        problem(client.post(URL, **files(*[large] * 4)), "too_large")


class Poisoned(Model):
    """A model that fails on every run with a picture that begins with a white pixel."""

    def warm_up(self) -> None:
        self.most = 8

    def run(self, x: np.ndarray, distance: bool) -> Any:
        if (x[:, 0, 0] == 255).all(axis=1).any():
            raise RuntimeError("a poisoned picture")
        return super().run(x, distance)


def test_a_poisoned_picture_leaves_its_neighbours_alone(
    open_server: OpenServer, models_dir: Path
) -> None:
    greys = (0, 255, 1, 2, 255, *range(3, 30))
    pictures = [encoded(Image.new("L", (4, 4), grey)) for grey in greys]
    with open_server(Models([Poisoned(models_dir / "digits")], "digits")) as client:
        results = post(client, *pictures)
    for grey, result in zip(greys, results, strict=True):
        if grey == 255:
            assert result["status"] == "invalid_parameter"
            assert "4 x 4 pixels" in result["detail"]
        else:
            assert (pixels(base64.b64decode(result["image"])) == grey).all()


# Beside other requests


@pytest.fixture
def gated(models_dir: Path) -> Gated:
    return Gated(models_dir / "digits")


class Noted(Gated):
    """A gated model that notes the heights of the pictures it draws."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.heights: list[int] = []

    def run(self, x: np.ndarray, distance: bool) -> Any:
        self.heights.append(x.shape[1])
        return super().run(x, distance)


def test_one_picture_need_not_wait_for_all_of_a_batch(
    open_server: OpenServer, models_dir: Path
) -> None:
    noted = Noted(models_dir / "digits")
    batch = [encoded(Image.fromarray(noise(5, 5, seed=seed))) for seed in range(40)]
    with (
        open_server(Models([noted], "digits"), workers=1) as client,
        ThreadPoolExecutor() as pool,
    ):
        many = pool.submit(client.post, URL, **files(*batch))
        assert noted.started.acquire(timeout=10)
        time.sleep(0.1)  # what of the batch may wait does so by now
        one = pool.submit(client.post, "/transfer", content=MANY[0], headers=RAW)
        time.sleep(0.3)
        noted.go.set()
        assert one.result().status_code == 200
        assert len(many.result().json()["results"]) == 40
    # One was being drawn and one was ready, each of a run of one picture.
    assert noted.heights.index(30) == 2


def test_a_batch_takes_one_place(open_server: OpenServer, gated: Gated) -> None:
    models = Models([gated], "digits")
    with open_server(models, workers=1, max_queue=0) as client, ThreadPoolExecutor() as pool:
        first = pool.submit(client.post, URL, **files(*MANY))
        assert gated.started.acquire(timeout=10)
        problem(client.post(URL, **files(*MANY)), "queue_full")
        gated.go.set()
        assert {result["status"] for result in first.result().json()["results"]} == {"ok"}


@pytest.mark.parametrize("headers", [{}, {"x-timeout-ms": "200"}])
def test_late_answers_are_not_waited_for(
    open_server: OpenServer, gated: Gated, headers: dict[str, str]
) -> None:
    deadline_s = 30.0 if headers else 0.2
    models = Models([gated], "digits")
    with open_server(models, workers=1, deadline_s=deadline_s) as client:
        start = time.monotonic()
        response = client.post(URL, **files(*MANY), headers=headers)
        assert time.monotonic() - start < 5
        assert "0.2 seconds" in problem(response, "deadline_exceeded")["detail"]
        gated.go.set()
        assert client.post("/transfer", content=MANY[0], headers=RAW).status_code == 200
    assert gated.runs == 2  # the batch's first picture, and this one


def test_pictures_are_dropped_when_their_client_leaves(
    open_server: OpenServer, gated: Gated
) -> None:
    with open_server(Models([gated], "digits"), workers=1) as client:
        with pytest.raises(httpx.ReadTimeout):
            client.post(URL, **files(*MANY), timeout=0.3)
        time.sleep(0.2)  # for the server to notice
        gated.go.set()
        assert client.post("/transfer", content=MANY[0], headers=RAW).status_code == 200
    assert gated.runs == 2


def test_no_random_input_is_an_internal_error(client: httpx.Client) -> None:
    rng = random.Random(0)
    body = httpx.Request("POST", "http://x", **files(MANY[0], MANY[1], b"x"))
    content, form = body.read(), body.headers["content-type"]
    statuses = set()
    for _ in range(200):
        sent = bytearray(content)
        for _ in range(rng.randint(1, 6)):
            at = rng.choice((rng.randrange(len(sent)), rng.randrange(200)))
            sent[at] = rng.randrange(256)
        if rng.random() < 0.2:
            del sent[rng.randrange(len(sent)) :]
        accept = rng.choice(["*/*", "multipart/mixed", "image/*, application/json;q=0.x"])
        headers = {"content-type": form, "accept": accept}
        response = client.post(URL, content=bytes(sent), headers=headers)
        statuses.add(response.status_code)
        if response.status_code != 200:
            problem(response, response.json()["code"])
    assert {200, 400} <= statuses <= {200, 400, 415}


def test_openapi_describes_it(client: httpx.Client) -> None:
    post = client.get("/openapi.json").json()["paths"][URL]["post"]
    assert set(post["requestBody"]["content"]) == {"multipart/form-data", "image/*"}
    assert {p["name"] for p in post["parameters"]} == {"model", "format", "distance"}
    answers = post["responses"]["200"]["content"]
    assert set(answers) == {"application/json", "multipart/mixed"}
    assert answers["application/json"]["schema"] == {"$ref": "#/components/schemas/BatchAnswer"}
    assert set(post["responses"]) == {
        *("200", "400", "404", "413", "415", "422", "429", "503", "504")
    }


def test_an_answer_can_be_read_by_pillow(client: httpx.Client) -> None:
    (result,) = post(client, MANY[1], query="?format=jpeg&model=plain")
    with Image.open(BytesIO(base64.b64decode(result["image"]))) as picture:
        assert picture.get_format_mimetype() == result["media_type"] == "image/jpeg"
        assert picture.size == (result["width"], result["height"])
