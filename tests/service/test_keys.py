"""Who is let in where there are API keys."""

from typing import Any

import httpx
import pytest

from tests.service.test_routes import RAW, OpenServer, problem


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-api-key": ""},
        {"x-api-key": "on"},
        {"x-api-key": "one,two"},
        {"x-api-key": "é".encode()},
        {"authorization": "one"},
        {"authorization": "Basic one"},
        {"authorization": "Bearer"},
        {"authorization": "Bearer three", "x-api-key": "one"},
    ],
)
def test_a_request_without_a_key_is_unauthorized(
    keyed: httpx.Client, photo: bytes, headers: dict[str, Any]
) -> None:
    for response in (
        keyed.get("/models", headers=headers),
        keyed.get("/nowhere", headers=headers),
        keyed.post("/transfer", content=photo, headers=RAW | headers),
    ):
        problem(response, "unauthorized")
        assert response.headers["www-authenticate"].startswith("Bearer")


@pytest.fixture(scope="module")
def keyed(open_server: OpenServer) -> Any:
    with open_server(api_keys="one, two") as client:
        yield client


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": "one"},
        {"x-api-key": "two"},
        {"authorization": "Bearer two"},
        {"authorization": "bearer one"},
    ],
)
def test_a_request_with_a_key_is_answered(
    keyed: httpx.Client, photo: bytes, headers: dict[str, str]
) -> None:
    assert keyed.get("/models", headers=headers).status_code == 200
    response = keyed.post("/transfer", content=photo, headers=RAW | headers)
    assert response.status_code == 200


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/openapi.json", "/metrics", "/health/live", "/health/ready"]
)
def test_health_and_documentation_want_no_key(keyed: httpx.Client, path: str) -> None:
    assert keyed.get(path).status_code in (200, 307)


def test_openapi_tells_of_keys_where_they_are_wanted(
    keyed: httpx.Client, client: httpx.Client
) -> None:
    paths = keyed.get("/openapi.json").json()["paths"]
    assert paths["/transfer"]["post"]["security"] == [{"bearer": []}, {"key": []}]
    assert "401" in paths["/models"]["get"]["responses"]
    assert "security" not in paths["/health/live"]["get"]
    assert "security" not in client.get("/openapi.json").json()["paths"]["/transfer"]["post"]
