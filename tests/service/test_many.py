import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.batching import Batcher
from service.many import Share
from service.metrics import Metrics
from service.models import Models
from service.problems import Problem
from service.workers import Workers
from tests.service.dummy import encoded, noise

Use = Callable[[Share], Coroutine[Any, Any, None]]


def use(models: Models, steps: Use, max_pixels: int = 10**6) -> None:
    """Run steps with a request's share of two threads and a model that draws two at once."""

    async def main() -> None:
        batcher = Batcher(models.find("digits"), 1, 0, Metrics())
        workers = Workers(2, 0)
        try:
            await asyncio.wait_for(steps(Share(batcher, workers, max_pixels, np.inf)), 20)
        finally:
            batcher.close()
            workers.close()

    asyncio.run(main())


@pytest.fixture(autouse=True)
def two_at_once(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.find("digits"), "most", 2)


def test_results_are_in_order_and_jobs_a_few_at_a_time(models: Models) -> None:
    async def steps(share: Share) -> None:
        under_way, most = 0, 0

        async def job(item: int) -> int:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.001 * (item % 3))
            under_way -= 1
            return item

        assert await share.each(job, range(50)) == list(range(50))
        assert most == 4  # a run of two pictures, and one more

    use(models, steps)


def test_what_one_job_raises_ends_the_others(models: Models) -> None:
    async def steps(share: Share) -> None:
        ended = []

        async def job(item: int) -> None:
            if item == 2:
                raise Problem("draining", "now")
            try:
                await asyncio.sleep(60)
            finally:
                ended.append(item)

        with pytest.raises(Problem, match="now"):
            await share.each(job, range(100))
        await asyncio.sleep(0.01)
        assert set(ended) <= {0, 1, 3, 4}  # the failed one's turn may have been taken

    use(models, steps)


def test_decoded_pictures_wait_until_there_is_room(models: Models) -> None:
    pictures = [noise(90, 100, seed=seed) for seed in range(8)]
    contents = [encoded(Image.fromarray(picture)) for picture in pictures]

    async def steps(share: Share) -> None:
        most = 0

        async def job(content: bytes) -> np.ndarray:
            nonlocal most
            async with share.decoded(content) as x:
                most = max(most, share.held)
                await asyncio.sleep(0.001)
                return x

        decoded = await share.each(job, contents)
        assert all(np.array_equal(*pair) for pair in zip(decoded, pictures, strict=True))
        assert most == 18_000  # a third one would be more than 20,000
        assert share.held == 0

    use(models, steps, max_pixels=20_000)


def test_a_broken_picture_takes_no_room(models: Models) -> None:
    async def steps(share: Share) -> None:
        with pytest.raises(Problem):
            async with share.decoded(b"text"):
                pytest.fail("there is nothing to be had")
        assert share.held == 0
        async with share.decoded(encoded(Image.new("L", (5, 4)))) as x:
            assert x.shape == (4, 5, 3)

    use(models, steps)
