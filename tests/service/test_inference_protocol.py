"""The Open Inference Protocol v2, spoken by Triton's own client and by hand."""

import base64
import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from PIL import Image
from tritonclient.utils import InferenceServerException

from service.inference_tensors import MAX_JSON
from service.models import Model, Models
from service.problems import Problem
from service.settings import MIB
from tests.service.dummy import SIDE, encoded, noise, png
from tests.service.test_batch_routes import MANY, Noted, Poisoned
from tests.service.test_routes import RAW, Gated, pixels, problem, references

OpenServer = Callable[..., AbstractContextManager[httpx.Client]]
URL = "/v2/models/digits/infer"
LENGTH = "inference-header-content-length"
X = np.stack([noise(30, 40, seed=seed) for seed in range(3)])


@pytest.fixture
def tritons(client: httpx.Client) -> Iterator[triton.InferenceServerClient]:
    address = f"{client.base_url.host}:{client.base_url.port}"
    with triton.InferenceServerClient(address) as inference_client:
        yield inference_client


def tensor(x: np.ndarray, binary: bool = True, name: str = "x") -> triton.InferInput:
    wanted = triton.InferInput(name, list(x.shape), "BYTES" if x.dtype == object else "UINT8")
    return wanted.set_data_from_numpy(x, binary_data=binary)


def infer(client: httpx.Client, url: str = URL, **request: Any) -> Any:
    """What a request all in JSON is answered."""
    response = client.post(url, json=request)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    assert LENGTH not in response.headers
    return response.json()


def in_json(x: np.ndarray, flat: bool = True, **changes: Any) -> dict[str, Any]:
    data = (x.ravel() if flat else x).tolist()
    return {"name": "x", "datatype": "UINT8", "shape": list(x.shape), "data": data} | changes


def in_binary(head: dict[str, Any] | bytes, data: bytes, length: Any = None) -> dict[str, Any]:
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    told = len(text) if length is None else length
    return {"content": text + data, "headers": {LENGTH: str(told)}}


# Triton's client


def test_the_server_tells_of_itself(tritons: triton.InferenceServerClient) -> None:
    assert tritons.is_server_live()
    assert tritons.is_server_ready()
    assert tritons.get_server_metadata()["name"] == "dtn"
    assert tritons.get_server_metadata()["extensions"] == ["binary_tensor_data"]


def test_models_tell_of_themselves(tritons: triton.InferenceServerClient) -> None:
    assert tritons.is_model_ready("digits")
    assert tritons.is_model_ready("digits", "1")
    assert not tritons.is_model_ready("digits", "2")
    assert not tritons.is_model_ready("nobody")
    digits = tritons.get_model_metadata("digits")
    assert digits == {
        "name": "digits",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}],
        "outputs": [
            {"name": "y", "datatype": "UINT8", "shape": [-1, SIDE, SIDE, 1]},
            {"name": "f_distance", "datatype": "FP32", "shape": [-1]},
        ],
    }
    (y,) = tritons.get_model_metadata("plain", "1")["outputs"]
    assert y == {"name": "y", "datatype": "UINT8", "shape": [-1, SIDE, SIDE, 3]}


def test_the_index_lists_all_models(tritons: triton.InferenceServerClient) -> None:
    index = tritons.get_model_repository_index()
    assert [entry["name"] for entry in index] == ["digits", "emoji", "plain"]
    assert index[0] == {"name": "digits", "version": "1", "state": "READY", "reason": ""}


@pytest.mark.parametrize("model", ["digits", "plain"])
@pytest.mark.parametrize("binary", [True, False])
def test_tensors_are_drawn(
    tritons: triton.InferenceServerClient, models: Models, model: str, binary: bool
) -> None:
    expected, _ = models.find(model)(X)
    outputs = [triton.InferRequestedOutput("y", binary_data=binary)]
    for version in ("", "1"):
        result = tritons.infer(
            model, [tensor(X, binary)], version, outputs=outputs, request_id="seven"
        )
        assert np.array_equal(result.as_numpy("y"), expected)
        answer = result.get_response()
        told = answer["model_name"], answer["model_version"], answer["id"]
        assert told == (model, "1", "seven")


def test_without_outputs_there_is_y_alone(
    tritons: triton.InferenceServerClient, models: Models
) -> None:
    result = tritons.infer("digits", [tensor(X)])
    assert [output["name"] for output in result.get_response()["outputs"]] == ["y"]
    assert "id" not in result.get_response()
    assert np.array_equal(result.as_numpy("y"), models.find("digits")(X)[0])


@pytest.mark.parametrize("binary", [True, False])
def test_the_distance_is_an_output(
    tritons: triton.InferenceServerClient, models: Models, binary: bool
) -> None:
    outputs = [
        triton.InferRequestedOutput("f_distance", binary_data=binary),
        triton.InferRequestedOutput("y", binary_data=True),
    ]
    result = tritons.infer("digits", [tensor(X)], outputs=outputs)
    y, f_distance = models.find("digits")(X, distance=True)
    assert result.as_numpy("f_distance").dtype == np.float32
    assert result.as_numpy("f_distance").tolist() == pytest.approx(f_distance, rel=1e-6)
    assert np.array_equal(result.as_numpy("y"), y)


def test_encoded_pictures_are_another_input(
    tritons: triton.InferenceServerClient, client: httpx.Client
) -> None:
    x = np.array([[content] for content in MANY], object)
    y = tritons.infer("digits", [tensor(x, name="image")]).as_numpy("y")
    assert y.shape == (len(MANY), SIDE, SIDE, 1)
    for content, each in zip(MANY, y, strict=True):
        alone = client.post("/transfer", content=content, headers=RAW)
        assert np.array_equal(each[:, :, 0], pixels(alone.content))


def test_triton_s_client_shows_the_message(tritons: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException) as raised:
        tritons.infer("nobody", [tensor(X)])
    assert raised.value.message() == "no such model; there is: digits@1, emoji@1, plain@1"
    assert raised.value.status() == "404"
    with pytest.raises(InferenceServerException, match=r"^\[413\] more than 256 pictures"):
        tritons.infer("digits", [tensor(np.zeros((257, 1, 1, 3), np.uint8))])
    with pytest.raises(InferenceServerException, match=r"^\[404\] .*/v2/models/digits/config"):
        tritons.get_model_config("digits")


def test_compressed_requests_are_refused(tritons: triton.InferenceServerClient) -> None:
    for algorithm in ("gzip", "deflate"):
        with pytest.raises(InferenceServerException, match="compressed"):
            tritons.infer("digits", [tensor(X)], request_compression_algorithm=algorithm)


def test_an_answer_need_not_be_compressed(tritons: triton.InferenceServerClient) -> None:
    result = tritons.infer("digits", [tensor(X)], response_compression_algorithm="gzip")
    assert result.as_numpy("y").shape == (3, SIDE, SIDE, 1)


# By hand


def test_json_may_be_nested_or_flat(client: httpx.Client) -> None:
    flat = infer(client, inputs=[in_json(X)], id="a")
    nested = infer(client, inputs=[in_json(X, flat=False)], id="a", parameters={"other": [1]})
    assert flat == nested
    assert set(flat) == {"model_name", "model_version", "id", "outputs"}
    (y,) = flat["outputs"]
    assert set(y) == {"name", "datatype", "shape", "data"}
    assert (y["name"], y["datatype"], y["shape"]) == ("y", "UINT8", [3, SIDE, SIDE, 1])


def test_pictures_in_json_are_base64(client: httpx.Client) -> None:
    data = [base64.b64encode(content).decode() for content in MANY[:2]]
    image = {"name": "image", "datatype": "BYTES", "shape": [2], "data": data}
    flat = infer(client, inputs=[image])
    nested = infer(client, inputs=[image | {"shape": [2, 1], "data": [[d] for d in data]}])
    assert flat["outputs"] == nested["outputs"]
    assert flat["outputs"][0]["shape"] == [2, SIDE, SIDE, 1]


def test_binary_outputs_follow_the_json(client: httpx.Client) -> None:
    request = {
        "inputs": [in_json(X)],
        "parameters": {"binary_data_output": True},
        "outputs": [{"name": "y", "parameters": {"binary_data": False}}, {"name": "f_distance"}],
    }
    response = client.post(URL, json=request)
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["x-model"] == "digits@1"
    length = int(response.headers[LENGTH])
    y, f_distance = json.loads(response.content[:length])["outputs"]
    assert "data" in y
    assert "parameters" not in y
    assert f_distance["parameters"] == {"binary_data_size": 12}
    assert "data" not in f_distance
    assert len(response.content) == length + 12


def test_as_many_as_there_may_be_are_in_order(client: httpx.Client) -> None:
    x = np.repeat(np.arange(256, dtype=np.uint8), 4 * 4 * 3).reshape(256, 4, 4, 3)
    (y,) = infer(client, inputs=[in_json(x)])["outputs"]
    answer = np.array(y["data"]).reshape(y["shape"])
    assert np.array_equal(answer[:, 0, 0, 0], np.arange(256))


class NoDistance(Model):
    """A model whose distance is no finite number."""

    def run(self, x: np.ndarray, distance: bool) -> Any:
        y, _ = super().run(x, distance=False)
        return y, [None] * len(x)

    def warm_up(self) -> None:
        """Would fail, and rightly so."""


def test_only_binary_data_can_tell_of_a_distance_that_is_none(
    open_server: OpenServer, models_dir: Path
) -> None:
    with open_server(Models([NoDistance(models_dir / "digits")], "digits")) as client:
        request = {"inputs": [in_json(X)], "outputs": [{"name": "f_distance"}]}
        details = problem(client.post(URL, json=request), "invalid_parameter", "error")
        assert "no finite number" in details["detail"]
        request["parameters"] = {"binary_data_output": True}
        response = client.post(URL, json=request)
    values = np.frombuffer(response.content[int(response.headers[LENGTH]) :], "<f4")
    assert np.isnan(values).tolist() == [True] * 3


def test_pictures_of_other_requests_join_a_run(open_server: OpenServer, models_dir: Path) -> None:
    noted = Noted(models_dir / "digits")
    noted.go.set()
    with open_server(Models([noted], "digits"), workers=1) as client:
        infer(client, inputs=[in_json(X)])
        assert noted.heights == [30] * 3  # through the queue, which draws one at a time here


def test_a_poisoned_picture_is_named(open_server: OpenServer, models_dir: Path) -> None:
    x = np.zeros((12, 4, 4, 3), np.uint8)
    x[5] = 255
    with open_server(Models([Poisoned(models_dir / "digits")], "digits")) as client:
        details = problem(
            client.post(URL, json={"inputs": [in_json(x)]}), "invalid_parameter", "error"
        )
        assert details["error"] == details["detail"]
        assert details["detail"].startswith("picture 5: digits@1 cannot process")
        x[5] = 254
        infer(client, inputs=[in_json(x)])


def test_a_late_answer_is_not_waited_for(open_server: OpenServer, models_dir: Path) -> None:
    gated = Gated(models_dir / "digits")
    with open_server(Models([gated], "digits"), workers=1) as client:
        start = time.monotonic()
        headers = {"x-timeout-ms": "200"}
        response = client.post(URL, json={"inputs": [in_json(X)]}, headers=headers)
        assert time.monotonic() - start < 5
        problem(response, "deadline_exceeded", "error")
        gated.go.set()


def test_limits_are_those_that_are_set(open_server: OpenServer) -> None:
    with open_server(max_bytes=5000, max_batch_bytes=20_000, max_pixels=2000) as client:
        wide = np.zeros((1, 50, 41, 3), np.uint8)
        large = np.zeros((9, 40, 40, 3), np.uint8)
        huge = encoded(Image.new("L", (50, 41)))
        for sent in (
            in_binary({"inputs": [sized(wide)]}, wide.tobytes()),
            in_binary({"inputs": [sized(large)]}, large.tobytes()),
            in_binary({"inputs": [sized_bytes(MANY[4])]}, framed(MANY[4])),
            in_binary({"inputs": [sized_bytes(huge)]}, framed(huge)),
        ):
            problem(client.post(URL, **sent), "too_large", "error")
        fitting = large[:1]
        sent = in_binary({"inputs": [sized(fitting)]}, fitting.tobytes())
        assert client.post(URL, **sent).status_code == 200


def sized(x: np.ndarray, size: Any = None, **changes: Any) -> dict[str, Any]:
    """The input of pixels that come in binary."""
    parameters = {"binary_data_size": x.nbytes if size is None else size}
    wanted = {"name": "x", "datatype": "UINT8", "shape": list(x.shape)}
    return wanted | {"parameters": parameters} | changes


def sized_bytes(*contents: bytes, size: Any = None) -> dict[str, Any]:
    """The input of encoded pictures that come in binary."""
    parameters = {"binary_data_size": len(framed(*contents)) if size is None else size}
    return {
        "name": "image",
        "datatype": "BYTES",
        "shape": [len(contents), 1],
        "parameters": parameters,
    }


def framed(*contents: bytes) -> bytes:
    return b"".join(len(each).to_bytes(4, "little") + each for each in contents)


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


def test_openapi_describes_it(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    for path in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        assert set(document["paths"]) >= {path, f"{path}/ready", f"{path}/infer"}
        post = document["paths"][f"{path}/infer"]["post"]
        (reference,) = references(post["requestBody"])
        assert reference == "#/components/schemas/InferenceRequest"
        assert set(post["responses"]["200"]["content"]) == {
            "application/json",
            "application/octet-stream",
        }
    schemas = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) <= schemas


def test_metrics_know_the_routes(client: httpx.Client) -> None:
    infer(client, "/v2/models/digits/versions/1/infer", inputs=[in_json(ONE)])
    route = 'route="/v2/models/{model}/versions/{version}/infer",status="200"'
    assert route in client.get("/metrics").text
