"""Several processes, as `dtn serve` with DTN_FRONTS starts them."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

import httpx
import pytest
from PIL import Image
from prometheus_client.multiprocess import MultiProcessCollector

from service.server import ServeError, listen, reserve
from tests.service.dummy import encoded, noise, write_model
from tests.service.dummy_faces import photo_of
from tests.service.test_metrics import scrape
from tests.service.test_reload import add_version
from tests.service.test_server import accepts, dtn_serve, read_all

RAW = {"content-type": "image/png"}
KEY = {"x-api-key": "secret"}

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="children are found in /proc"
)


def fronts_of(process: subprocess.Popen[str]) -> list[int]:
    """The process ids of a server's children that live."""
    return [int(pid) for pid in children(process.pid).read_text().split()]


def children(pid: int) -> Path:
    return Path(f"/proc/{pid}/task/{pid}/children")


def wait_for(what: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def lives(pid: int) -> bool:
    """Whether a process runs; one that has ended and whose end nobody has noticed does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # gone before the open, or before the read
        return False


def transfers_by(metrics: Path, pid: int) -> float:
    """How many pictures a process has transferred, by its own count."""
    counted = MultiProcessCollector.merge([str(p) for p in metrics.glob(f"counter_{pid}.db")])
    return sum(
        sample.value
        for family in counted
        for sample in family.samples
        if sample.name == "dtn_requests_total" and sample.labels["route"] == "/transfer"
    )


@dataclass
class Service:
    """A running `dtn serve` with two fronts."""

    process: subprocess.Popen[str]
    url: str
    metrics: Path
    temporary: Path

    def fronts(self) -> list[int]:
        """The process ids of its fronts that live."""
        return [pid for pid in fronts_of(self.process) if lives(pid)]


@contextmanager
def serving(models: Path, directory: Path, **settings: object) -> Iterator[Service]:
    """Two fronts that keep all they write in a directory."""
    metrics, temporary = directory / "metrics", directory / "t"
    temporary.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROMETHEUS_MULTIPROC_DIR", str(metrics))
        patch.setenv("TMPDIR", str(temporary))
        settings |= {"fronts": 2, "database_url": f"sqlite:///{directory}/dtn.db"}
        with dtn_serve(models, **settings) as (process, url):
            yield Service(process, url, metrics, temporary)


@dataclass
class Load:
    """Clients that ask again and again, each on connections of its own."""

    url: str
    photo: bytes
    stop: Event = field(default_factory=Event)
    answers: list[str] = field(default_factory=list)  # models, or statuses of what went wrong
    cut: int = 0  # connections that ended without an answer

    def ask(self) -> None:
        client = httpx.Client(base_url=self.url, timeout=20)
        while not self.stop.is_set():
            try:
                answer = client.post("/transfer", content=self.photo, headers=RAW | KEY)
                good = answer.status_code == 200
                self.answers.append(answer.headers["x-model"] if good else answer.text)
            except httpx.TransportError:
                self.cut += 1
                client.close()
                client = httpx.Client(base_url=self.url, timeout=20)
                time.sleep(0.01)
        client.close()


@contextmanager
def loaded(url: str, photo: bytes, clients: int = 6) -> Iterator[Load]:
    """Load that has begun and, afterwards, has ended."""
    load = Load(url, photo)
    threads = [Thread(target=load.ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(load.answers) > clients)
        yield load
    finally:
        load.stop.set()
        for thread in threads:
            thread.join()


@pytest.fixture(scope="module")
def service(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(models_dir, tmp_path_factory.mktemp("fronts")) as service:
        yield service


# Answers


def test_answers_are_those_of_a_single_process(
    service: Service, client: httpx.Client, photo: bytes
) -> None:
    face = encoded(photo_of((60, 80, 120, "red"), (220, 40, 160, "blue")))
    other = encoded(photo_of((60, 80, 120, "red"), grey=100))
    persons = [("files", ("a.png", face)), ("files", ("b.png", other))]
    json = RAW | {"accept": "application/json"}
    requests = [
        *(("/transfer", {"content": photo, "headers": RAW}),),
        *(("/transfer?distance=true", {"content": photo, "headers": json}),),
        *(("/transfer?model=plain&format=webp", {"content": photo, "headers": RAW}),),
        *(("/transfer", {"content": b"text", "headers": RAW}),),
        *(("/emoji?size=512", {"content": face, "headers": json}),),
        *(("/emoji", {"content": photo, "headers": RAW}),),
        *(("/persons/fronts/emoji", {"files": persons, "headers": {"accept": json["accept"]}}),),
    ]
    with httpx.Client(base_url=service.url, timeout=20) as several:
        for path, sent in requests:
            one, other_one = client.post(path, **sent), several.post(path, **sent)
            assert one.status_code == other_one.status_code, path
            told, expected = other_one.content, one.content
            if one.status_code >= 400:
                told, expected = other_one.json()["code"], one.json()["code"]
            assert told == expected, path
        cards = client.get("/models").json()
        assert several.get("/models").json() == cards


def test_many_connections_get_their_own_answers_from_both_fronts(
    service: Service, client: httpx.Client
) -> None:
    photos = [encoded(Image.fromarray(noise(20, 20, seed=seed))) for seed in range(40)]
    expected = [client.post("/transfer", content=p, headers=RAW).content for p in photos]
    count = ("dtn_requests_total", "POST", "/transfer", "200")

    def ask(_: int) -> list[bytes]:
        with httpx.Client(base_url=service.url, timeout=20) as own:
            return [own.post("/transfer", content=p, headers=RAW).content for p in photos]

    with httpx.Client(base_url=service.url) as asking:
        before = scrape(asking)
        with ThreadPoolExecutor(16) as pool:
            assert all(answers == expected for answers in pool.map(ask, range(24)))
        told = scrape(asking)
    assert told[count] - before.get(count, 0) == 24 * len(photos)
    by = [transfers_by(service.metrics, pid) for pid in service.fronts()]
    assert len(by) == 2
    assert min(by) > 0
    assert sum(value for key, value in told.items() if key[0] == "dtn_model_info") == 3


# What ends before its time


def test_a_front_that_is_killed_comes_back_and_the_others_go_on(
    service: Service, photo: bytes
) -> None:
    killed, other = service.fronts()
    with loaded(service.url, photo) as load:
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: not lives(killed))
        before = transfers_by(service.metrics, other)
        wait_for(lambda: transfers_by(service.metrics, other) > before + 20)
        wait_for(lambda: len(set(service.fronts()) - {other}) == 1)
        (new,) = set(service.fronts()) - {other}

        def serves() -> bool:
            httpx.post(f"{service.url}/transfer", content=photo, headers=RAW)
            return transfers_by(service.metrics, new) > 0

        wait_for(serves)
    assert set(load.answers) == {"digits@1"}
    assert load.cut <= 6  # what was under way in that process
    assert service.process.poll() is None


def test_without_what_runs_the_graphs_all_end(models_dir: Path, tmp_path: Path) -> None:
    with serving(models_dir, tmp_path) as service:
        fronts = service.fronts()
        assert len(fronts) == 2
        (private,) = service.temporary.glob("dtn-*")
        assert private.stat().st_mode & 0o077 == 0
        service.process.kill()
        assert service.process.wait(5) != 0
        wait_for(lambda: not any(map(lives, fronts)), 5)
        told = service.process.stderr.read() if service.process.stderr else ""
        assert "the process that runs the graphs is gone" in told
        assert not list(service.temporary.glob("dtn-*"))


# Reload, and the end


@pytest.mark.slow
def test_reload_and_end_under_load_lose_no_request(tmp_path: Path, photo: bytes) -> None:
    directory = tmp_path / "models"
    write_model(directory)
    with (
        serving(directory, tmp_path, api_keys="secret", drain_delay_s=2.0) as service,
        loaded(service.url, photo) as load,
    ):
        process, url, fronts = service.process, service.url, service.fronts()

        # By SIGHUP.
        folder = add_version(directory, "2")
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: load.answers[-1] == "digits@2")
        shutil.rmtree(folder)

        # By a request to any of them, which is answered when all have taken it over.
        folder = add_version(directory, "3")
        answer = httpx.post(f"{url}/admin/reload", headers=KEY, timeout=20)
        assert [card["model"] for card in answer.json()["models"]] == ["digits@1", "digits@3"]
        for _ in range(16):
            served = httpx.post(f"{url}/transfer", content=photo, headers=RAW | KEY)
            assert served.headers["x-model"] == "digits@3"

        # A broken one changes nothing.
        (directory / "digits@4").mkdir()
        answer = httpx.post(f"{url}/admin/reload", headers=KEY, timeout=20)
        assert (answer.status_code, answer.json()["code"]) == (409, "not_reloaded")
        (directory / "digits@4").rmdir()

        # SIGTERM: readiness off everywhere, what comes is still answered, then the port closes.
        address = httpx.URL(url)
        with socket.create_connection((address.host, address.port or 0)) as connection:
            connection.sendall(
                b"POST /transfer HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
                b"X-API-Key: secret\r\nContent-Length: %d\r\n\r\n" % len(photo) + photo[:-1]
            )
            time.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            with httpx.Client(base_url=url, headers={"connection": "close"}) as balancer:
                wait_for(lambda: balancer.get("/health/ready").status_code == 503)
                told = {balancer.get("/health/ready").json()["code"] for _ in range(8)}
            assert told == {"draining"}
            load.stop.set()
            wait_for(lambda: not accepts(address))
            connection.sendall(photo[-1:])
            assert read_all(connection).startswith(b"HTTP/1.1 200 ")
        assert process.wait(10) == 0
        assert not any(map(lives, fronts))
        assert load.cut == 0
        assert set(load.answers) == {"digits@1", "digits@2", "digits@3"}
        log = process.stderr.read() if process.stderr else ""
        assert "digits@2 is not called any longer" in log
        assert not list(service.temporary.glob("dtn-*"))


# What cannot start


def test_what_no_front_can_do_is_told_once(
    models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    settings = {"DTN_FRONTS": "1", "DTN_DATABASE_URL": "nonsense://x"}
    result = subprocess.run(
        [sys.executable, "-m", "service", "serve", "--port", "0"],
        env=os.environ | {"DTN_MODELS": str(models_dir)} | settings,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert "DTN_DATABASE_URL" in result.stderr.splitlines()[-1]
    assert not list(tmp_path.glob("dtn-*"))


def test_a_port_that_others_share_is_taken() -> None:
    with reserve("127.0.0.1", 0) as reserved:
        port = reserved.getsockname()[1]
        with listen("127.0.0.1", port, shared=True), listen("127.0.0.1", port, shared=True):
            for take in (listen, reserve):
                with pytest.raises(ServeError, match=f"port {port}: Address already in use"):
                    take("127.0.0.1", port)
