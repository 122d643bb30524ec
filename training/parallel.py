"""Several devices by torchrun: each rank learns from batches of its own, gradients are averaged.

    torchrun --nproc-per-node 4 -m service train digits --data data

The networks are small, so they are whole on every rank and one all-reduce a step joins them; f and
the judge are taught by rank 0 alone. Statistics of batch normalisation are each rank's own, and
rank 0's are kept.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

T = TypeVar("T")
STRIDE = 1_000_003  # between the seeds of ranks


def rank() -> int:
    """This process's place among those that train together; 0 of one."""
    return dist.get_rank() if dist.is_initialized() else 0


def ranks() -> int:
    """How many train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def together(device: str) -> Iterator[str]:
    """Join the others, where torchrun started this process; gives the rank's own device."""
    if "WORLD_SIZE" not in os.environ:
        yield device
        return
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" else device
        wait()  # one that left while another still works has been seen to abort
    finally:
        dist.destroy_process_group()


def share(batch: int) -> int:
    """Pictures of a batch for each rank. Raises ValueError where they cannot be shared out."""
    if batch % ranks():
        raise ValueError(f"a batch of {batch} cannot be shared out among {ranks()} ranks")
    return batch // ranks()


def own_seed(seed: int) -> int:
    """A seed for this rank's draws; that of rank 0 is `seed` itself."""
    return seed + STRIDE * rank()


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Give every rank the mean of all ranks' gradients, in one message."""
    if ranks() == 1:
        return
    slopes = [weight.grad for weight in parameters if weight.grad is not None]
    flat = torch.cat([slope.flatten() for slope in slopes])
    dist.all_reduce(flat)
    flat /= ranks()
    for slope, part in zip(slopes, torch.split(flat, [s.numel() for s in slopes]), strict=True):
        slope.copy_(part.view_as(slope))


def first_alone(work: Callable[[], T]) -> T:
    """What rank 0 does before the others, who then find it done."""
    if rank() == 0:
        done = work()
        wait()
        return done
    wait()
    return work()


def wait() -> None:
    """Until every rank is here."""
    if ranks() > 1:
        dist.barrier()
