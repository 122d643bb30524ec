"""The process that runs the graphs, and the models of those that call it."""

import gc
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any, Literal

import numpy as np
import pytest

from service import engine
from service.cuda import LANES, RECORDED
from service.engine import Call, Engine, Runs
from service.front import Parent
from service.manifest import ModelError
from service.models import Model, Models
from service.problems import Problem
from service.remote import Line, ModelNotice, RemoteModel, RunError, notice_of
from tests.service.dummy import noise

Far = Callable[[Model], RemoteModel]


class Recorded:
    """A session that records its runs, and does not begin one before it may."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.began = Event()
        self.may = Event()
        self.fails_above = 1000

    def run(self, names: list[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        x = feed["x"]
        self.sizes.append(len(x))
        self.began.set()
        assert self.may.wait(5)
        if len(x) > self.fails_above or (x == 99).any():
            raise ValueError("no memory")
        return [x + 1, x.reshape(len(x), -1).mean(1, dtype=np.float32)][: len(names)]


class Fake(Model):
    """A model of one session for all of its graphs."""

    def __init__(self, session: Recorded, most: int, device: Literal["cpu", "cuda"]) -> None:
        self.sessions = dict.fromkeys(("transfer", "distance", "detect"), session)
        self.most = most
        self.device = device


def runs_of(
    session: Recorded, most: int = 8, parallel: int = 1, device: Literal["cpu", "cuda"] = "cpu"
) -> Runs:
    return Runs(Fake(session, most, device), parallel)


def call(value: int, n: int = 1, side: int = 2, role: str = "transfer") -> Call:
    names = ("y", "d") if role == "distance" else ("y",)
    return Call(role, names, {"x": np.full((n, side, side, 3), value, np.uint8)})


def run_behind(
    runs: Runs, session: Recorded, calls: list[Call], pool: ThreadPoolExecutor
) -> list[Future[Any]]:
    """The results of calls that come, in this order, while another one runs."""
    first = pool.submit(runs.run, call(0))
    assert session.began.wait(5)
    results = [first]
    for number, each in enumerate(calls, 1):
        results.append(pool.submit(runs.run, each))
        deadline = time.monotonic() + 5
        while len(runs.waiting) < number and time.monotonic() < deadline:
            time.sleep(0.001)
    session.may.set()
    return results


def test_calls_that_come_during_a_run_are_the_next_one() -> None:
    session = Recorded()
    calls = [call(1), call(2, 3), call(3, 2)]
    with ThreadPoolExecutor(8) as pool:
        first, *results = run_behind(runs := runs_of(session), session, calls, pool)
        for each, result in zip(calls, results, strict=True):
            (y,) = result.result(5)
            np.testing.assert_array_equal(y, each.feed["x"] + 1)
    assert first.result()[0].shape == (1, 2, 2, 3)
    assert session.sizes == [1, 6]
    assert runs.running == len(runs.waiting) == 0


def test_distances_are_split_again() -> None:
    session = Recorded()
    calls = [call(4, 2, role="distance"), call(6, 1, role="distance")]
    with ThreadPoolExecutor(8) as pool:
        _, *results = run_behind(runs_of(session), session, calls, pool)
        assert [list(result.result(5)[1]) for result in results] == [[4, 4], [6]]
    assert session.sizes == [1, 3]


def test_only_what_fits_joins_and_no_more_than_pays() -> None:
    session = Recorded()
    calls = [
        *(call(1, 3), call(2, 1, side=4), call(3, 6), call(4, 1, role="distance")),
        *(call(5, 5), call(6, 1, role="detect"), call(7, 1, role="detect")),
    ]
    with ThreadPoolExecutor(8) as pool:
        _, *results = run_behind(runs_of(session), session, calls, pool)
        for each, result in zip(calls, results, strict=True):
            np.testing.assert_array_equal(result.result(5)[0], each.feed["x"] + 1)
    assert session.sizes == [1, 8, 1, 6, 1, 1, 1]


def test_a_joined_run_that_fails_is_tried_call_by_call() -> None:
    session = Recorded()
    calls = [call(1), call(99), call(3)]
    with ThreadPoolExecutor(8) as pool:
        _, good, bad, also = run_behind(runs := runs_of(session), session, calls, pool)
        assert (good.result(5)[0] == 2).all() and (also.result(5)[0] == 4).all()
        with pytest.raises(ValueError, match="no memory"):
            bad.result(5)
    assert session.sizes == [1, 3, 1, 1, 1]
    assert runs.running == 0


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not true() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert true()


def test_on_a_gpu_a_second_run_begins_when_it_is_half_full() -> None:
    session = Recorded()
    runs = runs_of(session, most=8, parallel=4, device="cuda")
    with ThreadPoolExecutor(8) as pool:
        results = [pool.submit(runs.run, call(0))]
        until(lambda: runs.running == 1)
        results.append(pool.submit(runs.run, call(1, 3)))
        until(lambda: len(runs.waiting) == 1)
        assert session.sizes == [1]
        results.append(pool.submit(runs.run, call(2, 1)))  # with that which waits, it is
        until(lambda: session.sizes == [1, 4])
        results.append(pool.submit(runs.run, call(3, 9)))  # but not a third one
        results.append(pool.submit(runs.run, call(4)))
        until(lambda: len(runs.waiting) == 2)
        assert runs.running == 2
        session.may.set()
        for value, result in enumerate(results):
            assert (result.result(5)[0] == value + 1).all()
    assert sorted(session.sizes) == [1, 1, 4, 9]
    assert runs.running == len(runs.waiting) == 0


def test_what_a_gpu_leaves_to_the_cpu_waits_for_no_run_of_it() -> None:
    session = Recorded()
    runs = runs_of(session, device="cuda")
    with ThreadPoolExecutor(8) as pool:
        results = [pool.submit(runs.run, call(value)) for value in (0, 1)]
        until(lambda: len(runs.waiting) == 1)
        results += [pool.submit(runs.run, call(value, role="detect")) for value in (2, 3)]
        until(lambda: session.sizes == [1, 1, 1])
        assert (runs.running, len(runs.waiting)) == (1, 1)
        session.may.set()
        assert [result.result(5)[0][0, 0, 0, 0] for result in results] == [1, 2, 3, 4]


def test_a_cpu_runs_as_many_as_it_may() -> None:
    session = Recorded()
    runs = runs_of(session, most=1, parallel=2)
    with ThreadPoolExecutor(8) as pool:
        results = [pool.submit(runs.run, call(i)) for i in range(3)]
        deadline = time.monotonic() + 5
        while len(runs.waiting) < 1 and time.monotonic() < deadline:
            time.sleep(0.001)
        assert (len(session.sizes), runs.running) == (2, 2)
        session.may.set()
        assert [result.result(5)[0][0, 0, 0, 0] for result in results] == [1, 2, 3]
    assert runs.running == 0


# Over a socket


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Far]:
    """Makes of a model one that runs behind a socket."""
    running = Engine(parallel=2)
    listener = engine.listen(str(tmp_path / "engine"))
    engine.start(running, listener)
    line = Line(str(tmp_path / "engine"))

    def made(model: Model) -> RemoteModel:
        notice = notice_of(model, running.add(model))
        return RemoteModel(ModelNotice.model_validate(notice), line)

    yield made
    for connection in line.idle:
        connection.close()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def test_a_model_elsewhere_answers_as_one_here(far: Far, models: Models) -> None:
    for model in models:
        remote = far(model)
        remote.warm_up()
        assert (remote.most, remote.device) == (model.most, model.device)
        assert remote.card(default=False) == model.card(default=False)
        x = np.stack([noise(40, 30, seed=seed) for seed in range(3)])
        for distance in (False, True) if model.has_distance else (False,):
            y, f_distance = remote(x, distance)
            expected, expected_distance = model(x, distance)
            np.testing.assert_array_equal(y, expected)
            assert f_distance == expected_distance
    emoji = models.find("emoji")
    remote = far(emoji)
    for found, expected in zip(remote.detect(x[0]), emoji.detect(x[0]), strict=True):
        np.testing.assert_array_equal(found, expected)
    y = noise(64, 64)
    np.testing.assert_array_equal(remote.upscale(y), emoji.upscale(y))


def test_one_of_many_processes_calls_anew_sooner_than_a_run_is_half_full(
    far: Far, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models.find("digits")
    monkeypatch.setattr(model, "device", "cuda")
    monkeypatch.setattr(model, "most", 256)
    remote = far(model)
    assert (model.enough, remote.enough) == (128, RECORDED[-1])
    assert not model.begins(running=1, waiting=127, parallel=8)
    assert model.begins(running=1, waiting=128, parallel=8)
    assert not remote.begins(running=1, waiting=RECORDED[-1] - 1, parallel=8)
    assert remote.begins(running=1, waiting=RECORDED[-1], parallel=8)
    assert not remote.begins(running=LANES, waiting=1000, parallel=8)
    monkeypatch.setattr(model, "most", 2)
    assert far(model).enough == 1


def test_a_run_that_fails_there_is_the_pictures_fault(far: Far, models: Models) -> None:
    remote = far(models.find("digits"))
    with pytest.raises(RunError, match="x"):
        remote.sessions["transfer"].run(["y"], {"x": np.zeros((1, 2), np.uint8)})
    with pytest.raises(Problem) as raised:
        remote(np.zeros((1, 2, 2, 5), np.uint8))
    assert raised.value.code == "invalid_parameter"
    assert remote(noise(8, 8)[np.newaxis])[0].shape == (1, 32, 32, 1)  # and nobody else's


def test_many_calls_at_once_get_their_own_answers(far: Far, models: Models) -> None:
    model = models.find("digits")
    remote = far(model)
    xs = [noise(20, 20, seed=seed)[np.newaxis] for seed in range(64)]
    with ThreadPoolExecutor(16) as pool:
        for x, (y, _) in zip(xs, pool.map(remote, xs), strict=True):
            np.testing.assert_array_equal(y, model(x)[0])
    assert 1 <= len(remote.line.idle) <= 16


def test_a_failing_warm_up_is_told(
    far: Far, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model(models_dir / "digits")

    def fail() -> None:
        raise ModelError("no memory")

    monkeypatch.setattr(model, "warm_up", fail)
    with pytest.raises(ModelError, match="no memory"):
        far(model).warm_up()


def test_nobody_there_is_not_ready(tmp_path: Path, models: Models) -> None:
    model = models.find("digits")
    path = str(tmp_path / "engine")
    remote = RemoteModel(ModelNotice.model_validate(notice_of(model, 1)), Line(path))
    x = noise(8, 8)
    here, there = socket.socketpair()
    there.close()
    for idle in ([], [here]):  # no connection is made, or one ends in the middle of a call
        remote.line.idle += idle
        with pytest.raises(Problem) as raised:
            remote(x[np.newaxis])
        assert raised.value.code == "not_ready"
        assert "Retry-After" in raised.value.headers
        assert remote.blame(x, raised.value) is raised.value
    assert here.fileno() == -1


def test_a_model_that_is_not_called_any_longer_is_let_go(models: Models) -> None:
    running = Engine(parallel=1)
    first, second = (running.add(models.find(name)) for name in ("digits", "plain"))
    assert running.add(models.find("digits")) == first
    running.keep({second})
    assert list(running.runs) == [second]
    assert running.add(models.find("digits")) not in (first, second)


def test_a_front_tells_when_no_request_holds_a_model_any_longer(models: Models) -> None:
    here, there = socket.socketpair()
    with here, there:
        parent = Parent(here, "nowhere")
        notices = [notice_of(model, key) for key, model in enumerate(models, 1)]
        told = {"default": "digits", "models": notices}
        before = parent.models(told)
        kept = before.find("plain")
        after = parent.models(told | {"models": notices[:1]})
        assert after.find("digits") is before.find("digits")
        del before
        gc.collect()
        assert [parent.unused.get_nowait()] == [2]
        del kept
        gc.collect()
        assert [parent.unused.get_nowait()] == [3]
        assert parent.unused.empty()
