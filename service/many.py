"""Many pictures of one request: side by side, but never so many that other requests wait long."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TypeVar

from service.batching import Batcher
from service.pictures import Pixels
from service.transfer import decode_soon
from service.workers import Workers

T = TypeVar("T")
R = TypeVar("R")

MOST = 256  # pictures in one request


class Share:
    """What one request may have of a model and the threads at a time.

    Under way are as many pictures as all runs side by side can draw, and one run's more, so that
    another request waits for about one run. Being decoded are as many as there are threads.
    Decoded and not yet drawn are as many pixels as one picture may have: a small file can hold a
    huge picture.
    """

    def __init__(
        self, batcher: Batcher, workers: Workers, max_pixels: int, deadline: float
    ) -> None:
        self.batcher = batcher
        self.workers = workers
        self.max_pixels = max_pixels
        self.deadline = deadline
        self.turns = asyncio.Semaphore((batcher.parallel + 1) * batcher.model.most)
        self.decoders = asyncio.Semaphore(workers.workers)
        self.held = 0  # pixels
        self.freed = asyncio.Event()

    async def each(self, job: Callable[[T], Awaitable[R]], items: Iterable[T]) -> list[R]:
        """The job's results of each item, in order. What one of them raises ends the others."""

        async def in_turn(item: T) -> R:
            async with self.turns:
                return await job(item)

        tasks = [asyncio.create_task(in_turn(item)) for item in items]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    @asynccontextmanager
    async def decoded(self, content: bytes) -> AsyncIterator[Pixels]:
        """The pixels of an encoded picture, which count until the context ends.

        Raises Problem as decode_soon does.
        """
        async with self.decoders:
            await asyncio.sleep(0)  # small ones are decoded at once: others come in between
            x = await decode_soon(
                content, self.workers, self.batcher.metrics, self.max_pixels, self.deadline
            )
            pixels = x.shape[0] * x.shape[1]
            while self.held and self.held + pixels > self.max_pixels:
                self.freed.clear()
                await self.freed.wait()
            self.held += pixels
        try:
            yield x
        finally:
            self.held -= pixels
            self.freed.set()
