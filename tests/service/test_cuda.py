"""Runs on a GPU, with the CPU in its place: few sizes, and recorded ones."""

import ctypes
import gc
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import current_thread
from typing import Any

import numpy as np
import pytest

from service.cuda import LANES, CudaSession, Recorded, Rooms, Shape, page_locked
from service.models import Model
from service.sessions import CPU, open_with
from tests.service.dummy import noise

FREE = ("N", "H", "W")


class Sizes:
    """A session that notes how many pictures it is given, and on which threads."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.seen: list[int] = []
        self.threads: set[str] = set()

    def get_inputs(self) -> Any:
        return self.session.get_inputs()

    def run(self, names: Sequence[str], feed: dict[str, Any]) -> Any:
        self.seen.append(len(feed["x"]))
        self.threads.add(current_thread().name)
        return self.session.run(names, feed)


@pytest.fixture
def plain(models_dir: Path) -> Sizes:
    return Sizes(Model(models_dir / "digits").sessions["distance"])


@pytest.fixture
def opened() -> dict[tuple[Shape, bool], Sizes]:
    """The sessions that were opened beside the plain one."""
    return {}


@pytest.fixture
def session(
    plain: Sizes, models_dir: Path, opened: dict[tuple[Shape, bool], Sizes]
) -> Iterator[CudaSession]:
    content = (models_dir / "digits" / "distance.onnx").read_bytes()

    def open_sized(shape: Shape, record: bool) -> Any:
        axes = dict(zip(FREE, shape, strict=False))
        own = open_with(content, {}, 1, [CPU], axes)
        if not record:
            own = opened[shape, record] = Sizes(own)
        return own

    with ThreadPoolExecutor(LANES, "lane") as lanes:
        yield CudaSession(plain, lanes, open_sized, "cpu")


def prepare(session: CudaSession, *sizes: int) -> None:
    for size in sizes:
        session.prepare(NAMES, {"x": np.full((size, 20, 20, 3), 127, np.uint8)})


def pictures(n: int, side: int = 20) -> Any:
    return np.stack([noise(side, side, seed=seed) for seed in range(n)])


NAMES = ("y", "f_distance")


@pytest.mark.parametrize("side", [20, 24])
def test_each_size_of_run_has_a_session_of_its_own(
    session: CudaSession, plain: Sizes, opened: dict[tuple[Shape, bool], Sizes], side: int
) -> None:
    prepare(session, 1, 16, 48, 256)
    for each in opened.values():
        each.seen.clear()
    expected = {1: [1], 2: [16], 16: [16], 17: [48], 49: [256], 257: []}
    for n, sizes in expected.items():
        x = pictures(n, side)
        y, distances = session.run(NAMES, {"x": x})
        assert [size for each in opened.values() for size in each.seen] == sizes
        assert all(shape == tuple(each.seen) for (shape, _), each in opened.items() if each.seen)
        wanted_y, wanted = plain.session.run(list(NAMES), {"x": x})
        assert np.abs(y.astype(int) - wanted_y).max() <= 1
        np.testing.assert_allclose(distances, wanted, rtol=1e-4)
        for each in opened.values():
            each.seen.clear()
    assert plain.seen == [257]


def test_sessions_for_more_pictures_than_pay_are_let_go(session: CudaSession) -> None:
    prepare(session, 1, 16, 48)
    session.forget_above(16)
    assert sorted(session.sized) == [1, 16]


def test_recorded_runs_answer_as_others_and_need_those_no_more(
    session: CudaSession, plain: Sizes
) -> None:
    for n in (1, 4):
        session.record(NAMES, {"x": np.full((n, 20, 20, 3), 127, np.uint8)})
    plain.seen.clear()
    for n in (3, 1, 4):
        x = pictures(n)
        y, distances = session.run(NAMES, {"x": x})
        wanted_y, wanted = plain.session.run(list(NAMES), {"x": x})
        assert np.abs(y.astype(int) - wanted_y).max() <= 1
        np.testing.assert_allclose(distances, wanted, rtol=1e-4)
    assert plain.seen == []


def test_other_shapes_and_outputs_stay_plain(session: CudaSession, plain: Sizes) -> None:
    session.record(NAMES, {"x": np.full((1, 20, 20, 3), 127, np.uint8)})
    plain.seen.clear()
    session.run(NAMES, {"x": pictures(1, side=24)})
    session.run(["y"], {"x": pictures(1)})
    session.run(NAMES, {"x": pictures(2)})
    assert plain.seen == [1, 1, 2]


def test_a_recorded_run_that_answers_otherwise_is_not_used(
    session: CudaSession, plain: Sizes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recorded, "run", lambda self, x: [x[..., :1] + 50, np.zeros(len(x))])
    with pytest.raises(ValueError, match="answers otherwise"):
        session.record(NAMES, {"x": pictures(1)})
    monkeypatch.undo()
    plain.seen.clear()
    session.run(NAMES, {"x": pictures(1)})
    assert plain.seen == [1]


def test_all_runs_are_those_of_a_few_threads_which_warm_up_alike(
    session: CudaSession, plain: Sizes, opened: dict[tuple[Shape, bool], Sizes]
) -> None:
    session.warm_up(NAMES, {"x": pictures(1)})
    assert len(plain.threads) == LANES
    prepare(session, 1, 16)
    assert all(each.threads == plain.threads for each in opened.values())
    with ThreadPoolExecutor(8) as callers:
        list(callers.map(lambda n: session.run(NAMES, {"x": pictures(n)}), [1, 2, 17, 1, 2, 17]))
    assert all(each.threads == plain.threads for each in opened.values())
    assert len(plain.threads) == LANES


def test_a_failing_warm_up_is_told(session: CudaSession) -> None:
    with pytest.raises(Exception, match="nothing"):
        session.warm_up(["nothing"], {"x": pictures(1)})


def test_many_large_runs_at_once_keep_their_pictures_apart(
    session: CudaSession, plain: Sizes
) -> None:
    prepare(session, 32)
    xs = [np.stack([noise(20, 20, seed=20 * i + j) for j in range(17 + i)]) for i in range(8)]
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda x: session.run(NAMES, {"x": x}), xs))
    for x, (y, _) in zip(xs, answers, strict=True):
        wanted, _ = plain.session.run(list(NAMES), {"x": x})
        assert np.abs(y.astype(int) - wanted).max() <= 1
    assert session.rooms is not None and session.rooms.free.qsize() == LANES + 1


def test_a_large_run_of_larger_pictures_finds_its_own_room(session: CudaSession) -> None:
    prepare(session, 32, 256)
    y, _ = session.run(NAMES, {"x": pictures(256, side=24)})
    assert len(y) == 256


def test_a_room_comes_back_after_a_failing_run(session: CudaSession) -> None:
    prepare(session, 32)
    for _ in range(2 * LANES + 2):
        with pytest.raises(Exception, match="nothing"):
            session.run(["nothing"], {"x": pictures(20)})
    assert session.rooms is not None and session.rooms.free.qsize() == LANES + 1


def test_rooms_are_of_page_locked_memory_where_it_can_be_had(
    caplog: pytest.LogCaptureFixture,
) -> None:
    allocated: list[Any] = []

    def allocate(size: int) -> Any:
        if allocated:
            raise OSError("no more")
        allocated.append(np.full(size, 9, np.uint8))
        return allocated[0]

    rooms = Rooms(48, allocate)
    assert rooms.free.qsize() == LANES + 1
    assert caplog.text.count("copies pictures once more: no more") == LANES
    with rooms.filled(np.full((3, 2, 2, 3), 5, np.uint8), 4) as place:
        assert place.base is not None and np.shares_memory(place, allocated[0])
        assert (place[:3] == 5).all() and (place[3] == 0).all()


class Runtime:
    """In place of CUDA's runtime: memory of this process."""

    def __init__(self, code: int = 0) -> None:
        self.code = code
        self.held: list[Any] = []
        self.freed: list[int] = []

    def cudaHostAlloc(self, place: Any, size: Any, flags: int) -> int:  # noqa: N802
        self.held.append((ctypes.c_uint8 * size.value)())
        place._obj.value = ctypes.addressof(self.held[-1])
        return self.code

    def cudaFreeHost(self, place: Any) -> int:  # noqa: N802
        self.freed.append(place.value)
        return 0


def test_page_locked_memory_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime()
    monkeypatch.setattr("service.cuda.loaded", lambda name: runtime if "12" in name else None)
    memory = page_locked(64)
    memory[:] = 7
    assert bytes(runtime.held[0]) == b"\x07" * 64 and not runtime.freed
    del memory
    gc.collect()
    assert runtime.freed == [ctypes.addressof(runtime.held[0])]


@pytest.mark.parametrize(("runtime", "reason"), [(None, "none of lib"), (Runtime(2), "error 2")])
def test_no_page_locked_memory_has_a_reason(
    runtime: Runtime | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.cuda.loaded", lambda name: runtime)
    with pytest.raises(OSError, match=reason):
        page_locked(64)
