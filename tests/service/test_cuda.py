"""Runs on a GPU, with the CPU in its place: few sizes, and recorded ones."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import current_thread
from typing import Any

import numpy as np
import pytest

from service.cuda import LANES, CudaSession, Recorded, Shape
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
def session(plain: Sizes, models_dir: Path) -> Iterator[CudaSession]:
    content = (models_dir / "digits" / "distance.onnx").read_bytes()

    def sized(shape: Shape) -> Any:
        axes = dict(zip(FREE, shape, strict=False))
        return open_with(content, {}, 1, [CPU], axes)

    with ThreadPoolExecutor(LANES, "lane") as lanes:
        yield CudaSession(plain, lanes, sized, "cpu")


def pictures(n: int, side: int = 20) -> Any:
    return np.stack([noise(side, side, seed=seed) for seed in range(n)])


NAMES = ("y", "f_distance")


@pytest.mark.parametrize(("n", "size"), [(1, 1), (2, 2), (5, 8), (33, 48), (129, 192), (257, 257)])
def test_runs_have_few_sizes_and_answer_for_the_pictures_alone(
    session: CudaSession, plain: Sizes, n: int, size: int
) -> None:
    x = pictures(n)
    y, distances = session.run(NAMES, {"x": x})
    assert plain.seen == [size]
    wanted_y, wanted = plain.session.run(list(NAMES), {"x": x})
    assert np.abs(y.astype(int) - wanted_y).max() <= 1
    np.testing.assert_allclose(distances, wanted, rtol=1e-4)


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
    session: CudaSession, plain: Sizes
) -> None:
    session.warm_up(NAMES, {"x": pictures(1)})
    assert len(plain.threads) == LANES
    with ThreadPoolExecutor(8) as callers:
        list(callers.map(lambda n: session.run(NAMES, {"x": pictures(n)}), [1, 2, 4, 1, 2, 4]))
    assert len(plain.threads) == LANES


def test_a_failing_warm_up_is_told(session: CudaSession) -> None:
    with pytest.raises(Exception, match="nothing"):
        session.warm_up(["nothing"], {"x": pictures(1)})
