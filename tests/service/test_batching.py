"""The queue in front of a model: what runs together, what is refused, what is dropped."""

import asyncio
import math
import os
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.batching import Batcher, Drawn, together
from service.metrics import Metrics
from service.models import Model
from service.pictures import Pixels
from service.problems import Problem
from tests.service.dummy import noise


class Recorded(Model):
    """A model that notes its runs, and waits for `go` in each."""

    def __init__(self, folder: Path, most: int = 4) -> None:
        super().__init__(folder)
        self.most = most
        self.runs: list[int] = []
        self.go = threading.Event()
        self.go.set()

    def run(self, x: Pixels, distance: bool) -> tuple[Pixels, list[float | None]]:
        self.runs.append(len(x))
        assert self.go.wait(20)
        if (x == 13).all(axis=(1, 2, 3)).any():
            raise RuntimeError("an unlucky picture")
        return super().run(x, distance)


Use = Callable[[Batcher], Coroutine[Any, Any, None]]


@pytest.fixture
def model(models_dir: Path) -> Recorded:
    return Recorded(models_dir / "digits")


def use(model: Model, steps: Use, parallel: int = 1, max_queue: int = 64) -> Metrics:
    """Run steps with a queue of the model on an event loop."""
    metrics = Metrics()

    async def main() -> None:
        batcher = Batcher(model, parallel, max_queue, metrics)
        try:
            await steps(batcher)
        finally:
            batcher.close()

    asyncio.run(main())
    return metrics


async def begun(model: Recorded, runs: int = 1) -> None:
    """Returns when so many runs have begun."""
    while len(model.runs) < runs:  # noqa: ASYNC110 - they begin in threads
        await asyncio.sleep(0.001)


def soon(batcher: Batcher, x: Pixels, distance: bool = False) -> "asyncio.Future[Drawn]":
    return batcher.submit(x, distance, math.inf)


async def behind_a_run(batcher: Batcher, model: Recorded, n: int) -> "list[asyncio.Future[Drawn]]":
    """The answers of a picture whose run waits for `go`, and of n that came after it."""
    model.go.clear()
    first = soon(batcher, noise(20, 20))
    await begun(model)
    rest = [soon(batcher, x) for x in pictures(n)]
    await asyncio.sleep(0)
    return [first, *rest]


def pictures(n: int, side: int = 20) -> list[Pixels]:
    return [noise(side, side, seed=seed) for seed in range(n)]


def test_every_picture_gets_its_own_answer(model: Recorded) -> None:
    xs = pictures(11)
    expected, distances = model(np.stack(xs), distance=True)

    async def steps(batcher: Batcher) -> None:
        results = await asyncio.gather(*(soon(batcher, x, distance=True) for x in xs))
        for (y, distance), wanted, how_far in zip(results, expected, distances, strict=True):
            assert np.array_equal(y, wanted)
            assert distance == pytest.approx(how_far)

    use(model, steps)


def test_a_lone_picture_runs_at_once_and_what_comes_meanwhile_runs_together(
    model: Recorded,
) -> None:
    async def steps(batcher: Batcher) -> None:
        model.go.clear()
        first = soon(batcher, noise(20, 20))
        await begun(model)
        rest = [soon(batcher, x) for x in pictures(6)]
        assert batcher.depth == 6
        model.go.set()
        await asyncio.gather(first, *rest)

    metrics = use(model, steps)
    assert model.runs == [1, 4, 2]
    text = metrics.all("")[0].decode()
    assert 'dtn_batch_size_sum{model="digits@1"} 7.0' in text
    assert 'dtn_stage_seconds_count{stage="queue"} 7.0' in text
    assert 'dtn_stage_seconds_count{stage="run"} 3.0' in text


def test_what_arrives_together_runs_together(model: Recorded) -> None:
    async def steps(batcher: Batcher) -> None:
        await asyncio.gather(*(soon(batcher, x) for x in pictures(4)))

    use(model, steps)
    assert model.runs == [4]


@pytest.mark.parametrize(
    ("waiting", "pace", "runs"), [(3, 1.0, [4, 7]), (4, 1.0, [4, 4, 4]), (4, 9.0, [4, 8])]
)
def test_what_the_answered_send_next_joins_a_run_for_which_few_wait_or_that_has_time(
    model: Recorded, waiting: int, pace: float, runs: list[int]
) -> None:
    model.most = 64
    again: list[asyncio.Future[Drawn]] = []

    async def steps(batcher: Batcher) -> None:
        batcher.seconds, batcher.pace = 1.0, pace
        model.go.clear()
        first = [soon(batcher, x) for x in pictures(4)]
        for answer in first:
            answer.add_done_callback(lambda _: again.append(soon(batcher, noise(20, 20))))
        await begun(model)
        rest = [soon(batcher, x) for x in pictures(waiting)]
        model.go.set()
        await asyncio.gather(*first, *rest)
        await asyncio.gather(*again)

    use(model, steps)
    assert model.runs == runs


@pytest.mark.parametrize(
    ("last", "most", "runs"), [(4, 64, [8, 2]), (64, 64, [10]), (64, 6, [6, 4]), (1, 64, [2, 8])]
)
def test_a_run_waits_for_what_is_being_read_up_to_twice_the_last_one(
    model: Recorded, last: int, most: int, runs: list[int]
) -> None:
    model.most = most
    sent: list[asyncio.Future[Drawn]] = []

    async def steps(batcher: Batcher) -> None:
        loop = asyncio.get_running_loop()

        def send(more: int) -> None:
            if more:
                loop.call_soon(send, more - 1)  # in the loop's next turn
            sent.append(soon(batcher, noise(20, 20)))

        batcher.last = last
        model.go.clear()
        send(9)
        await begun(model)
        await asyncio.sleep(0.01)
        model.go.set()
        await asyncio.gather(*sent)

    use(model, steps)
    assert model.runs == runs


def test_a_device_that_is_mostly_idle_holds_nobody_up(
    model: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    batcher = Batcher(model, 1, 64, Metrics())
    now = 0.0

    def after_runs(seconds: float, pause: float) -> bool:
        nonlocal now
        for _ in range(30):
            now += pause + seconds
            batcher.learn(4, seconds)
        return batcher.holds_up

    with monkeypatch.context() as patch:
        patch.setattr("service.batching.time.monotonic", lambda: now)
        assert after_runs(seconds=1, pause=0)
        assert not after_runs(seconds=1, pause=3)
        assert after_runs(seconds=1, pause=1)
        now += 1e6  # a night without users
        assert after_runs(seconds=1, pause=0)
        assert not after_runs(seconds=1, pause=1e3)
    batcher.close()


def test_runs_side_by_side_share_what_there_is(model: Recorded) -> None:
    model.most = 64

    async def steps(batcher: Batcher) -> None:
        await asyncio.gather(*(soon(batcher, x) for x in pictures(7)))
        assert sorted(model.runs) == [3, 4]
        model.runs.clear()
        model.go.clear()
        first = soon(batcher, noise(20, 20))
        await begun(model)
        rest = [soon(batcher, x) for x in pictures(5)]
        await begun(model, 2)
        assert (model.runs, batcher.depth) == ([1, 3], 2)  # half of six, the others wait
        model.go.set()
        await asyncio.gather(first, *rest)
        assert batcher.drawing == 0

    use(model, steps, parallel=2)


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="not Linux")
def test_threads_that_draw_let_those_that_answer_go_first(
    model: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    policies = []
    draw = model.run

    def run(x: Pixels, distance: bool) -> tuple[Pixels, list[float | None]]:
        policies.append(os.sched_getscheduler(0))
        return draw(x, distance)

    monkeypatch.setattr(model, "run", run)

    async def steps(batcher: Batcher) -> None:
        await soon(batcher, noise(20, 20))
        policies.append(os.sched_getscheduler(0))

    use(model, steps)
    assert policies == [os.SCHED_BATCH, os.SCHED_OTHER]


def test_pictures_of_one_size_and_wish_run_together_the_oldest_first(model: Recorded) -> None:
    async def steps(batcher: Batcher) -> None:
        small, large = noise(20, 20), noise(30, 30)
        order: list[str] = []
        wishes = [("a", small, False), ("b", large, False), ("a", small, False), ("c", small, True)]
        answers = []
        for name, x, distance in wishes:
            answer = soon(batcher, x, distance)
            answer.add_done_callback(lambda _, name=name: order.append(name))  # type: ignore[misc]
            answers.append(answer)
        await asyncio.gather(*answers)
        await asyncio.sleep(0)
        assert order == ["a", "a", "b", "c"]

    use(model, steps)
    assert model.runs == [2, 1, 1]


def test_only_the_guilty_picture_of_a_run_fails(
    model: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    async def steps(batcher: Batcher) -> None:
        xs = pictures(3)
        xs[1] = np.full_like(xs[1], 13)
        answers = await asyncio.gather(*(soon(batcher, x) for x in xs), return_exceptions=True)
        good, bad, also_good = answers
        assert isinstance(bad, Problem)
        assert bad.code == "invalid_parameter"
        assert isinstance(good, tuple)
        assert isinstance(also_good, tuple)

    use(model, steps)
    assert model.runs == [3, 1, 1, 1]
    assert "each is tried alone" in caplog.text


def test_a_lone_guilty_picture_is_not_tried_twice(model: Recorded) -> None:
    async def steps(batcher: Batcher) -> None:
        with pytest.raises(Problem, match="cannot process a picture of 20 x 20"):
            await soon(batcher, np.full((20, 20, 3), 13, np.uint8))

    use(model, steps)
    assert model.runs == [1]


def test_what_nobody_waits_for_is_not_run(model: Recorded) -> None:
    async def steps(batcher: Batcher) -> None:
        model.go.clear()
        first = soon(batcher, noise(20, 20))
        await begun(model)
        given_up, kept = soon(batcher, noise(20, 20)), soon(batcher, noise(20, 20))
        late = batcher.submit(noise(20, 20), False, time.monotonic() - 1)
        given_up.cancel()
        model.go.set()
        await asyncio.gather(first, kept)
        with pytest.raises(Problem, match="too late"):
            await late

    metrics = use(model, steps)
    assert model.runs == [1, 1]
    assert "dtn_abandoned_total 1.0" in metrics.all("")[0].decode()


def test_places_are_bounded_and_given_back(model: Recorded) -> None:
    async def steps(batcher: Batcher) -> None:
        assert batcher.places == 2 + 4
        for _ in range(2):  # the second time shows that all places were given back
            with ExitStack() as taken, pytest.raises(Problem) as raised:
                for _ in range(7):
                    taken.enter_context(batcher.place())
            assert batcher.taken == 0
            assert raised.value.code == "queue_full"
            assert raised.value.headers == {"Retry-After": "1"}

    use(model, steps, max_queue=2)


def test_retry_after_follows_the_measured_rate(model: Recorded) -> None:
    async def steps(batcher: Batcher) -> None:
        batcher.taken = 100
        for seconds, wanted in ((0.001, "1"), (0.1, "5"), (9.0, "60")):
            batcher.seconds = seconds
            with pytest.raises(Problem) as raised:
                batcher.check()
            assert raised.value.headers["Retry-After"] == wanted
        batcher.taken = 0
        batcher.seconds = 0.0
        await soon(batcher, noise(20, 20))
        assert 0 < batcher.seconds < 5

    use(model, steps)


def test_runs_side_by_side_on_the_cpu(model: Recorded) -> None:
    async def steps(batcher: Batcher) -> None:
        model.go.clear()
        answers = [soon(batcher, x) for x in pictures(10)]
        await begun(model, 2)
        await asyncio.sleep(0.05)
        assert model.runs == [4, 4]
        model.go.set()
        await asyncio.gather(*answers)

    use(model, steps, parallel=2)
    # The last two together or, where both runs have ended by then, side by side.
    assert sorted(model.runs) in ([2, 4, 4], [1, 1, 4, 4])


def test_a_run_that_is_ready_begins_without_the_loop(model: Recorded) -> None:
    async def steps(batcher: Batcher) -> None:
        answers = await behind_a_run(batcher, model, 5)
        assert (batcher.drawing, batcher.depth) == (5, 1)
        model.go.set()
        end = time.monotonic() + 20
        while len(model.runs) < 2 and time.monotonic() < end:
            time.sleep(0.001)  # noqa: ASYNC251 - the loop is busy
        assert model.runs == [1, 4]
        await asyncio.gather(*answers)

    metrics = use(model, steps)
    assert model.runs == [1, 4, 1]
    assert 'dtn_stage_seconds_count{stage="queue"} 6.0' in metrics.all("")[0].decode()


def test_of_a_run_that_is_ready_nothing_is_drawn_that_nobody_waits_for(model: Recorded) -> None:
    async def steps(batcher: Batcher) -> None:
        first, *rest = await behind_a_run(batcher, model, 9)
        for answer in rest[:6]:
            answer.cancel()
        model.go.set()
        await asyncio.gather(first, *rest[6:])
        assert (batcher.running, batcher.drawing, batcher.depth) == (0, 0, 0)

    metrics = use(model, steps)
    assert model.runs == [1, 3]
    assert "dtn_abandoned_total 6.0" in metrics.all("")[0].decode()


def test_closing_lets_a_run_that_is_ready_end(model: Recorded) -> None:
    async def steps(batcher: Batcher) -> None:
        answers = await behind_a_run(batcher, model, 4)
        batcher.close()
        model.go.set()
        await asyncio.gather(*answers)

    use(model, steps)
    assert model.runs == [1, 4]


def test_pictures_are_put_together_in_their_order() -> None:
    xs = [noise(20, 30, seed=1), noise(30, 20, seed=2).transpose(1, 0, 2), noise(20, 30, seed=3)]
    for n in (1, 3):
        assert np.array_equal(together(xs[:n]), np.stack(xs[:n]))


def test_on_a_gpu_a_second_run_begins_when_it_is_half_full(model: Recorded) -> None:
    model.device = "cuda"  # what the batcher goes by

    async def steps(batcher: Batcher) -> None:
        model.go.clear()
        answers = [soon(batcher, noise(20, 20))]
        await begun(model)
        answers += [soon(batcher, x) for x in pictures(1)]
        await asyncio.sleep(0.05)
        assert model.runs == [1]
        answers += [soon(batcher, x) for x in pictures(1)]
        await begun(model, 2)
        answers += [soon(batcher, x) for x in pictures(5)]
        await asyncio.sleep(0.05)
        assert model.runs == [1, 2]
        model.go.set()
        await asyncio.gather(*answers)

    use(model, steps, parallel=4)
    assert sorted(model.runs) == [1, 1, 2, 4]


def test_closing_drops_what_waits(model: Recorded) -> None:
    waiting: list[asyncio.Future[Drawn]] = []

    async def steps(batcher: Batcher) -> None:
        model.go.clear()
        waiting.append(soon(batcher, noise(20, 20)))
        await begun(model)
        waiting.append(soon(batcher, noise(20, 20)))
        batcher.close()
        assert waiting[1].cancelled()
        model.go.set()

    use(model, steps)
    assert model.runs == [1]
