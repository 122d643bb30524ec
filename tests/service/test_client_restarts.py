"""A client that outlives its server: a thousand pictures, none lost, none double."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from sqlalchemy import create_engine, func, select

from service.client import AsyncClient, Client, Done, Transferred
from service.models import Model
from service.store import emojis
from tests.service.dummy import encoded, noise, write_model
from tests.service.dummy_faces import photo_of, write_face_model
from tests.service.test_client import same

PICTURES = 1000
# After so many results the server gets this signal, and another one is started.
ENDS = {100: signal.SIGTERM, 300: signal.SIGKILL, 550: signal.SIGKILL, 800: signal.SIGTERM}
PATIENT = {"retries": 10_000, "deadline": 600.0}  # a machine that is busy starts servers slowly


class Restarting:
    """A process of `dtn serve` on one port, ended and started anew."""

    def __init__(self, models: Path, **settings: object) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = os.environ | {
            "DTN_MODELS": str(models),
            "DTN_PORT": str(self.port),
            "DTN_LOG_LEVEL": "error",
            **{f"DTN_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self.process = self.start()
        self.codes: list[int] = []
        self.turns: list[threading.Thread] = []
        self.lock = threading.Lock()

    def start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "service", "serve"],
            env=self.environment,
            stdout=subprocess.DEVNULL,
        )

    def end(self, sig: signal.Signals) -> None:
        """In the background, so that calls go on while there is no server."""
        self.turns.append(threading.Thread(target=self.turn, args=(sig,)))
        self.turns[-1].start()

    def turn(self, sig: signal.Signals) -> None:
        with self.lock:
            # A server that is only just starting has not yet set up what SIGTERM does.
            with Client(self.url, **PATIENT) as client:
                while not client.ready():
                    time.sleep(0.05)
            self.process.send_signal(sig)
            self.codes.append(self.process.wait(120))
            self.process = self.start()

    def __enter__(self) -> "Restarting":
        return self

    def __exit__(self, *_: object) -> None:
        for turn in self.turns:
            turn.join(300)
        self.process.kill()
        self.process.wait(60)


class Rough(httpx.HTTPTransport):
    """Counts what goes wrong on the way."""

    failures: Counter[str]

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        try:
            response = super().handle_request(request)
        except httpx.TransportError as error:
            self.failures[type(error).__name__] += 1
            raise
        if response.status_code >= 500:
            self.failures[str(response.status_code)] += 1
        return response


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    return [encoded(Image.fromarray(noise(8, 8, seed=seed))) for seed in range(PICTURES)]


def check(results: list[Done[Transferred]], folder: Path) -> None:
    """Each picture has one result, and that is its own."""
    assert [done.index for done in sorted(results, key=lambda d: d.index)] == list(range(PICTURES))
    model = Model(folder)
    x = np.stack([noise(8, 8, seed=seed) for seed in range(PICTURES)])
    y, _ = model(x)
    for done in results:
        assert done.error is None, done.error
        assert same(done.result, y[done.index])


def test_a_thousand_pictures_outlive_four_servers(
    tmp_path: Path, pictures: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_model(tmp_path)
    transport = Rough()
    transport.failures = Counter()
    results = []
    with (
        Restarting(tmp_path) as server,
        Client(server.url, transport=transport, **PATIENT) as client,
    ):
        for done in client.transfer_many(pictures, concurrency=8):
            results.append(done)
            if len(results) in ENDS:
                server.end(ENDS[len(results)])
    assert [done.index for done in results] == list(range(PICTURES))  # ordered
    check(results, folder)
    assert len(server.codes) == len(ENDS)
    assert Counter(server.codes) == {0: 2, -signal.SIGKILL: 2}
    assert transport.failures.total() >= len(ENDS)


def test_the_async_client_outlives_servers_too(tmp_path: Path, pictures: list[bytes]) -> None:
    folder = write_model(tmp_path)

    async def run() -> list[Done[Transferred]]:
        results = []
        async with AsyncClient(server.url, **PATIENT) as client:
            async for done in client.transfer_many(pictures, concurrency=8, ordered=False):
                results.append(done)
                if len(results) in (100, 500):
                    server.end(signal.SIGKILL if len(results) == 500 else signal.SIGTERM)
        return results

    with Restarting(tmp_path) as server:
        results = asyncio.run(run())
    check(results, folder)
    assert Counter(server.codes) == {0: 1, -signal.SIGKILL: 1}


def test_persons_are_kept_once_whatever_is_lost_on_the_way(tmp_path: Path) -> None:
    """Each person's POST may have been done by a server that was killed before it could say so."""
    write_model(tmp_path / "models")
    write_face_model(tmp_path / "models", upscale=False)
    database = tmp_path / "dtn.db"
    near, far = (encoded(photo_of((60, 80, 120, "red"), grey=grey)) for grey in (100, 160))
    persons = [f"person-{i}" for i in range(80)]
    done = 0

    def keep(person: str) -> tuple[str, list[bool]]:
        kept = client.person(person).emoji(far, near, size=64)
        return person, [photo.chosen for photo in kept.photos]

    with (
        Restarting(tmp_path / "models", database_url=f"sqlite:///{database}") as server,
        Client(server.url, **PATIENT) as client,
        ThreadPoolExecutor(4) as pool,
    ):
        for person, chosen in pool.map(keep, persons):
            assert chosen == [False, True], person
            done += 1
            if done in (15, 45):
                server.end(signal.SIGKILL)
        assert {client.person(person).about().emojis[0].photo for person in persons} == {1}
    engine = create_engine(f"sqlite:///{database}")
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(emojis)).scalar() == len(persons)
    engine.dispose()
    assert server.codes == [-signal.SIGKILL] * 2
