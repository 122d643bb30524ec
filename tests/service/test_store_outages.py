"""Databases that go away while they are in use."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from itertools import count

import httpx
import pytest

from service import persons, store
from service.circuit import Circuit
from service.problems import Problem
from service.store import PersonStore
from tests.postgres import Server, missing, postgres

PNG = b"\x89PNG one"


def unavailable(store: PersonStore) -> bool:
    try:
        store.all("ann")
    except Problem as problem:
        assert problem.code == "store_unavailable"
        return True
    return False


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("not within a minute")


# A server that takes connections and then says nothing


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_a_silent_database_is_waited_for_by_one_only(silent: socket.socket) -> None:
    store = PersonStore(f"postgresql://ann@127.0.0.1:{silent.getsockname()[1]}/dtn")
    store.circuit = Circuit(pause_s=3600)
    assert unavailable(store)
    silent.settimeout(0)
    asked, _ = silent.accept()
    with asked, ThreadPoolExecutor(20) as pool:
        assert all(pool.map(unavailable, [store] * 200))
        with pytest.raises(BlockingIOError):  # none of them has even asked
            silent.accept()
    store.close()


def test_a_circuit_lets_one_try_at_a_time() -> None:
    circuit = Circuit(pause_s=0)
    assert circuit.may_try()
    assert circuit.may_try()
    circuit.failed()
    assert [circuit.may_try() for _ in range(3)] == [True, False, False]
    circuit.failed()
    assert [circuit.may_try() for _ in range(3)] == [True, False, False]
    circuit.succeeded()
    assert all(circuit.may_try() for _ in range(3))


def test_a_circuit_pauses_before_it_tries_again() -> None:
    circuit = Circuit(pause_s=3600)
    circuit.failed()
    assert not circuit.may_try()
    circuit.again = time.monotonic()
    assert circuit.may_try()


def test_a_circuit_says_whether_it_is_open_without_taking_a_turn() -> None:
    circuit = Circuit(pause_s=3600)
    assert not circuit.is_open()
    circuit.failed()
    assert circuit.is_open()
    circuit.again = time.monotonic()
    assert [circuit.is_open() for _ in range(3)] == [False] * 3
    assert circuit.may_try()
    assert circuit.is_open()  # somebody is trying


def test_nothing_is_drawn_for_a_database_that_is_known_to_be_away(
    open_server: Callable[..., AbstractContextManager[httpx.Client]],
    photo: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]  # nobody listens there afterwards
    url = f"postgresql://ann@127.0.0.1:{port}/dtn"
    monkeypatch.setattr(store, "Circuit", partial(Circuit, 3600))
    headers = {"content-type": "image/png"}
    with open_server(database_url=url) as client:
        assert client.get("/persons/ann").status_code == 503
        monkeypatch.setattr(persons, "judge", None)  # would be a 500
        answer = client.post("/persons/ann/emoji", content=photo, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")


# A PostgreSQL that is restarted


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if missing():
        pytest.skip(missing())
    with postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_restarted_database_is_recovered_from(server: Server, end: str) -> None:
    store = PersonStore(server.url)
    assert not unavailable(store)
    getattr(server, end)()
    assert unavailable(store)
    assert unavailable(store)
    server.start()
    wait_until(lambda: not unavailable(store))
    store.close()


def test_a_restart_between_two_uses_is_not_noticed(server: Server) -> None:
    store = PersonStore(server.url)
    assert not unavailable(store)
    server.stop()
    server.start()
    assert not unavailable(store)
    store.close()


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_what_was_acknowledged_outlives_restarts_under_load(server: Server, end: str) -> None:
    store = PersonStore(server.url)
    acknowledged: list[str] = []
    refused: list[str] = []
    numbers, over = count(), threading.Event()

    def write() -> None:
        while not over.is_set():
            person = f"{end}-{next(numbers)}"
            try:
                store.offer(person, "emoji", "1", PNG, 0.5, 0)
            except Problem as problem:
                refused.append(problem.code)
                time.sleep(0.01)
            else:
                acknowledged.append(person)

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write) for _ in range(4)]
        try:
            for _ in range(2):
                already = len(acknowledged)
                wait_until(lambda already=already: len(acknowledged) >= already + 50)
                getattr(server, end)()
                told = len(refused)
                wait_until(lambda told=told: len(refused) >= told + 4)
                server.start()
            already = len(acknowledged)
            wait_until(lambda: len(acknowledged) >= already + 50)
        finally:
            over.set()
    for writer in writers:
        writer.result()
    assert set(refused) == {"store_unavailable"}
    assert [person for person in acknowledged if not store.all(person)] == []
    store.close()
