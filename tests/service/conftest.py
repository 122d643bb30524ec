"""Fixtures of the service's tests: models, clients, servers."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service.app import create_app
from service.models import Model, Models, load_models
from service.server import listen, make_server
from service.settings import Settings
from tests.service.dummy import encoded, noise, write_model
from tests.service.dummy_faces import write_face_model


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models `digits` (grey, with distance), `plain` (colour, without) and `emoji` (faces)."""
    directory = tmp_path_factory.mktemp("models")
    write_model(directory)
    write_model(directory, "plain", distance=False, channels=3)
    write_face_model(directory)
    return directory


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., Path]:
    """Writes a model folder of a test's own."""
    return lambda **changes: write_model(tmp_path / "models", **changes)


@pytest.fixture(scope="session")
def photo() -> bytes:
    """A PNG of 40 x 30 random pixels."""
    return encoded(Image.fromarray(noise(30, 40)))


@pytest.fixture(scope="session")
def models(models_dir: Path) -> Models:
    return load_models(models_dir, "digits", "cpu", threads=1)


class Gated(Model):
    """A model that runs only once it is let."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.go = threading.Event()
        self.started = threading.Semaphore(0)
        self.runs = 0

    def warm_up(self) -> None:
        """Not gated."""

    def run(self, x: np.ndarray, distance: bool) -> Any:
        self.runs += 1
        self.started.release()
        assert self.go.wait(20)
        return super().run(x, distance)


@pytest.fixture
def gated(models_dir: Path) -> Gated:
    return Gated(models_dir / "digits")


numbers = count()


@pytest.fixture
def person() -> str:
    """An id that no other test has."""
    return f"person-{next(numbers)}"


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("DTN_"):
            monkeypatch.delenv(name)


def wait_until_ready(client: httpx.Client) -> None:
    for _ in range(500):
        if client.get("/health/ready").status_code == 200:
            return
        time.sleep(0.01)
    pytest.fail("not ready within five seconds")


@pytest.fixture(scope="session")
def open_server(
    models: Models, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., AbstractContextManager[httpx.Client]]:
    """A real server in a thread, with settings as given, and a client of it."""
    database = f"sqlite:///{tmp_path_factory.mktemp('store')}/dtn.db"

    @contextmanager
    def opened(models: Models = models, **settings: Any) -> Iterator[httpx.Client]:
        settings.setdefault("database_url", database)
        server = make_server(create_app(Settings(**settings), models))
        listener = listen("127.0.0.1", 0)
        thread = Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            with httpx.Client(base_url=url, timeout=30) as client:
                wait_until_ready(client)
                yield client
        finally:
            server.should_exit = True
            thread.join()

    return opened


@pytest.fixture(scope="session")
def client(
    open_server: Callable[..., AbstractContextManager[httpx.Client]],
) -> Iterator[httpx.Client]:
    """A client of a server with default settings, shared by all tests."""
    with open_server() as client:
        yield client
