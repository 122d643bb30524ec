"""What the Open Inference Protocol v2 refuses, and how it says so."""

import json
import random
from typing import Any

import httpx
import numpy as np
import pytest

from service.inference_tensors import MAX_JSON
from service.problems import Problem
from service.settings import MIB
from tests.service.dummy import png
from tests.service.test_batch_routes import MANY
from tests.service.test_inference_protocol import (
    URL,
    OpenServer,
    X,
    framed,
    in_binary,
    in_json,
    sized,
    sized_bytes,
)
from tests.service.test_routes import problem

ONE = np.zeros((1, 2, 2, 3), np.uint8)
DATA = ONE.tobytes()
HEAD = {"inputs": [sized(ONE)]}


def json_of(**changes: Any) -> dict[str, Any]:
    """A request in JSON whose input has something changed."""
    return {"json": {"inputs": [in_json(ONE, **changes)]}}


def image_of(data: Any, shape: Any) -> dict[str, Any]:
    return {
        "json": {"inputs": [{"name": "image", "datatype": "BYTES", "shape": shape, "data": data}]}
    }


def wanting(*outputs: dict[str, Any]) -> dict[str, Any]:
    return {"json": {"inputs": [in_json(ONE)], "outputs": list(outputs)}}


@pytest.mark.parametrize(
    ("sent", "code", "detail"),
    [
        # JSON and binary data cannot be told apart
        ({}, "bad_request", "no body"),
        ({"content": b"no JSON"}, "bad_request", "the body: Invalid JSON"),
        ({"content": b'{"id": "\xff"}'}, "bad_request", "Invalid JSON"),
        ({"content": b'{"id": "\\ud800"}'}, "bad_request", "Invalid JSON"),
        ({"content": b"[" * 10_000}, "bad_request", "Invalid JSON"),
        ({"content": b"9" * 10_000}, "bad_request", "Invalid JSON"),
        (in_binary(HEAD, DATA, ""), "bad_request", "Invalid JSON"),
        (in_binary(HEAD, DATA, 10**6), "bad_request", "inference-header"),
        (in_binary(HEAD, DATA, "9" * 5000), "bad_request", "inference-header"),
        (in_binary(HEAD, DATA, -1), "bad_request", "inference-header"),
        (in_binary(HEAD, DATA, "1e1"), "bad_request", "inference-header"),
        (in_binary(HEAD, DATA, 0), "bad_request", "Invalid JSON"),
        (in_binary(HEAD, DATA, 10), "bad_request", "Invalid JSON"),
        (in_binary(HEAD, DATA[1:]), "bad_request", "followed by 11 bytes"),
        (in_binary(HEAD, DATA + b"x"), "bad_request", "followed by 13 bytes"),
        (in_binary({"inputs": [in_json(ONE)]}, b"x"), "bad_request", "followed by 1 bytes"),
        ({"json": HEAD}, "bad_request", "followed by 0 bytes"),
        # Requests that are none
        ({"json": []}, "invalid_parameter", "the body"),
        ({"json": {}}, "invalid_parameter", "inputs: Field required"),
        ({"json": {"inputs": []}}, "invalid_parameter", "inputs: "),
        ({"json": {"inputs": [1]}}, "invalid_parameter", "inputs.0: "),
        ({"json": {"inputs": [{}]}}, "invalid_parameter", "inputs.0.name: "),
        ({"json": {"inputs": [in_json(ONE)] * 2}}, "invalid_parameter", "exactly 'x' 'UINT8' or"),
        ({"json": {"inputs": [in_json(ONE)] * 9}}, "invalid_parameter", "inputs: "),
        ({"json": {"inputs": [in_json(ONE)], "id": 7}}, "invalid_parameter", "id: "),
        (json_of(parameters=[]), "invalid_parameter", "parameters: "),
        # Inputs
        (json_of(name="image"), "invalid_parameter", "there is: 'image' 'UINT8'"),
        (json_of(datatype="BYTES"), "invalid_parameter", "there is: 'x' 'BYTES'"),
        (json_of(datatype="FP32"), "invalid_parameter", "there is: 'x' 'FP32'"),
        (json_of(name="\ufffd\n" * 99), "invalid_parameter", "there is: "),
        (json_of(data=None), "invalid_parameter", "either data or binary_data_size"),
        (json_of(data=7), "invalid_parameter", "data: "),
        (json_of(data=[]), "invalid_parameter", "has 12 values, not 0"),
        (json_of(data=[0] * 11), "invalid_parameter", "has 12 values, not 11"),
        (json_of(data=[0] * 11 + [256]), "invalid_parameter", "from 0 to 255"),
        (json_of(data=[-1] * 12), "invalid_parameter", "from 0 to 255"),
        (json_of(data=[10**100] * 12), "invalid_parameter", "from 0 to 255"),
        (json_of(data=[0.5] * 12), "invalid_parameter", "whole numbers"),
        (json_of(data=["1"] * 12), "invalid_parameter", "whole numbers"),
        (json_of(data=[None] * 12), "invalid_parameter", "whole numbers"),
        (json_of(data=[0, [0] * 11]), "invalid_parameter", "whole numbers"),
        (json_of(data=[[0] * 12]), "invalid_parameter", "not as shape says"),
        (json_of(data=[[[[0] * 2, [0] * 4]] * 2]), "invalid_parameter", "not as shape says"),
        (json_of(data=[[[["abc"]] * 2] * 2]), "invalid_parameter", "not as shape says"),
        (json_of(data=[[[[[0]] * 3] * 2] * 2]), "invalid_parameter", "whole numbers"),
        (json_of(shape=[]), "invalid_parameter", "shape: "),
        (json_of(shape=[12]), "invalid_parameter", "[-1, -1, -1, 3]"),
        (json_of(shape=[1, 2, 6, 1]), "invalid_parameter", "[-1, -1, -1, 3]"),
        (json_of(shape=[1, 2, 2, 3, 1]), "invalid_parameter", "shape: "),
        (json_of(shape=[0, 2, 2, 3], data=[]), "invalid_parameter", "shape.0: "),
        (json_of(shape=[-1, 2, 2, 3]), "invalid_parameter", "shape.0: "),
        (json_of(shape=[True, 2, 2, 3]), "invalid_parameter", "shape.0: "),
        (json_of(shape=["1", 2, 2, 3]), "invalid_parameter", "shape.0: "),
        (json_of(shape=[10**4000, 2, 2, 3]), "invalid_parameter", "shape.0: "),
        (json_of(shape=[2**31, 2, 2, 3]), "too_large", "more than 256 pictures"),
        (json_of(shape=[1, 2**31, 2**31, 3]), "too_large", "50000000 pixels"),
        (json_of(shape=[257, 2, 2, 3]), "too_large", "more than 256 pictures"),
        (
            {"json": {"inputs": [sized(ONE, data=[0])]}},
            "invalid_parameter",
            "either data or",
        ),
        (
            json_of(parameters={"shared_memory_region": "a"}),
            "invalid_parameter",
            "no shared memory",
        ),
        (in_binary({"inputs": [sized(ONE, "12")]}, DATA), "invalid_parameter", "binary_data_size"),
        (in_binary({"inputs": [sized(ONE, -1)]}, DATA), "invalid_parameter", "binary_data_size"),
        (in_binary({"inputs": [sized(ONE, 10**99)]}, DATA), "invalid_parameter", "binary_data_si"),
        (in_binary({"inputs": [sized(X, 12)]}, DATA), "invalid_parameter", "not 12"),
        # Encoded pictures
        (image_of(["eA=="], [1, 1]), "not_an_image", "picture 0: "),
        (image_of(["é"], [1]), "invalid_parameter", "base64"),
        (image_of(["eA"], [1]), "invalid_parameter", "base64"),
        (image_of([7], [1]), "invalid_parameter", "base64"),
        (image_of([None], [1]), "invalid_parameter", "base64"),
        (image_of([[]], [1]), "invalid_parameter", "base64"),
        (image_of([{}], [1]), "invalid_parameter", "base64"),
        (image_of([], [1]), "invalid_parameter", "not 0"),
        (image_of(["eA=="], [2]), "invalid_parameter", "has 2 elements, not 1"),
        (image_of(["eA=="], [1, 2]), "invalid_parameter", "[-1, 1]"),
        (image_of(["eA=="], [1, 1, 1]), "invalid_parameter", "[-1, 1]"),
        (image_of([""] * 257, [257]), "too_large", "more than 256"),
        (image_of([""], [1]), "not_an_image", "picture 0: "),
        (in_binary({"inputs": [sized_bytes(b"x", size=3)]}, b"abc"), "invalid_parameter", "longer"),
        (
            in_binary({"inputs": [sized_bytes(b"x", size=5)]}, b"\xff\xff\xff\xffx"),
            "invalid_parameter",
            "longer",
        ),
        (
            in_binary({"inputs": [sized_bytes(b"x", size=8)]}, bytes(8)),
            "invalid_parameter",
            "has 1 elements, not 2",
        ),
        (
            in_binary({"inputs": [sized_bytes(MANY[0], b"%PDF-")]}, framed(MANY[0], b"%PDF-")),
            "unsupported_format",
            "picture 1: PDF",
        ),
        (
            in_binary({"inputs": [sized_bytes(png(9500, 9500))]}, framed(png(9500, 9500))),
            "too_large",
            "picture 0: ",
        ),
        # Outputs
        (wanting({"name": "z"}), "invalid_parameter", "there is: y, f_distance"),
        (wanting({"name": "y"}, {"name": "y"}), "invalid_parameter", "twice"),
        (wanting({"name": "y"}, *[{"name": "z"}] * 9), "invalid_parameter", "outputs: "),
        (
            wanting({"name": "y", "parameters": {"classification": 3}}),
            "invalid_parameter",
            "no classification",
        ),
        (
            wanting({"name": "y", "parameters": {"shared_memory_region": "a"}}),
            "invalid_parameter",
            "shared memory",
        ),
        # The request
        ({"content": bytes(MAX_JSON + 1)}, "too_large", "send tensors in binary"),
        ({"content": bytes(128 * MIB + 1)}, "too_large", "the request body"),
        (
            json_of() | {"headers": {"content-encoding": "gzip"}},
            "unsupported_format",
            "compressed",
        ),
        (json_of() | {"headers": {"x-timeout-ms": "0"}}, "invalid_parameter", "X-Timeout-Ms"),
    ],
)
def test_a_bad_request_is_refused(
    client: httpx.Client, sent: dict[str, Any], code: str, detail: str
) -> None:
    details = problem(client.post(URL, **sent), code, "error")
    assert detail.lower() in details["detail"].lower()
    assert details["error"] == details["detail"]
    assert len(details["detail"]) <= 1000


def test_a_model_without_distance_has_no_such_output(client: httpx.Client) -> None:
    response = client.post("/v2/models/plain/infer", **wanting({"name": "f_distance"}))
    assert "there is: y" in problem(response, "invalid_parameter", "error")["detail"]


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/v2/models/nobody", "unknown_model"),
        ("GET", "/v2/models/digits/versions/2", "unknown_model"),
        ("GET", "/v2/models/nobody/ready", "unknown_model"),
        ("POST", "/v2/models/nobody/infer", "unknown_model"),
        ("POST", "/v2/models/digits/versions/2/infer", "unknown_model"),
        ("POST", "/v2/models/%00%ff/infer", "unknown_model"),
        ("GET", "/v2/models/digits/infer", "method_not_allowed"),
        ("GET", "/v2/models/digits/config", "not_found"),
        ("GET", "/v2/nowhere", "not_found"),
        ("POST", "/v2/health/live", "method_not_allowed"),
    ],
)
def test_problems_of_these_routes_have_an_error(
    client: httpx.Client, method: str, path: str, code: str
) -> None:
    problem(client.request(method, path), code, "error")


@pytest.mark.parametrize(
    ("body", "code"), [(b"no JSON", "bad_request"), (b'{"ready": 7}', "invalid_parameter")]
)
def test_a_bad_request_for_the_index_is_refused(
    client: httpx.Client, body: bytes, code: str
) -> None:
    problem(client.post("/v2/repository/index", content=body), code, "error")
    problem(client.post("/v2/repository/index", content=bytes(5000)), "too_large", "error")


def test_only_health_wants_no_key(open_server: OpenServer) -> None:
    with open_server(api_keys="one") as client:
        for path in ("/v2", "/v2/health/live", "/v2/health/ready"):
            assert client.get(path).status_code == 200
        refused = client.get("/v2/models/digits")
        problem(refused, "unauthorized", "error")
        problem(client.post("/v2/repository/index"), "unauthorized", "error")
        problem(client.post(URL, **json_of()), "unauthorized", "error")
        headers = {"authorization": "Bearer one"}
        assert client.post(URL, **json_of(), headers=headers).status_code == 200


def test_a_service_that_is_told_to_stop_is_not_ready(
    open_server: OpenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_server() as client:
        monkeypatch.setattr("service.lifecycle.Service.require_ready", refuse)
        for path in ("/v2/health/ready", "/v2/models/digits/ready"):
            problem(client.get(path), "draining", "error")
        (first, *_) = client.post("/v2/repository/index").json()
        assert (first["state"], first["reason"]) == ("UNAVAILABLE", "on its way out")
        assert client.post("/v2/repository/index", json={"ready": True}).json() == []
        assert client.post(URL, **json_of()).status_code == 200


def refuse(_: object) -> None:
    raise Problem("draining", "on its way out")


def test_no_random_input_is_an_internal_error(client: httpx.Client) -> None:
    rng = random.Random(0)
    seeds = [
        in_binary(HEAD | {"outputs": [{"name": "f_distance"}]}, DATA),
        in_binary({"inputs": [sized_bytes(*MANY[:2])], "id": "a"}, framed(*MANY[:2])),
        {"content": json.dumps({"inputs": [in_json(ONE, flat=False)]}).encode(), "headers": {}},
    ]
    statuses = set()
    for _ in range(400):
        seed = rng.choice(seeds)
        sent = bytearray(seed["content"])
        for _ in range(rng.randint(1, 4)):
            sent[rng.randrange(min(len(sent), 400))] = rng.choice(b'0123456789"[]{},:.-ex\x00\xff')
        if rng.random() < 0.1:
            del sent[rng.randrange(len(sent)) :]
        response = client.post(URL, content=bytes(sent), headers=seed["headers"])
        statuses.add(response.status_code)
        if response.status_code != 200:
            problem(response, response.json()["code"], "error")
    assert {200, 400, 422} <= statuses <= {200, 400, 413, 415, 422}
