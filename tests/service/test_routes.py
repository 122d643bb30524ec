import base64
import json
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image

from service.problems import STATUS
from service.settings import MIB
from tests.service.dummy import SIDE, encoded, noise, png

OpenServer = Callable[..., AbstractContextManager[httpx.Client]]
RAW = {"content-type": "image/png"}


def problem(response: httpx.Response, code: str, *members: str) -> dict[str, Any]:
    """The problem in a response, after checking all that every problem must have.

    `members` are those it has beyond these.
    """
    assert response.headers["content-type"] == "application/problem+json"
    details: dict[str, Any] = response.json()
    usual = {"type", "title", "status", "detail", "code", "request_id"}
    assert set(details) == usual | set(members)
    assert details["code"] == code
    assert details["status"] == response.status_code == STATUS[code]  # type: ignore[index]
    assert details["detail"]
    assert details["request_id"] == response.headers["x-request-id"]
    again = {"queue_full", "rate_limited", "not_ready", "draining", "store_unavailable"}
    assert ("retry-after" in response.headers) == (code in again)
    return details


def pixels(content: bytes) -> np.ndarray:
    with Image.open(BytesIO(content)) as picture:
        return np.asarray(picture)


# What POST /transfer answers


@pytest.mark.parametrize("model", ["digits", "plain"])
def test_pixels_are_those_of_bare_onnxruntime(
    client: httpx.Client, models_dir: Path, photo: bytes, model: str
) -> None:
    x = pixels(photo)[np.newaxis]
    (y,) = ort.InferenceSession(models_dir / model / "model.onnx").run(["y"], {"x": x})
    response = client.post(f"/transfer?model={model}", files={"file": ("a.png", photo)})
    assert response.status_code == 200
    assert response.headers["content-type"] == "image/png"
    assert response.headers["x-model"] == f"{model}@1"
    assert response.headers["vary"] == "Accept"
    assert "x-f-distance" not in response.headers
    assert np.array_equal(pixels(response.content), y[0].squeeze())


def test_multipart_and_raw_bodies_give_the_same_picture(client: httpx.Client, photo: bytes) -> None:
    def chunks() -> Any:
        yield photo[:100]
        yield photo[100:]

    multipart = client.post("/transfer", files={"file": photo})
    raw = client.post("/transfer", content=photo, headers=RAW)
    chunked = client.post("/transfer", content=chunks(), headers={"content-type": "image/x"})
    assert multipart.status_code == 200
    assert multipart.content == raw.content == chunked.content


@pytest.mark.parametrize(
    ("query", "media_type"),
    [
        ("", "image/png"),
        ("?format=png", "image/png"),
        ("?format=webp", "image/webp"),
        ("?format=jpeg", "image/jpeg"),
    ],
)
def test_the_picture_has_the_format_asked_for(
    client: httpx.Client, photo: bytes, query: str, media_type: str
) -> None:
    response = client.post(f"/transfer{query}", content=photo, headers=RAW)
    assert response.headers["content-type"] == media_type
    with Image.open(BytesIO(response.content)) as picture:
        assert picture.get_format_mimetype() == media_type
        assert picture.size == (SIDE, SIDE)


def test_webp_is_lossless(client: httpx.Client, photo: bytes) -> None:
    as_png = client.post("/transfer?format=png&model=plain", content=photo, headers=RAW)
    as_webp = client.post("/transfer?format=webp&model=plain", content=photo, headers=RAW)
    assert np.array_equal(pixels(as_png.content), pixels(as_webp.content))


def test_json_holds_picture_and_numbers(client: httpx.Client, photo: bytes) -> None:
    picture = client.post("/transfer", content=photo, headers=RAW)
    accept = {"accept": "application/json"}
    response = client.post("/transfer", content=photo, headers=RAW | accept)
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-model"] == "digits@1"
    assert response.json() == {
        "model": "digits@1",
        "width": SIDE,
        "height": SIDE,
        "media_type": "image/png",
        "image": base64.b64encode(picture.content).decode(),
        "f_distance": None,
        "face": None,
    }


def test_the_distance_is_told_in_header_and_json(
    client: httpx.Client, models_dir: Path, photo: bytes
) -> None:
    session = ort.InferenceSession(models_dir / "digits" / "distance.onnx")
    (expected,) = session.run(["f_distance"], {"x": pixels(photo)[np.newaxis]})[0]
    url = "/transfer?distance=true&model=digits@1"
    picture = client.post(url, content=photo, headers=RAW)
    assert float(picture.headers["x-f-distance"]) == pytest.approx(float(expected), rel=1e-5)
    answer = client.post(url, content=photo, headers=RAW | {"accept": "application/json"})
    assert answer.json()["f_distance"] == pytest.approx(float(expected), rel=1e-6)


# Request ids


@pytest.mark.parametrize("path", ["/models", "/nowhere", "/health/live", "/"])
def test_every_answer_has_a_request_id(client: httpx.Client, path: str) -> None:
    first, second = client.get(path), client.get(path)
    assert first.headers["x-request-id"] != second.headers["x-request-id"]


def test_a_sane_request_id_is_echoed(client: httpx.Client) -> None:
    headers = {"x-request-id": "req-1:a/b=c.d_e~f+g@h"}
    response = client.get("/nowhere", headers=headers)
    assert response.headers["x-request-id"] == headers["x-request-id"]
    problem(response, "not_found")


@pytest.mark.parametrize("sent", ["", "a b", "x" * 129, "<script>", "é", "a,b"])
def test_another_request_id_is_replaced(client: httpx.Client, sent: str) -> None:
    response = client.get("/models", headers={"x-request-id": sent.encode()})
    assert response.headers["x-request-id"] not in ("", sent)
    assert len(response.headers["x-request-id"]) == 32


# Errors


def multipart_of(name: str, content: bytes) -> dict[str, Any]:
    return {"files": {name: ("photo.png", content, "image/png")}}


def raw_of(content: bytes, media_type: str = "image/png") -> dict[str, Any]:
    return {"content": content, "headers": {"content-type": media_type}}


PICTURE = encoded(Image.fromarray(noise(64, 64)))
TRUNCATED = PICTURE[: len(PICTURE) // 2]
FORM = "multipart/form-data; boundary=XX"


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (multipart_of("file", b"just text"), "not_an_image"),
        (multipart_of("file", bytes(1000)), "not_an_image"),
        (multipart_of("file", TRUNCATED), "not_an_image"),
        (raw_of(b"\x89PNG\r\n\x1a\n"), "not_an_image"),
        (raw_of(TRUNCATED), "not_an_image"),
        (raw_of(encoded(Image.new("L", (9, 9)), "PPM")), "unsupported_format"),
        (raw_of(b"%PDF-1.7", "image/png"), "unsupported_format"),
        (raw_of(PICTURE, "application/octet-stream"), "unsupported_format"),
        (raw_of(PICTURE, "text/plain"), "unsupported_format"),
        (raw_of(PICTURE, ""), "unsupported_format"),
        ({"data": {"file": "text"}}, "unsupported_format"),
        ({"json": {}}, "unsupported_format"),
        (raw_of(png(30_000, 30_000)), "too_large"),
        (multipart_of("file", png(30_000, 30_000, bytes(1000))), "too_large"),
        (raw_of(png(9_500, 9_500)), "too_large"),
        (raw_of(bytes(20 * MIB + 1)), "too_large"),
        (multipart_of("file", bytes(20 * MIB)), "too_large"),
        ({}, "bad_request"),
        (raw_of(b""), "bad_request"),
        (multipart_of("file", b""), "bad_request"),
        (multipart_of("photo", PICTURE), "bad_request"),
        ({"files": [("file", PICTURE), ("file", PICTURE)]}, "bad_request"),
        ({"files": {"file": PICTURE}, "data": {"model": "digits"}}, "bad_request"),
        (raw_of(b"--XX\r\nbroken", FORM), "bad_request"),
        (raw_of(PICTURE, FORM), "bad_request"),
        (raw_of(PICTURE, "multipart/form-data"), "bad_request"),
    ],
)
def test_a_bad_upload_is_refused(client: httpx.Client, sent: dict[str, Any], code: str) -> None:
    problem(client.post("/transfer", **sent), code)


@pytest.mark.parametrize(
    ("query", "code", "detail"),
    [
        ("model=nobody", "unknown_model", "digits@1"),
        ("model=digits@7", "unknown_model", "digits@1"),
        ("model=", "unknown_model", "digits@1"),
        ("model=%00%ff", "unknown_model", "digits@1"),
        ("format=gif", "invalid_parameter", "format: Input should be 'png', 'webp' or 'jpeg'"),
        ("format=", "invalid_parameter", "format"),
        ("distance=maybe", "invalid_parameter", "distance"),
        ("model=plain&distance=true", "invalid_parameter", "plain@1 has no distance graph"),
        ("fromat=png", "invalid_parameter", "fromat"),
    ],
)
def test_a_bad_query_is_refused(
    client: httpx.Client, photo: bytes, query: str, code: str, detail: str
) -> None:
    response = client.post(f"/transfer?{query}", content=photo, headers=RAW)
    assert detail in problem(response, code)["detail"]


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/nowhere", "not_found"),
        ("GET", "/transfer/", "not_found"),
        ("POST", "/%F0%9F%98%80", "not_found"),
        ("GET", "/transfer", "method_not_allowed"),
        ("DELETE", "/models", "method_not_allowed"),
        ("OPTIONS", "/transfer", "method_not_allowed"),
        ("BREW", "/nowhere", "bad_request"),  # to uvicorn's parser it is no HTTP
    ],
)
def test_a_bad_route_is_refused(client: httpx.Client, method: str, path: str, code: str) -> None:
    response = client.request(method, path)
    problem(response, code)
    assert ("allow" in response.headers) == (code == "method_not_allowed")


def test_an_answer_that_nobody_offers_is_refused(client: httpx.Client, photo: bytes) -> None:
    headers = RAW | {"accept": "text/html"}
    response = client.post("/transfer", content=photo, headers=headers)
    assert "image/png" in problem(response, "unsupported_format")["detail"]


def test_a_compressed_body_is_refused(client: httpx.Client, photo: bytes) -> None:
    headers = RAW | {"content-encoding": "gzip"}
    problem(client.post("/transfer", content=photo, headers=headers), "unsupported_format")


def test_no_random_input_is_an_internal_error(client: httpx.Client, photo: bytes) -> None:
    rng = random.Random(0)
    form = b'--XX\r\nContent-Disposition: form-data; name="file"\r\n\r\n%s\r\n--XX--\r\n' % photo
    seeds = [
        *(
            (raw_of(encoded(Image.fromarray(noise(9, 9)), name)))
            for name in ("PNG", "JPEG", "WEBP")
        ),
        *((raw_of(encoded(Image.fromarray(noise(9, 9)), name))) for name in ("GIF", "BMP", "TIFF")),
        *[raw_of(form, FORM)] * 6,
    ]
    statuses = set()
    for _ in range(300):
        sent = rng.choice(seeds)
        content = bytearray(sent["content"])
        for _ in range(rng.randint(1, 6)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        if rng.random() < 0.3:
            del content[rng.randrange(len(content)) :]
        headers = {"accept": rng.choice(["*/*", "image/*", "application/json;q=0.5, */*;q=0.x"])}
        if rng.random() < 0.1:
            headers["content-type"] = "".join(
                rng.choices('multipart/form-data;="XX ', k=20)
            ).strip()
        response = client.post(
            "/transfer", content=bytes(content), headers=sent["headers"] | headers
        )
        statuses.add(response.status_code)
        if response.status_code != 200:
            problem(response, response.json()["code"])
    assert {200, 400, 415} <= statuses <= {200, 400, 413, 415}


# The other routes


def test_models_lists_cards(client: httpx.Client, models_dir: Path) -> None:
    cards = client.get("/models").json()["models"]
    assert [card["model"] for card in cards] == ["digits@1", "emoji@1", "plain@1"]
    assert [card["default"] for card in cards] == [True, False, False]
    manifest = json.loads((models_dir / "digits" / "manifest.json").read_text())
    for key in ("name", "version", "graphs", "input", "output", "metrics", "limits", "licence"):
        assert cards[0][key] == manifest[key]
    assert cards[0]["provider"] == "CPUExecutionProvider"


def test_the_process_is_live_and_ready(client: httpx.Client) -> None:
    assert client.get("/health/live").json() == {"status": "live"}
    assert client.get("/health/ready").json() == {"status": "ready"}


def test_the_documentation_is_served(client: httpx.Client) -> None:
    assert "swagger" in client.get("/docs").text


def test_openapi_describes_bodies_answers_and_problems(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/transfer",
        "/transfer/batch",
        "/emoji",
        "/persons/{person}",
        "/persons/{person}/emoji",
        "/models",
        "/metrics",
        "/admin/reload",
        "/health/live",
        "/health/ready",
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/repository/index",
        *(
            f"/v2/models/{{model}}{version}{what}"
            for version in ("", "/versions/{version}")
            for what in ("", "/ready", "/infer")
        ),
    }
    post = document["paths"]["/transfer"]["post"]
    assert set(post["requestBody"]["content"]) == {"multipart/form-data", "image/*"}
    assert {p["name"] for p in post["parameters"]} == {"model", "format", "distance"}
    assert set(post["responses"]["200"]["content"]) == {
        "image/png",
        "image/webp",
        "image/jpeg",
        "application/json",
    }
    refusals = {
        status: response["content"]["application/problem+json"]["schema"]["properties"]["code"]
        for status, response in post["responses"].items()
        if status != "200"
    }
    assert refusals == {
        "400": {"enum": ["bad_request"]},
        "404": {"enum": ["unknown_model"]},
        "413": {"enum": ["too_large"]},
        "415": {"enum": ["not_an_image", "unsupported_format"]},
        "422": {"enum": ["invalid_parameter"]},
        "429": {"enum": ["queue_full"]},
        "503": {"enum": ["not_ready", "draining"]},
        "504": {"enum": ["deadline_exceeded"]},
    }


def references(node: Any) -> set[str]:
    """Every $ref in a JSON document."""
    if isinstance(node, dict):
        own = {node["$ref"]} if "$ref" in node else set()
        return own.union(*map(references, node.values()))
    return set().union(*map(references, node)) if isinstance(node, list) else set()


def test_openapi_refers_to_nothing_that_is_missing(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    schemas = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) <= schemas
    assert "#/components/schemas/ProblemDetails" in references(document)
    assert "#/components/schemas/TransferAnswer" in references(document)
