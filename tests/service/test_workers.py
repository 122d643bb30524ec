import asyncio
import threading
from collections.abc import Coroutine, Iterator

import pytest

from service.problems import Problem
from service.workers import Workers


@pytest.fixture
def workers() -> Iterator[Workers]:
    """One worker, one place to wait."""
    workers = Workers(workers=1, max_queue=1)
    yield workers
    workers.close()


async def start(*works: Coroutine[None, None, object]) -> list[asyncio.Task[object]]:
    tasks = [asyncio.create_task(work) for work in works]
    await asyncio.sleep(0.01)
    return tasks


def test_a_job_runs_in_a_thread_of_its_own(workers: Workers) -> None:
    assert asyncio.run(workers.run(threading.get_ident)) != threading.get_ident()
    assert asyncio.run(workers.run(int, "ff", base=16)) == 255


def test_a_job_that_fails_gives_its_place_back(workers: Workers) -> None:
    for _ in range(3):
        with pytest.raises(ValueError, match="invalid literal"):
            asyncio.run(workers.run(int, "x"))
    assert workers.taken == 0


def test_one_more_than_there_are_places_is_refused(workers: Workers) -> None:
    async def scenario() -> None:
        go = threading.Event()
        tasks = await start(workers.run(go.wait), workers.run(go.wait))
        with pytest.raises(Problem) as raised:
            workers.check()
        assert raised.value.code == "queue_full"
        with pytest.raises(Problem):
            await workers.run(go.wait)
        go.set()
        assert await asyncio.gather(*tasks) == [True, True]
        workers.check()

    asyncio.run(scenario())


def test_a_cancelled_job_that_waits_never_runs(workers: Workers) -> None:
    async def scenario() -> None:
        go, ran = threading.Event(), threading.Event()
        first, second = await start(workers.run(go.wait), workers.run(ran.set))
        second.cancel()
        await asyncio.sleep(0.01)
        assert workers.taken == 1
        go.set()
        await first
        await workers.run(int)
        assert not ran.is_set()

    asyncio.run(scenario())


def test_a_cancelled_job_that_runs_keeps_its_place_until_it_ends(workers: Workers) -> None:
    async def scenario() -> None:
        go = threading.Event()
        (task,) = await start(workers.run(go.wait))
        task.cancel()
        await asyncio.sleep(0.01)
        assert task.cancelled()
        assert workers.taken == 1
        go.set()
        await workers.run(int)  # the only worker is free again
        assert workers.taken == 0

    asyncio.run(scenario())


def test_a_closed_pool_is_draining(workers: Workers) -> None:
    workers.close()
    with pytest.raises(Problem) as raised:
        asyncio.run(workers.run(int))
    assert raised.value.code == "draining"
    assert workers.taken == 0


def test_jobs_of_one_request_come_back_in_order(workers: Workers) -> None:
    jobs = [lambda i=i: i * i for i in range(9)]  # type: ignore[misc]
    assert asyncio.run(workers.run_all(jobs)) == [i * i for i in range(9)]
    assert workers.taken == 0


def test_jobs_of_one_request_take_no_more_places_than_there_are_threads(workers: Workers) -> None:
    async def scenario() -> None:
        go = threading.Event()
        (many,) = await start(workers.run_all([go.wait] * 9))
        assert workers.taken == 1
        (other,) = await start(workers.run(go.wait))
        with pytest.raises(Problem) as raised:
            await workers.run_all([go.wait])
        assert raised.value.code == "queue_full"
        go.set()
        assert await asyncio.gather(many, other) == [[True] * 9, True]

    asyncio.run(scenario())


def test_jobs_of_a_cancelled_request_are_not_begun(workers: Workers) -> None:
    async def scenario() -> None:
        go, runs = threading.Event(), []

        def job() -> None:
            runs.append(go.wait())

        (many,) = await start(workers.run_all([job] * 9))
        many.cancel()
        await asyncio.sleep(0.01)
        go.set()
        await workers.run(int)
        assert runs == [True]

    asyncio.run(scenario())


def test_work_that_has_begun_goes_on_in_a_full_queue(workers: Workers) -> None:
    async def scenario() -> None:
        go = threading.Event()
        tasks = await start(workers.run(go.wait), workers.run(go.wait), workers.run_on(go.wait))
        assert workers.taken == 3
        go.set()
        assert await asyncio.gather(*tasks) == [True] * 3
        assert workers.taken == 0

    asyncio.run(scenario())
