import base64
from collections.abc import Callable
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service.emoji import draw_emoji, sized
from service.models import Models, load_models
from tests.service.dummy import encoded, noise, write_model
from tests.service.dummy_faces import photo_of
from tests.service.test_routes import RAW, pixels, problem

JSON = {"accept": "application/json"}
TWO = encoded(photo_of((60, 80, 120, "red"), (220, 40, 160, "blue")))
NONE = encoded(photo_of())


@pytest.mark.parametrize("size", [None, 64, 128, 256, 512])
def test_an_emoji_has_the_size_asked_for(
    client: httpx.Client, models: Models, size: int | None
) -> None:
    query = {} if size is None else {"size": size}
    response = client.post("/emoji", params=query, files={"file": TWO})
    assert response.status_code == 200
    assert response.headers["content-type"] == "image/png"
    assert response.headers["x-model"] == "emoji@1"
    assert response.headers["vary"] == "Accept"
    model = models.find("emoji")
    emoji = draw_emoji(TWO, model, max_pixels=10**6)
    assert np.array_equal(pixels(response.content), sized(emoji.y, size or 256, model))
    assert float(response.headers["x-f-distance"]) == pytest.approx(emoji.f_distance, rel=1e-5)


def test_json_tells_of_the_face_and_of_all_faces(client: httpx.Client) -> None:
    response = client.post("/emoji?size=64", content=TWO, headers=RAW | JSON)
    answer = response.json()
    picture = base64.b64decode(answer.pop("image"))
    assert pixels(picture).shape == (64, 64, 3)
    assert answer.pop("f_distance") == pytest.approx(
        float(response.headers["x-f-distance"]), rel=1e-5
    )
    assert answer == {
        "model": "emoji@1",
        "width": 64,
        "height": 64,
        "media_type": "image/png",
        "face": {"box": [220, 40, 160, 160], "score": 1.0, "count": 2},
        "faces": [[220, 40, 160, 160], [60, 80, 120, 120]],
    }


def test_another_face_is_drawn_where_asked_for(client: httpx.Client) -> None:
    answer = client.post("/emoji?face=1", content=TWO, headers=RAW | JSON).json()
    assert answer["face"] == {"box": [60, 80, 120, 120], "score": 0.75, "count": 2}


@pytest.mark.parametrize("format_", ["png", "webp", "jpeg"])
def test_an_emoji_has_the_format_asked_for(client: httpx.Client, format_: str) -> None:
    response = client.post(f"/emoji?format={format_}", content=TWO, headers=RAW)
    assert response.headers["content-type"] == f"image/{format_}"
    with Image.open(BytesIO(response.content)) as picture:
        assert picture.size == (256, 256)


@pytest.mark.parametrize(
    ("query", "content", "code"),
    [
        ("", NONE, "no_face"),
        ("", encoded(Image.fromarray(noise(200, 300))), "no_face"),
        ("", b"text", "not_an_image"),
        ("", b"%PDF-1.7", "unsupported_format"),
        ("face=2", TWO, "invalid_parameter"),
        ("face=-1", TWO, "invalid_parameter"),
        ("face=x", TWO, "invalid_parameter"),
        ("face=2", NONE, "no_face"),
        ("size=65", TWO, "invalid_parameter"),
        ("size=", TWO, "invalid_parameter"),
        ("size=256.0", TWO, "invalid_parameter"),
        ("size=%D9%A6%D9%A4", TWO, "invalid_parameter"),
        ("distance=true", TWO, "invalid_parameter"),
        ("format=gif", TWO, "invalid_parameter"),
        ("model=digits", TWO, "invalid_parameter"),
        ("model=nobody", TWO, "unknown_model"),
        ("model=emoji@2", TWO, "unknown_model"),
        ("model=", TWO, "unknown_model"),
    ],
)
def test_what_cannot_be_an_emoji_is_refused(
    client: httpx.Client, query: str, content: bytes, code: str
) -> None:
    problem(client.post(f"/emoji?{query}", content=content, headers=RAW), code)


def test_an_aligned_picture_can_be_transferred_as_with_any_model(
    client: httpx.Client, models: Models
) -> None:
    aligned = noise(152, 152)
    y, _ = models.find("emoji")(aligned[np.newaxis])
    response = client.post(
        "/transfer?model=emoji", content=encoded(Image.fromarray(aligned)), headers=RAW
    )
    assert np.array_equal(pixels(response.content), y[0])


def test_the_card_tells_how_faces_must_lie(client: httpx.Client) -> None:
    cards = {card["name"]: card for card in client.get("/models").json()["models"]}
    assert cards["emoji"]["alignment"]["left_eye"] == [0.365, 0.48]
    assert set(cards["emoji"]["graphs"]) == {"transfer", "distance", "detect", "upscale"}
    assert cards["digits"]["alignment"] is None


def test_a_service_of_digits_only_has_no_emoji(
    open_server: Callable[..., AbstractContextManager[httpx.Client]], tmp_path: Path
) -> None:
    write_model(tmp_path)
    with open_server(load_models(tmp_path, "digits", "cpu", 1)) as client:
        problem(client.post("/emoji", content=TWO, headers=RAW), "unknown_model")
        assert client.post("/transfer", content=TWO, headers=RAW).status_code == 200


def test_another_model_can_be_the_emoji_model(
    open_server: Callable[..., AbstractContextManager[httpx.Client]],
) -> None:
    with open_server(emoji_model="digits") as client:
        problem(client.post("/emoji", content=TWO, headers=RAW), "invalid_parameter")
        assert client.post("/emoji?model=emoji", content=TWO, headers=RAW).status_code == 200


def references(client: httpx.Client) -> dict[str, Any]:
    operation: dict[str, Any] = client.get("/openapi.json").json()["paths"]["/emoji"]["post"]
    return operation


def test_openapi_describes_the_route(client: httpx.Client) -> None:
    post = references(client)
    parameters = {p["name"]: p["schema"] for p in post["parameters"]}
    assert set(parameters) == {"model", "format", "size", "face"}
    assert parameters["size"]["enum"] == [64, 128, 256, 512]
    assert "application/json" in post["responses"]["200"]["content"]
    codes = post["responses"]["422"]["content"]["application/problem+json"]["schema"]
    assert codes["properties"]["code"]["enum"] == ["no_face", "invalid_parameter"]
