"""Where the pictures of all requests meet: one queue for each model, runs as large as they pay.

No timer: a run begins as soon as the device is free, with what has come meanwhile; where that is
little, or the device is often idle, once the answers of the last run are out and what is being
read is there. So a lone picture never waits, and the more load there is, the larger are the runs.
Where several run side by side, none takes more than its share: who waits for a long run cannot
keep the others busy. And one more is ready where enough wait for it, so that no core waits for a
run: a thread that ends one goes on with the next.
"""

import asyncio
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from service.metrics import Metrics
from service.models import Model
from service.pictures import Pixels
from service.problems import Problem

log = logging.getLogger(__name__)

Drawn: TypeAlias = tuple[Pixels, float | None]  # G(x) [h, w, C] and Eq. 8's distance, if asked for
Kind: TypeAlias = tuple[tuple[int, ...], bool]  # shape of x, whether the distance is wanted

SMOOTHING = 0.2  # of the measured seconds per picture, the newest run's share
SPARE = 3  # a device that runs for less than one in so many seconds keeps nobody waiting
LONGEST_RETRY_S = 60


class Answer(Protocol):
    """What Batcher asks of a future."""

    def done(self) -> bool: ...
    def set_result(self, drawn: Drawn, /) -> None: ...
    def set_exception(self, error: Exception, /) -> None: ...
    def cancel(self) -> object: ...


@dataclass(slots=True)
class Waiting:
    """A picture in the queue."""

    x: Pixels
    answer: Answer  # done early where nobody waits any longer
    deadline: float
    since: float


class Batcher:
    """The queue of a model. Used on the event loop, but for `draw`.

    As many runs at once as Model.begins has it: `parallel`, one a core, on the CPU, where
    another as large as runs get is made ready behind them.
    """

    def __init__(self, model: Model, parallel: int, max_queue: int, metrics: Metrics) -> None:
        self.model = model
        self.parallel = parallel if model.device == "cpu" else 1  # runs that do not slow each other
        self.max_queue = max_queue
        self.metrics = metrics
        self.queues: dict[Kind, deque[Waiting]] = {}
        self.depth = 0  # pictures waiting
        self.taken = 0  # places: requests between admission and answer
        self.running = 0  # runs, the one that is ready with them
        self.drawing = 0  # pictures in them
        self.last = 1  # pictures in the newest run that is finished
        self.seconds = 0.0  # of one picture, smoothed over runs; 0 before the first
        self.pace = 0.0  # from one finished picture to the next, smoothed as well
        self.finished = 0.0  # when the last run was
        self.scheduled = False
        self.pool = ThreadPoolExecutor(
            model.lanes(parallel),
            f"run-{model.manifest.name}",
            initializer=computes if model.device == "cpu" else None,
        )

    @property
    def places(self) -> int:
        """Requests that may be under way at once: those in a run and max_queue more."""
        return self.max_queue + self.parallel * self.model.most

    def check(self) -> None:
        """Raises Problem queue_full where all places are taken; its Retry-After is the time in
        which half of them will be free, as fast as pictures are drawn now."""
        if self.taken >= self.places:
            wait = math.ceil(self.taken * self.seconds / 2)
            raise Problem(
                "queue_full",
                f"all {self.places} places for {self.model.reference} are taken",
                {"Retry-After": str(min(max(1, wait), LONGEST_RETRY_S))},
            )

    @contextmanager
    def place(self) -> Iterator[None]:
        """One of the places. Raises Problem queue_full."""
        self.check()
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    def submit(self, x: Pixels, distance: bool, deadline: float) -> asyncio.Future[Drawn]:
        """G(x) of one picture uint8 [H, W, 3]: a future that may be cancelled.

        It raises Problem: invalid_parameter where the model cannot draw x, deadline_exceeded
        where its turn comes after `deadline`, a time.monotonic().
        """
        answer: asyncio.Future[Drawn] = asyncio.get_running_loop().create_future()
        self.enqueue(x, distance, deadline, answer)
        return answer

    def enqueue(self, x: Pixels, distance: bool, deadline: float, answer: Answer) -> None:
        """As submit(), with a future of one's own."""
        waiting = Waiting(x, answer, deadline, time.monotonic())
        kind = x.shape, distance
        queue = self.queues.get(kind)
        if queue is None:
            queue = self.queues[kind] = deque()
        queue.append(waiting)
        self.depth += 1
        if not self.scheduled and self.may_start():
            # Not at once: what else this turn of the loop has received joins the run.
            self.scheduled = True
            asyncio.get_running_loop().call_soon(self.gather, self.depth)

    def drawer(self, deadline: float) -> Callable[[Pixels], Drawn]:
        """submit(), with the distance, for a thread, which waits for its result."""
        loop = asyncio.get_running_loop()

        async def submit(x: Pixels) -> Drawn:
            return await self.submit(x, True, deadline)

        return lambda x: asyncio.run_coroutine_threadsafe(submit(x), loop).result()

    def may_start(self) -> bool:
        """Whether there is room and work for one more run, or for one to be ready."""
        if self.model.device == "cpu" and self.running == self.parallel:
            return self.depth >= self.model.most
        return self.depth > 0 and self.model.begins(self.running, self.depth, self.parallel)

    def gather(self, before: int) -> None:
        """start(), once a turn of the loop brings no more, or twice as many wait as ran last."""
        if before < self.depth < min(2 * self.last, self.model.most):
            asyncio.get_running_loop().call_soon(self.gather, self.depth)
        else:
            self.start()

    def start(self) -> None:
        """Begin as many runs as there is room and work for."""
        self.scheduled = False
        loop = asyncio.get_running_loop()
        while self.may_start():
            kind = min(self.queues, key=lambda kind: self.queues[kind][0].since)
            batch = self.cut(kind)
            if batch:
                self.running += 1
                self.drawing += len(batch)
                self.pool.submit(self.draw, loop, batch, kind[1])

    def cut(self, kind: Kind) -> list[Waiting]:
        """The next run of pictures of one kind; those given up meanwhile are left out."""
        queue = self.queues[kind]
        share = math.ceil((self.depth + self.drawing) / self.parallel)
        most = min(share, self.model.most)
        now = time.monotonic()
        batch: list[Waiting] = []
        while queue and len(batch) < most:
            waiting = queue.popleft()
            self.depth -= 1
            if waiting.answer.done():
                self.metrics.abandoned.inc()
            elif now > waiting.deadline:
                waiting.answer.set_exception(late())
            else:
                batch.append(waiting)
        if not queue:
            del self.queues[kind]
        return batch

    def draw(
        self, loop: asyncio.AbstractEventLoop, batch: Sequence[Waiting], distance: bool
    ) -> None:
        """Run the model on a batch, in a thread, but for those given up since it was made ready;
        one by one where the whole of it fails."""
        began = time.monotonic()
        wanted = [waiting for waiting in batch if not waiting.answer.done()]
        results: list[Drawn | Exception] = []
        try:
            if wanted:
                results = list(self.run([waiting.x for waiting in wanted], distance))
        except Exception as error:
            if len(wanted) == 1:
                results = [self.model.blame(wanted[0].x, error)]
            else:
                log.warning("a run of %d pictures failed, each is tried alone", len(wanted))
                results = [self.draw_alone(waiting.x, distance) for waiting in wanted]
        ended = time.monotonic()
        try:
            loop.call_soon_threadsafe(self.finish, len(batch), wanted, results, began, ended)
        except RuntimeError:
            log.debug("the service ended before a run did")

    def run(self, xs: Sequence[Pixels], distance: bool) -> Iterator[Drawn]:
        """The results of pictures of one shape. Raises whatever onnxruntime raises."""
        y, distances = self.model.run(together(xs), distance)
        return zip(y, distances, strict=True)

    def draw_alone(self, x: Pixels, distance: bool) -> Drawn | Exception:
        """One picture's result, or the Problem it is at fault for."""
        try:
            return next(self.run([x], distance))
        except Exception as error:
            return self.model.blame(x, error)

    def finish(
        self,
        cut: int,
        batch: Sequence[Waiting],
        results: Sequence[Drawn | Exception],
        began: float,
        ended: float,
    ) -> None:
        """Hand out the results of a run of `batch`, of so many `cut`, and begin the next.

        That goes first where the device holds pictures up and as many wait as were in this run.
        Else the answers go first, and what their clients send next joins it: half as many runs,
        and at each the threads take the interpreter from each other.
        """
        self.running -= 1
        self.drawing -= cut
        if batch:
            self.count(batch, began, ended)
        self.metrics.abandoned.inc(cut - len(batch))
        if self.depth >= self.last and self.holds_up:
            self.start()
        for waiting, result in zip(batch, results, strict=True):
            if waiting.answer.done():
                continue
            if isinstance(result, Exception):
                waiting.answer.set_exception(result)
            else:
                waiting.answer.set_result(result)
        if self.depth and not self.scheduled:
            self.scheduled = True
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self.gather, self.depth)  # a turn to write, one to read

    def count(self, batch: Sequence[Waiting], began: float, ended: float) -> None:
        """Tell the metrics of a run, and learn from it."""
        self.last = len(batch)
        self.metrics.run.observe(ended - began)
        self.metrics.batch(self.model.reference, len(batch))
        for waiting in batch:
            self.metrics.queue.observe(began - waiting.since)
        self.learn(len(batch), ended - began)

    def learn(self, pictures: int, seconds: float) -> None:
        """Learn from a run that is finished now. Of a pause before it no more counts than tells
        that the device had time to spare."""
        mine = seconds / pictures / self.parallel
        now = time.monotonic()
        pace = min((now - self.finished) / pictures, (SPARE + 1) * mine)
        self.finished = now
        self.seconds += SMOOTHING * (mine - self.seconds) if self.seconds else mine
        self.pace += SMOOTHING * (pace - self.pace)

    @property
    def holds_up(self) -> bool:
        """Whether the device is what pictures wait for, and not whatever reads and answers."""
        return self.pace < SPARE * self.seconds

    def close(self) -> None:
        """What runs or is ready comes to its end, what waits is dropped."""
        for queue in self.queues.values():
            for waiting in queue:
                waiting.answer.cancel()
        self.queues.clear()
        self.depth = 0
        self.pool.shutdown(wait=False)


def together(xs: Sequence[Pixels]) -> Pixels:
    """Pictures [H, W, 3] as [N, H, W, 3], read-only. np.stack would lend the interpreter to other
    threads at each picture, and wait for it as often."""
    if len(xs) == 1:
        return xs[0][np.newaxis]
    joined = b"".join([np.ascontiguousarray(x).data for x in xs])
    return np.frombuffer(joined, np.uint8).reshape(len(xs), *xs[0].shape)


def computes() -> None:
    """Tell the system, if it is Linux, that this thread computes for long: where all cores are
    busy, threads that read and answer requests go first."""
    if hasattr(os, "SCHED_BATCH"):
        with suppress(OSError):  # a sandbox that does not let it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def late() -> Problem:
    """deadline_exceeded of a picture whose turn did not come in time."""
    return Problem("deadline_exceeded", "the picture's turn came too late")
