"""A DTN's way through its pictures, from where a run stopped to its end; and what it draws then."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from training.captured import alone
from training.dtn import DTN, Features
from training.figures import save_grid
from training.networks import frozen, to_unit
from training.parallel import own_seed, rank, share, wait
from training.run import Run

LOG_EVERY = 100  # steps
SAVE_EVERY = 500


@dataclass(frozen=True)
class Domains:
    """What g and D learn from, on one device."""

    fs: Tensor  # f(s), [N, K]
    ft: Tensor  # f(t), [M, K]
    t: Tensor  # uint8 [M, C, H, W]
    s: Tensor | None = None  # uint8 [N, 3, H, W], where G starts from pixels
    s_weights: Tensor | None = None  # [N], how often each is drawn; None: once an epoch
    t_weights: Tensor | None = None  # [M], the same


def epochs(n: int, batch: int, random: torch.Generator) -> Iterator[Tensor]:
    """Indices [batch] for ever: every element once an epoch, the last partial batch left out."""
    while True:
        order = torch.randperm(n, generator=random, device=random.device)
        yield from torch.split(order, batch)[: max(1, n // batch)]


def draws(n: int, weights: Tensor | None, batch: int, random: torch.Generator) -> Iterator[Tensor]:
    """Indices [batch] for ever: with probabilities proportional to `weights` [n], or epochs."""
    if weights is None:
        yield from epochs(n, batch, random)
    else:
        while True:
            yield torch.multinomial(weights, batch, replacement=True, generator=random)


def train_dtn(run: Run, dtn: DTN, gather: Callable[[], Domains], preview: Tensor) -> nn.Sequential:
    """Train g and D, from where `run` stopped; returns the averaged g, frozen.

    `gather` brings what they learn from, and is not called where nothing is left to learn.
    `preview` are uint8 pictures of S whose transfer is drawn into grid-*.png as it goes.
    """
    start = dtn.restore(state) if (state := run.load("dtn.pt")) else 0
    if start < run.config.steps:
        _loop(run, dtn, gather(), preview, start)
    wait()
    return frozen(dtn.average)


def _loop(run: Run, dtn: DTN, domains: Domains, preview: Tensor, start: int) -> None:
    config = run.config
    # The order of pictures has a generator of its own and is replayed up to `start`.
    order = torch.Generator(run.device).manual_seed(own_seed(config.seed))
    s_order = draws(len(domains.fs), domains.s_weights, share(config.batch), order)
    t_order = draws(len(domains.ft), domains.t_weights, share(config.batch), order)
    for _ in range(start):
        next(s_order), next(t_order)
    steps = range(start, config.steps)
    progress = tqdm(steps, "dtn", config.steps, initial=start, disable=run.quiet or rank() > 0)
    for step in progress:
        s_index, t_index = next(s_order), next(t_order)
        t = to_unit(domains.t[t_index])
        s = None if domains.s is None else to_unit(domains.s[s_index])
        losses = dtn.step(domains.fs[s_index], domains.ft[t_index], t, step, s)
        if rank() > 0:
            continue
        if (step + 1) % LOG_EVERY == 0 or step + 1 == config.steps:
            values = {name: round(float(loss.detach()), 4) for name, loss in losses.items()}
            rate = progress.format_dict["rate"]
            run.log("dtn", step + 1, steps_per_second=rate, **values)
            progress.set_postfix(values)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == config.steps:
            run.save("dtn.pt", dtn.state(step + 1))
            path = run.folder / f"grid-{step + 1:06d}.png"
            with alone:
                drawn = transfer(dtn.start, dtn.average, preview)
            save_grid(path, preview, drawn)


@torch.no_grad()
def transfer(f: Features, g: nn.Module, images: Tensor) -> Tensor:
    """G(x) = g(f(x)) of uint8 pictures [N, C, H, W]: uint8 [N, c, h, w]."""
    parts = [g(f.features(to_unit(chunk))) for chunk in torch.split(images, 500)]
    return torch.cat(parts).add(1).mul(127.5).round().clamp(0, 255).byte()
