"""Bulk work by Ray Data, on one machine or a cluster: actors, one model each.

Where RAY_ADDRESS names a cluster, IN, OUT and the model must lie at the same paths on all its
nodes. The pictures go from there to there; only their keys pass the process that commits.
Needs the extra `bulk`.
"""

import logging
import os
import pickle
from collections.abc import Iterator
from itertools import count, islice
from typing import Any
from uuid import uuid4

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else it reports what it runs
os.environ.setdefault("RAY_worker_niceness", "0")  # who wants less says `nice dtn bulk`
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what counts is raised, too

import numpy as np
import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayError

from service.bulk.chunks import BulkError, Chunk, Done, Job
from service.bulk.draw import Drawer
from service.manifest import ModelError

# Chunks that make one dataset: enough that starting its actors does not count.
WAVE = 512
STORE_BYTES = 256 << 20  # of Ray's object store: no pictures go through it

Batch = dict[str, Any]


class Actor:
    """What Ray Data starts `workers` times: a Drawer."""

    def __init__(self, job: bytes) -> None:
        self.job: Job = pickle.loads(job)  # noqa: S301 - our own
        self.failure = ""
        try:
            self.drawer = Drawer(self.job)
        except ModelError as error:
            self.failure = str(error)  # told as a result: Ray would start the actor anew

    def __call__(self, batch: Batch) -> Batch:
        """Draw the chunks of a batch."""
        return {"done": as_column(self.draw(pickle.loads(each)) for each in batch["chunk"])}  # noqa: S301 - our own

    def draw(self, chunk: Chunk) -> Done | str:
        if self.failure:
            return self.failure
        try:
            # Ray may run a chunk again, also while a first attempt is still under way.
            return self.drawer(chunk, self.job.staging / f"{chunk.number}-{uuid4().hex}")
        except BulkError as error:
            return str(error)


def draw_by_ray(chunks: Iterator[Chunk], job: Job, workers: int) -> Iterator[Done]:
    """Draw chunks in `workers` actors of one core each; each as it is done. Raises BulkError."""
    try:
        begin(workers)
        for _ in count():
            wave = list(islice(chunks, WAVE))
            if not wave:
                return
            yield from draw_wave(wave, job, min(workers, len(wave)))
    except (RayError, ConnectionError, RuntimeError) as error:
        raise BulkError(f"ray: {str(error).strip().rpartition(chr(10))[2]}") from error
    finally:
        ray.shutdown()


def begin(workers: int) -> None:
    """Connect to the cluster of RAY_ADDRESS, or start a Ray of our own."""
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not os.environ.get("RAY_ADDRESS"):
        options |= {
            "address": "local",
            "num_cpus": workers,
            "include_dashboard": False,
            "object_store_memory": STORE_BYTES,
        }
    ray.init(**options)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False  # ours counts pictures
    context.print_on_execution_start = False


def draw_wave(wave: list[Chunk], job: Job, workers: int) -> Iterator[Done]:
    """Draw some chunks, each a row and a block of its own, so that any actor may take it."""
    rows = [{"chunk": pickle.dumps(chunk)} for chunk in wave]
    drawn = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        Actor,
        batch_size=1,
        compute=ActorPoolStrategy(size=workers),
        num_cpus=1,
        fn_constructor_args=[pickle.dumps(job)],
    )
    for row in drawn.iter_rows():
        done = pickle.loads(row["done"])  # noqa: S301 - our own
        if not isinstance(done, Done):
            raise BulkError(str(done))
        yield done


def as_column(values: Any) -> Any:
    """Objects, pickled, as a column of bytes."""
    column = [pickle.dumps(value) for value in values]
    return np.array([*column, None], dtype=object)[:-1]  # None: else equal lengths make a string
