import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.lifecycle import Service
from service.manifest import ModelError
from service.models import Model, Models
from service.problems import Problem
from service.settings import Settings


def service_of(models: Models) -> Service:
    return Service(Settings(), models)


def ready_code(service: Service) -> str:
    try:
        service.require_ready()
    except Problem as problem:
        return problem.code
    return "ready"


def test_the_service_is_ready_from_warm_up_until_it_drains(models: Models) -> None:
    service = service_of(models)
    assert ready_code(service) == "not_ready"
    asyncio.run(service.warm_up())
    assert ready_code(service) == "ready"
    service.drain()
    assert ready_code(service) == "draining"
    service.require_started()  # what still comes is still answered


def test_a_service_told_to_stop_while_it_warms_up_does_not_become_ready(models: Models) -> None:
    service = service_of(models)
    service.drain()
    asyncio.run(service.warm_up())
    assert ready_code(service) == "draining"


def test_a_failing_warm_up_is_kept_as_the_reason_to_stop(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model(models_dir / "digits")
    failure = ModelError("no memory")

    def fail() -> None:
        raise failure

    monkeypatch.setattr(model, "warm_up", fail)
    service = service_of(Models([model], "digits"))
    asyncio.run(service.warm_up())
    assert service.failure is failure
    assert ready_code(service) == "not_ready"


def call(app: Any, method: str, path: str, **sent: Any) -> httpx.Response:
    """One request to an application whose lifespan has not begun."""

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **sent)

    return asyncio.run(ask())


def test_before_models_are_warm_the_process_is_live_but_not_ready(
    models: Models, photo: bytes
) -> None:
    app = create_app(Settings(), models)
    assert call(app, "GET", "/health/live").status_code == 200
    transfer = call(app, "POST", "/transfer", content=photo, headers={"content-type": "image/png"})
    for response in (call(app, "GET", "/health/ready"), transfer):
        assert response.status_code == 503
        assert response.json()["code"] == "not_ready"
        assert int(response.headers["retry-after"]) > 0


def test_an_unexpected_error_is_a_problem_and_is_logged_with_its_id(
    models: Models, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Models) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Models, "cards", fail)
    response = call(create_app(Settings(), models), "GET", "/models")
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    details = response.json()
    assert details["code"] == "internal_error"
    assert "a bug" not in response.text
    assert details["request_id"] == response.headers["x-request-id"]
    assert details["request_id"] in caplog.text
    assert "RuntimeError: a bug" in caplog.text
