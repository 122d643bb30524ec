import base64
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service.emoji import draw_emoji, sized
from service.models import Models
from service.persons import is_known
from tests.service.dummy import encoded, noise
from tests.service.dummy_faces import photo_of
from tests.service.test_routes import RAW, pixels, problem

OpenServer = Callable[..., AbstractContextManager[httpx.Client]]
JSON = {"accept": "application/json"}
RED = (60, 80, 120, "red")
# The lighter a photo, the larger the dummy's distance.
NEAR, FAR, FARTHER = (encoded(photo_of(RED, grey=grey)) for grey in (100, 160, 200))
NEARER = encoded(photo_of(RED, (220, 40, 160, "blue"), grey=60))
NONE = encoded(photo_of())


def distance_of(models: Models, photo: bytes) -> float:
    return draw_emoji(photo, models.find("emoji"), max_pixels=10**7).f_distance


def files(*photos: bytes) -> dict[str, Any]:
    return {"files": [("files", (f"{i}.png", photo)) for i, photo in enumerate(photos)]}


def post(client: httpx.Client, person: str, *photos: bytes) -> Any:
    response = client.post(f"/persons/{person}/emoji", **files(*photos), headers=JSON)
    assert response.status_code == 200, response.text
    return response.json()


# Posting photos


def test_the_photo_with_the_smallest_distance_is_chosen(
    client: httpx.Client, models: Models, person: str
) -> None:
    answer = post(client, person, FAR, NEAR, FARTHER)
    picture = pixels(base64.b64decode(answer.pop("image")))
    model = models.find("emoji")
    emoji = draw_emoji(NEAR, model, max_pixels=10**7)
    assert np.array_equal(picture, sized(emoji.y, 256, model))
    face = {"box": [60, 80, 120, 120], "score": 0.75, "count": 1}
    assert answer == {
        "model": "emoji@1",
        "width": 256,
        "height": 256,
        "media_type": "image/png",
        "f_distance": emoji.f_distance,
        "face": face,
        "person": person,
        "chosen": 1,
        "photos": [
            {
                "name": f"{i}.png",
                "status": "ok",
                "f_distance": distance_of(models, photo),
                "face": face,
            }
            for i, photo in enumerate((FAR, NEAR, FARTHER))
        ],
    }
    distances = [photo["f_distance"] for photo in answer["photos"]]
    assert distances[1] == min(distances) < distances[0] < distances[2]


def test_a_stored_emoji_stays_until_there_is_a_better_one(
    client: httpx.Client, person: str
) -> None:
    first = post(client, person, NEAR)
    assert first["chosen"] == 0
    for worse in (FAR, NEAR):
        stays = post(client, person, worse)
        assert (stays["chosen"], stays["face"]) == (None, None)
        assert (stays["image"], stays["f_distance"]) == (first["image"], first["f_distance"])
        assert stays["photos"][0]["status"] == "ok"
    better = post(client, person, FAR, NEARER)
    assert better["chosen"] == 1
    assert better["f_distance"] < first["f_distance"]
    assert better["face"]["count"] == 2


def test_the_picture_is_answered_unless_json_is_asked_for(
    client: httpx.Client, models: Models, person: str
) -> None:
    url = f"/persons/{person}/emoji?size=64&format=webp"
    for sent in ({"content": FAR, "headers": RAW}, {"files": {"file": FAR}}, files(FAR)):
        response = client.post(url, **sent)
        assert response.headers["content-type"] == "image/webp"
        assert response.headers["x-model"] == "emoji@1"
        assert float(response.headers["x-f-distance"]) == pytest.approx(
            distance_of(models, FAR), rel=1e-5
        )
        assert pixels(response.content).shape == (64, 64, 3)


def test_a_raw_photo_has_no_name(client: httpx.Client, person: str) -> None:
    url = f"/persons/{person}/emoji"
    answer = client.post(url, content=FAR, headers=RAW | JSON).json()
    assert answer["photos"][0]["name"] is None


def test_a_bad_photo_does_not_keep_the_others_from_being_judged(
    client: httpx.Client, person: str
) -> None:
    huge = encoded(Image.new("L", (10_000, 5_001)))
    answer = post(client, person, b"text", NONE, FAR, b"", huge, b"%PDF-1.7", NEAR)
    assert [photo["status"] for photo in answer["photos"]] == [
        "not_an_image",
        "no_face",
        "ok",
        "not_an_image",
        "too_large",
        "unsupported_format",
        "ok",
    ]
    assert answer["chosen"] == 6
    assert answer["photos"][0] == {
        "name": "0.png",
        "status": "not_an_image",
        "f_distance": None,
        "face": None,
    }


@pytest.mark.parametrize(
    ("photos", "code"),
    [
        ([NONE], "no_face"),
        ([NONE, b"text"], "no_face"),
        ([b"text", NONE], "not_an_image"),
        ([b"%PDF-1.7"], "unsupported_format"),
    ],
)
def test_where_no_photo_can_be_used_the_problem_lists_them(
    client: httpx.Client, person: str, photos: list[bytes], code: str
) -> None:
    url = f"/persons/{person}/emoji"
    details = problem(client.post(url, **files(*photos)), code, "photos")
    assert len(details["photos"]) == len(photos)
    assert details["photos"][0]["status"] == code
    assert set(details["photos"][0]) == {"name", "status", "f_distance", "face"}
    problem(client.get(url), "unknown_person")


def test_as_many_photos_as_allowed_are_judged_and_no_more(
    client: httpx.Client, person: str
) -> None:
    answer = post(client, person, *[FAR] * 31, NEAR)
    assert (len(answer["photos"]), answer["chosen"]) == (32, 31)
    response = client.post(f"/persons/{person}/emoji", **files(*[NONE] * 33))
    assert "more than 32" in problem(response, "too_large")["detail"]


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ({}, "bad_request"),
        ({"files": {"photo": FAR}}, "bad_request"),
        ({"files": {"files": FAR}, "data": {"model": "emoji"}}, "bad_request"),
        ({"content": b"--XX--", "headers": {"content-type": "multipart/form-data"}}, "bad_request"),
        ({"json": {}}, "unsupported_format"),
    ],
)
def test_a_bad_upload_is_refused(
    client: httpx.Client, person: str, sent: dict[str, Any], code: str
) -> None:
    problem(client.post(f"/persons/{person}/emoji", **sent), code)


def test_bytes_are_limited_per_request_and_per_photo(open_server: OpenServer, person: str) -> None:
    noisy = encoded(Image.fromarray(noise(64, 64)))
    limit = len(FAR) + 100
    assert limit < len(noisy)
    with open_server(max_bytes=limit, max_batch_bytes=50_000) as client:
        url = f"/persons/{person}/emoji"
        answer = post(client, person, noisy, FAR)
        assert [photo["status"] for photo in answer["photos"]] == ["too_large", "ok"]
        problem(client.post(url, **files(*[noisy] * 5)), "too_large")


# Getting and forgetting


def test_the_best_emoji_is_answered_in_any_size(
    client: httpx.Client, models: Models, person: str
) -> None:
    post(client, person, NEAR)
    model = models.find("emoji")
    emoji = draw_emoji(NEAR, model, max_pixels=10**7)
    for size in (64, 128, 256, 512):
        response = client.get(f"/persons/{person}/emoji", params={"size": size})
        assert np.array_equal(pixels(response.content), sized(emoji.y, size, model))
        assert response.headers["x-model"] == "emoji@1"
        assert response.headers["cache-control"] == "private, no-cache"
        assert float(response.headers["x-f-distance"]) == pytest.approx(emoji.f_distance, rel=1e-5)
    answer = client.get(f"/persons/{person}/emoji", headers=JSON).json()
    assert answer["f_distance"] == emoji.f_distance
    assert answer["face"] is None


def test_an_emoji_that_is_known_is_not_sent_again(client: httpx.Client, person: str) -> None:
    post(client, person, FAR)
    url = f"/persons/{person}/emoji"
    etag = client.get(url).headers["etag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        response = client.get(url, headers={"if-none-match": known})
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["etag"] == etag
        assert response.headers["x-model"] == "emoji@1"
    assert client.get(url, headers={"if-none-match": '"other"'}).status_code == 200
    post(client, person, NEAR)
    assert client.get(url, headers={"if-none-match": etag}).status_code == 200


def test_every_answer_has_an_etag_of_its_own(client: httpx.Client, person: str) -> None:
    post(client, person, FAR)
    url = f"/persons/{person}/emoji"
    etags = {
        client.get(url + query, headers=headers).headers["etag"]
        for query in ("?size=64", "?size=128", "?format=webp", "?format=jpeg")
        for headers in ({}, JSON)
    }
    assert len(etags) == 8


@pytest.mark.parametrize(
    ("if_none_match", "known"),
    [("", False), ('"a"', True), ('"b", W/"a"', True), ("*", True), ("a", False), ('"ab"', False)],
)
def test_if_none_match_is_read(if_none_match: str, known: bool) -> None:
    assert is_known('"a"', if_none_match) == known


def test_what_is_kept_is_told(client: httpx.Client, person: str) -> None:
    answer = post(client, person, FAR, NEAR)
    told = client.get(f"/persons/{person}").json()
    (kept,) = told["emojis"]
    assert told["person"] == person
    assert kept["created"].endswith("Z")
    assert kept["created"] == kept["updated"]
    assert (kept["model"], kept["photo"], kept["f_distance"]) == (
        "emoji@1",
        1,
        answer["f_distance"],
    )
    assert set(kept) == {"model", "f_distance", "photo", "bytes", "etag", "created", "updated"}
    etag = client.get(f"/persons/{person}/emoji").headers["etag"]
    assert etag.startswith(f'"{kept["etag"]}-')


def test_a_forgotten_person_is_unknown(client: httpx.Client, person: str) -> None:
    post(client, person, FAR)
    response = client.delete(f"/persons/{person}")
    assert (response.status_code, response.content) == (204, b"")
    for again in (
        client.get(f"/persons/{person}"),
        client.get(f"/persons/{person}/emoji"),
        client.delete(f"/persons/{person}"),
    ):
        assert person in problem(again, "unknown_person")["detail"]
    assert post(client, person, FARTHER)["chosen"] == 0


@pytest.mark.parametrize("person", ["a", "x" * 128, "A-Z_0.9~", "..a"])
def test_these_are_ids(client: httpx.Client, person: str) -> None:
    problem(client.get(f"/persons/{person}"), "unknown_person")


@pytest.mark.parametrize("person", ["x" * 129, "a b", "é", "a%0A", "%00", "a@b", "a:b", "%ff"])
@pytest.mark.parametrize(("method", "ending"), [("GET", ""), ("DELETE", ""), ("GET", "/emoji")])
def test_these_are_none(client: httpx.Client, person: str, method: str, ending: str) -> None:
    response = client.request(method, f"/persons/{person}{ending}")
    assert "person" in problem(response, "invalid_parameter")["detail"]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("model=nobody", "unknown_model"),
        ("model=digits", "invalid_parameter"),
        ("size=100", "invalid_parameter"),
        ("format=gif", "invalid_parameter"),
        ("face=1", "invalid_parameter"),
    ],
)
def test_a_bad_query_is_refused(client: httpx.Client, person: str, query: str, code: str) -> None:
    post(client, person, FAR)
    url = f"/persons/{person}/emoji?{query}"
    problem(client.post(url, content=FAR, headers=RAW), code)
    problem(client.get(url), code)


# OpenAPI


def test_openapi_describes_persons(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    emoji, person = paths["/persons/{person}/emoji"], paths["/persons/{person}"]
    assert set(emoji) == {"get", "post"}
    assert set(person) == {"get", "delete"}
    form = emoji["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(form["properties"]) == {"file", "files"}
    assert {"200", "304", "404", "503"} <= set(emoji["get"]["responses"])
    assert "ETag" in emoji["get"]["responses"]["200"]["headers"]
    assert "204" in person["delete"]["responses"]
    told = json.dumps(emoji["post"]["responses"]["503"])
    assert "store_unavailable" in told
    (parameter,) = person["get"]["parameters"]
    assert parameter["schema"]["pattern"] == "^[A-Za-z0-9._~-]{1,128}$"
