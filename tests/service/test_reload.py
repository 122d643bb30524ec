"""Models that change while they are served."""

import json
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from service.manifest import ModelError
from service.models import load_models
from tests.service.dummy import write_model
from tests.service.test_server import dtn_serve

OpenServer = Callable[..., AbstractContextManager[httpx.Client]]
RAW = {"content-type": "image/png"}
KEY = {"x-api-key": "secret"}


def add_version(models: Path, version: str) -> Path:
    """The model `digits` once more, in a version of its own."""
    folder = models / f"digits@{version}"
    shutil.copytree(models / "digits", folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"version": version}))
    return folder


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    write_model(tmp_path / "models")
    return tmp_path / "models"


def test_several_versions_of_a_model_are_served_the_newest_by_default(directory: Path) -> None:
    for version in ("9", "10", "1.5"):
        add_version(directory, version)
    models = load_models(directory, "digits", "cpu", threads=1)
    assert [model.reference for model in models] == [
        "digits@1",
        "digits@1.5",
        "digits@9",
        "digits@10",
    ]
    assert models.find("digits").reference == models.find(None).reference == "digits@10"
    assert models.find("digits@1.5").reference == "digits@1.5"
    assert [card.default for card in models.cards()] == [False, False, False, True]


def test_one_version_twice_is_refused(directory: Path) -> None:
    shutil.copytree(directory / "digits", directory / "digits@1")
    with pytest.raises(ModelError, match="two folders of digits@1"):
        load_models(directory, "digits", "cpu", threads=1)


def test_unchanged_models_keep_their_sessions(directory: Path) -> None:
    before = load_models(directory, "digits", "cpu", threads=1)
    add_version(directory, "2")
    after = load_models(directory, "digits", "cpu", 1, list(before))
    assert after.find("digits@1") is before.find("digits@1")
    assert after.find("digits").reference == "digits@2"


def test_a_new_version_is_served_after_a_reload(
    open_server: OpenServer, directory: Path, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DTN_MODELS", str(directory))
    models = load_models(directory, "digits", "cpu", threads=1)
    with open_server(models, api_keys="secret") as client:
        client.headers.update(KEY)

        def served(query: str = "") -> str:
            return client.post(f"/transfer{query}", content=photo, headers=RAW).headers["x-model"]

        assert served() == "digits@1"
        folder = add_version(directory, "2")
        answer = client.post("/admin/reload")
        assert answer.status_code == 200
        assert [card["model"] for card in answer.json()["models"]] == ["digits@1", "digits@2"]
        assert (served(), served("?model=digits@1")) == ("digits@2", "digits@1")

        # A broken one changes nothing.
        (directory / "digits@3").mkdir()
        answer = client.post("/admin/reload")
        assert (answer.status_code, answer.json()["code"]) == (409, "not_reloaded")
        assert served() == "digits@2"

        # Gone from the directory, gone from the service.
        (directory / "digits@3").rmdir()
        shutil.rmtree(folder)
        assert client.post("/admin/reload").status_code == 200
        assert served() == "digits@1"
        answer = client.post("/transfer?model=digits@2", content=photo, headers=RAW)
        assert answer.json()["code"] == "unknown_model"


def test_reload_wants_a_key_and_that_there_is_one(open_server: OpenServer) -> None:
    with open_server() as client:
        assert client.post("/admin/reload").status_code == 401
    with open_server(api_keys="secret") as client:
        assert client.post("/admin/reload").status_code == 401
        assert client.post("/admin/reload", headers={"x-api-key": "other"}).status_code == 401


def test_no_request_fails_while_models_are_reloaded(directory: Path, photo: bytes) -> None:
    with dtn_serve(directory) as (process, url), ThreadPoolExecutor(4) as pool:
        stop = False
        seen: set[str] = set()

        def ask() -> int:
            n = 0
            with httpx.Client(base_url=url) as client:
                while not stop:
                    answer = client.post("/transfer", content=photo, headers=RAW)
                    assert answer.status_code == 200
                    seen.add(answer.headers["x-model"])
                    n += 1
            return n

        asking = [pool.submit(ask) for _ in range(4)]
        for version in range(2, 7):
            folder = add_version(directory, str(version))
            process.send_signal(signal.SIGHUP)
            deadline = time.monotonic() + 10
            while f"digits@{version}" not in seen and time.monotonic() < deadline:
                time.sleep(0.01)
            shutil.rmtree(folder)
        stop = True
        assert all(each.result() > 0 for each in asking)
        assert seen >= {f"digits@{version}" for version in range(2, 7)}
