"""What every answer has. Request ids, keys, lingering: test_routes.py and test_server.py."""

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.headers import SWAGGER
from service.models import Models
from service.settings import Settings
from tests.service.test_lifecycle import call
from tests.service.test_routes import RAW, problem
from tests.service.test_server import read_all

OpenServer = Callable[..., AbstractContextManager[httpx.Client]]
CONSTANT = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-frame-options": "DENY",
}


def constant(response: httpx.Response) -> dict[str, str]:
    """The constant headers of a response, each of which it must have once."""
    for name in CONSTANT:
        assert len(response.headers.get_list(name)) == 1
    return {name: response.headers[name] for name in CONSTANT}


# Headers for browsers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/models", 200),
        ("GET", "/health/live", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/metrics", 200),
        ("GET", "/nowhere", 404),
        ("DELETE", "/models", 405),
        ("POST", "/transfer", 400),
    ],
)
def test_every_answer_has_the_constant_headers(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    assert constant(response) == CONSTANT
    assert response.headers.get("cache-control") == ("no-store" if method == "POST" else None)


def test_a_picture_has_them_too(client: httpx.Client, photo: bytes) -> None:
    response = client.post("/transfer", content=photo, headers=RAW)
    assert response.status_code == 200
    assert constant(response) == CONSTANT
    assert response.headers["cache-control"] == "no-store"


def test_a_crash_has_them_too(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Models, "cards", lambda _: 1 / 0)
    response = call(create_app(Settings(), models), "GET", "/models")
    assert response.status_code == 500
    assert constant(response) == CONSTANT


def test_what_is_no_http_has_them_too(client: httpx.Client) -> None:
    with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        head = read_all(connection).partition(b"\r\n\r\n")[0].decode()
    headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
    assert {name: headers[name] for name in CONSTANT} == CONSTANT


def test_the_documentation_may_load_what_it_needs_and_no_more(client: httpx.Client) -> None:
    response = client.get("/docs")
    policy = constant(response)["content-security-policy"]
    assert policy == SWAGGER.decode()
    directives = {words[0]: words[1:] for words in map(str.split, policy.split(";"))}
    assert directives["default-src"] == ["'none'"]
    for pattern, directive in {
        r'<script src="(https://[^/"]+)': "script-src",
        r'<link type="text/css" rel="stylesheet" href="(https://[^/"]+)': "style-src",
        r'<link rel="shortcut icon" href="(https://[^/"]+)': "img-src",
    }.items():
        (origin,) = re.findall(pattern, response.text)
        assert origin in directives[directive]
    assert set(re.findall(r"https://[^/\"']+", response.text)) <= set(policy.split()) | {
        each.rstrip(";") for each in policy.split()
    }


# Other origins


@pytest.fixture(scope="module")
def cors(open_server: OpenServer) -> Iterator[httpx.Client]:
    with open_server(cors_origins=("https://a.org", "https://b.org"), api_keys="one") as client:
        yield client


def preflight(client: httpx.Client, **headers: str) -> httpx.Response:
    usual = {"origin": "https://a.org", "access-control-request-method": "POST"}
    sent = usual | {name.replace("_", "-"): value for name, value in headers.items()}
    return client.options("/transfer", headers=sent)


def test_other_origins_are_told_nothing_unless_they_are_set(client: httpx.Client) -> None:
    response = client.get("/models", headers={"origin": "https://a.org"})
    assert not [name for name in response.headers if name.startswith("access-control")]
    problem(preflight(client), "method_not_allowed")


def test_a_page_of_an_origin_that_is_set_may_use_the_service(
    cors: httpx.Client, photo: bytes
) -> None:
    answer = preflight(cors, access_control_request_headers="content-type,x-api-key")
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://a.org"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["x-request-id"]
    headers: dict[str, Any] = RAW | {"x-api-key": "one", "origin": "https://b.org"}
    response = cors.post("/transfer", content=photo, headers=headers)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "https://b.org"
    assert set(response.headers["access-control-expose-headers"].split(", ")) >= {
        "X-Request-ID", "X-Model", "X-F-Distance", "Retry-After"
    }  # fmt: skip
    assert "Origin" in response.headers["vary"]
    assert "access-control-allow-credentials" not in response.headers
    expected = CONSTANT | {"cross-origin-resource-policy": "cross-origin"}
    assert constant(response) == constant(answer) == expected


def test_a_page_may_read_why_it_is_refused(cors: httpx.Client) -> None:
    response = cors.get("/models", headers={"origin": "https://a.org"})
    problem(response, "unauthorized")
    assert response.headers["access-control-allow-origin"] == "https://a.org"


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://c.org"},
        {"origin": "null"},
        {"access_control_request_method": "PUT"},
        {"access_control_request_headers": "x-other"},
    ],
)
def test_a_preflight_that_asks_for_more_is_a_problem(
    cors: httpx.Client, headers: dict[str, str]
) -> None:
    problem(preflight(cors, **headers), "bad_request")


def test_a_page_of_another_origin_may_not_read_answers(cors: httpx.Client) -> None:
    response = cors.get("/models", headers={"origin": "https://c.org", "x-api-key": "one"})
    assert "access-control-allow-origin" not in response.headers


def test_a_star_admits_all_origins(models: Models) -> None:
    app = create_app(Settings(cors_origins="*"), models)
    response = call(app, "GET", "/models", headers={"origin": "https://c.org"})
    assert response.headers["access-control-allow-origin"] == "*"
