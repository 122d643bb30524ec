"""The Open Inference Protocol v2, spoken by Triton's own client and by hand."""

import base64
import json
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

from service.models import Model, Models
from tests.service.conftest import Gated
from tests.service.dummy import SIDE, encoded, noise
from tests.service.test_batch_routes import MANY, Noted, Poisoned
from tests.service.test_routes import RAW, pixels, problem, references

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
    infer(client, "/v2/models/digits/versions/1/infer", inputs=[in_json(X[:1])])
    route = 'route="/v2/models/{model}/versions/{version}/infer",status="200"'
    assert route in client.get("/metrics").text
