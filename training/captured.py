"""Steps of training as CUDA graphs: recorded once, then launched as one.

A step of networks as small as these is about a thousand kernels, and each is done sooner than
Python has launched the next. What a step does must not depend on numbers of the host then: what
changes from step to step is in tensors of the device, or is the step's kind.
"""

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

STREAMS = 32  # that PyTorch has
WARM = 3  # steps of a kind before it is recorded: kernels are chosen, moments allocated
# What one thread does at a time, as nothing else may be going on but replays: record a graph, and
# all that a recording would fail of: cuDNN searches for convolutions of new sizes and frees memory.
alone = threading.RLock()
OWN = ("lr", "foreach", "fused", "capturable")  # of an optimiser, whatever device saved its state


@dataclass(frozen=True)
class Recorded:
    """A step of one kind: what it reads, and what it leaves."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    losses: dict[str, Tensor]


class Graphs:
    """`update` of a kind and tensors of fixed shapes to losses, on a GPU.

    The first WARM steps of each kind run as they are; the next is recorded, and replayed from
    then on. Every step counts: none is only for warming up. `random` are the generators that
    `update` draws from.
    """

    def __init__(
        self, update: Callable[..., dict[str, Tensor]], random: Sequence[torch.Generator]
    ) -> None:
        self.update = update
        self.random = random
        self.stream = own_stream()
        self.taken: Counter[Hashable] = Counter()
        self.recorded: dict[Hashable, Recorded] = {}

    def step(self, kind: Hashable, *inputs: Tensor) -> dict[str, Tensor]:
        """One step; the losses are overwritten by the next of its kind."""
        main = torch.cuda.current_stream()
        self.stream.wait_stream(main)
        with torch.cuda.stream(self.stream):
            losses = self.beside(kind, inputs)
        main.wait_stream(self.stream)
        return losses

    def beside(self, kind: Hashable, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """One step, on `stream`."""
        if kind not in self.recorded:
            with alone:
                if self.taken[kind] < WARM:
                    self.taken[kind] += 1
                    return self.update(kind, *inputs)
                self.recorded[kind] = self.record(kind, inputs)
        recorded = self.recorded[kind]
        for held, new in zip(recorded.inputs, inputs, strict=True):
            held.copy_(new)
        recorded.graph.replay()
        return recorded.losses

    def record(self, kind: Hashable, inputs: tuple[Tensor, ...]) -> Recorded:
        """A step's kernels, of which none runs yet."""
        graph = torch.cuda.CUDAGraph()
        for generator in self.random:
            graph.register_generator_state(generator)
        held = tuple(x.clone() for x in inputs)
        # Other threads may allocate meanwhile.
        with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
            losses = self.update(kind, *held)
        return Recorded(graph, held, {name: loss.detach() for name, loss in losses.items()})


def own_stream() -> torch.cuda.Stream:
    """The thread's own stream, which it has from `take_stream`; else a new one, for a graph cannot
    be recorded on the default one."""
    current = torch.cuda.current_stream()
    if current != torch.cuda.default_stream():
        return current
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


def take_stream() -> None:
    """Give this thread a stream for all it does, before it does anything.

    PyTorch lends its 32 streams in turns. Where two threads have the same one, what one launches
    is recorded into the other's graph: so a thread takes one for good, not one for each graph.
    """
    torch.cuda.set_stream(torch.cuda.Stream())  # type: ignore[no-untyped-call]


def adam(
    parameters: Iterable[nn.Parameter],
    lr: float,
    betas: tuple[float, float],
    weight_decay: float | None = None,
) -> torch.optim.Adam:
    """Adam, or AdamW with `weight_decay`, whose step can be recorded where its parameters are on
    a GPU."""
    weights = list(parameters)
    device = weights[0].device
    rate: float | Tensor = lr
    recordable = {}
    if device.type == "cuda":
        rate = torch.tensor(lr, device=device)
        recordable = {"fused": True, "capturable": True}
    if weight_decay is None:
        return torch.optim.Adam(weights, rate, betas, **recordable)
    return torch.optim.AdamW(weights, rate, betas, weight_decay=weight_decay, **recordable)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give all of an `adam` this learning rate."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def take_up(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """An optimiser's state, from whichever device it was saved on."""
    groups = [
        saved | {name: own[name] for name in OWN}
        for saved, own in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict(state | {"param_groups": groups})
