"""Bulk work on this machine: worker processes, one model each.

Each decodes, runs and encodes a chunk alone. Small pictures spend as long in Python as in the
graph, so that threads would wait for each other; and while one process decodes another runs.
A worker ends by itself when the process that hands out the chunks is gone, killed or not.
"""

import signal
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from service.bulk.chunks import BulkError, Chunk, Done, Job
from service.bulk.draw import Drawer
from service.manifest import ModelError

# A chunk of which workers die, of too little memory or a decoder's crash, is tried so often.
ATTEMPTS = 2


class Worker:
    """A process that draws one chunk at a time."""

    def __init__(self, job: Job) -> None:
        context = get_context("spawn")  # threads of onnxruntime do not survive a fork
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=work, args=(job, theirs), daemon=True)
        self.process.start()
        theirs.close()  # else a worker that died would not be noticed
        self.chunk: Chunk | None = None
        self.attempts = 0

    def give(self, chunk: Chunk, attempts: int = 1) -> None:
        self.chunk, self.attempts = chunk, attempts
        with suppress(OSError):  # it has died: take() will tell
            self.connection.send((chunk, f"{chunk.number}-{attempts}"))

    def take(self) -> Done:
        """What it has done. Raises BulkError, and EOFError or OSError where it has died."""
        answer = self.connection.recv()
        if isinstance(answer, Done):
            return answer
        raise BulkError(str(answer))

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def draw_local(chunks: Iterator[Chunk], job: Job, workers: int) -> Iterator[Done]:
    """Draw chunks in `workers` processes; each as it is done. Raises BulkError."""
    crew: list[Worker] = []
    try:
        upcoming = next(chunks, None)
        while upcoming is not None and len(crew) < workers:
            crew.append(Worker(job))
            crew[-1].give(upcoming)
            upcoming = next(chunks, None)
        busy = {worker.connection: worker for worker in crew}
        while busy:
            for ready in wait(list(busy)):
                worker = busy.pop(ready)  # type: ignore[call-overload]
                try:
                    done = worker.take()
                except (EOFError, OSError):
                    worker = replace(worker, job, crew)
                    busy[worker.connection] = worker
                    continue
                if upcoming is not None:  # before what is done is committed
                    worker.give(upcoming)
                    busy[worker.connection] = worker
                yield done
                if upcoming is not None:
                    upcoming = next(chunks, None)
    finally:
        for worker in crew:
            worker.end()


def replace(dead: Worker, job: Job, crew: list[Worker]) -> Worker:
    """A worker that tries again what another one died of. Raises BulkError."""
    chunk = dead.chunk
    dead.process.join()
    code = dead.process.exitcode
    if chunk is None or dead.attempts == ATTEMPTS:
        first = chunk.items[0].key if chunk else "none"
        raise BulkError(
            f"workers died (exit code {code}) of the {len(chunk.items) if chunk else 0} pictures "
            f"from {first} on; what was done before is kept"
        )
    crew.remove(dead)
    dead.end()
    worker = Worker(job)
    crew.append(worker)
    worker.give(chunk, dead.attempts + 1)
    return worker


def work(job: Job, connection: "Connection[Done | str, tuple[Chunk, str]]") -> None:
    """A worker's life: until nobody gives it chunks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who hands out the chunks
    with suppress(EOFError, OSError):  # that one is gone
        try:
            drawer = Drawer(job)
            while True:
                chunk, name = connection.recv()
                connection.send(drawer(chunk, job.staging / name))
        except (BulkError, ModelError) as error:
            connection.send(str(error))
