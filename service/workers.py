"""Threads that decode, run and encode, behind a queue of bounded length."""

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any, ParamSpec, TypeVar

from service.problems import Problem

P = ParamSpec("P")
T = TypeVar("T")


class Workers:
    """`workers` threads and `max_queue` places to wait for one."""

    def __init__(self, workers: int, max_queue: int) -> None:
        self.workers = workers
        self.places = workers + max_queue
        self.taken = 0
        self.lock = Lock()
        self.pool = ThreadPoolExecutor(workers, thread_name_prefix="worker")

    def check(self) -> None:
        """Raises Problem queue_full: worth knowing before a body is received."""
        if self.taken >= self.places:
            raise Problem("queue_full", f"all {self.places} places are taken")

    async def run(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The job's result. Raises Problem queue_full at once where no place is free.

        A cancelled job gives its place back at once if it still waits. One that runs cannot be
        stopped and keeps its place, lest given-up jobs pile up in the threads.
        """
        with self.lock:
            self.check()
            self.taken += 1
        return await self.submit(job, *args, **kwargs)

    async def run_on(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As run, for a request whose work has begun: to refuse it now would waste that."""
        with self.lock:
            self.taken += 1
        return await self.submit(job, *args, **kwargs)

    async def run_all(self, jobs: Iterable[Callable[[], T]]) -> list[T]:
        """The results of one request's jobs, in order. Raises Problem queue_full as run does.

        No more of them are handed in at once than there are threads, so that other requests
        get their turns.
        """
        self.check()
        lanes = asyncio.Semaphore(self.workers)

        async def one(job: Callable[[], T]) -> T:
            async with lanes:
                return await self.run_on(job)

        return await asyncio.gather(*map(one, jobs))

    async def submit(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of a job that has taken a place, and gives it back."""
        try:
            future = self.pool.submit(job, *args, **kwargs)
        except RuntimeError as error:  # the pool has been closed
            self.release()
            raise Problem("draining", "the service is shutting down") from error
        future.add_done_callback(self.release)
        return await asyncio.wrap_future(future)

    def release(self, _: Future[Any] | None = None) -> None:
        with self.lock:
            self.taken -= 1

    def close(self) -> None:
        """Drop what waits, let what runs come to its end."""
        self.pool.shutdown(wait=False, cancel_futures=True)
