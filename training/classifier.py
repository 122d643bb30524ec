"""f and the judge: the digit network of Sec. 5.1, trained with labels before any DTN."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from training.augment import augment
from training.captured import Graphs, adam, set_rate, take_up
from training.config import ClassifierConfig
from training.data import Digits, Split, to_split
from training.networks import DigitNet, frozen, placed, to_unit
from training.render import house_numbers
from training.run import Run, ema_share, ema_update, seeded

SAVE_EVERY = 500  # steps


@dataclass(frozen=True)
class Source:
    """Labelled pictures, and how many of them go into a batch."""

    split: Split
    share: int


def f_sources(digits: Digits, config: ClassifierConfig, seed: int) -> list[Source]:
    """What f learns from: real crops, photographed meters, rendered house numbers."""
    sources = [Source(digits.svhn_train, config.real)]
    if config.meter and digits.meter is not None:
        sources.append(Source(digits.meter, config.meter))
    if config.rendered:
        drawn = house_numbers(config.rendered_pictures, seed, config.pen)
        sources.append(
            Source(to_split("rendered", drawn, digits.svhn_train.images.device), config.rendered)
        )
    return sources


@torch.no_grad()
def accuracy(net: DigitNet, split: Split) -> float:
    """Share of `split` that `net` reads right, every picture once; `net` is in eval mode."""
    right = 0
    for start in range(0, len(split), 500):
        images, labels = split.images[start : start + 500], split.labels[start : start + 500]
        right += int((net(to_unit(images)).argmax(1) == labels).sum())
    return right / len(split)


def learning_rate(config: ClassifierConfig, step: int, steps: int) -> float:
    """Linear warm-up, then a cosine to zero after `steps`."""
    warm = min(1.0, (step + 1) / config.warmup)
    return config.lr * warm * (0.5 + 0.5 * math.cos(math.pi * step / steps))


def _batch(sources: list[Source], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    pictures, labels = [], []
    for source in sources:
        index = torch.randint(
            len(source.split), (source.share,), generator=generator, device=generator.device
        )
        pictures.append(source.split.images[index])
        labels.append(source.split.labels[index])
    return to_unit(torch.cat(pictures)), torch.cat(labels)


def train_classifier(
    run: Run,
    name: str,
    config: ClassifierConfig,
    gather: Callable[[], list[Source]],
    seed: int,
    net: DigitNet | None = None,
) -> DigitNet:
    """Train the network `name` (f or judge), or load it where `run` has it finished.

    `net` is the network before its first step where it is not the digits'.

    `gather` brings what it learns from, and is not called where nothing is left to learn.
    Returns it frozen. An interrupted training goes on from its last checkpoint, step for
    step as if it had not been interrupted.
    """
    with seeded(seed):
        net = placed(net or DigitNet(config.standardise), run.device)
    average = copy.deepcopy(net)
    optimizer = adam(net.parameters(), config.lr, (0.9, 0.99), config.weight_decay)
    fresh = torch.ones((), device=run.device)  # share of net in its average's next state
    generator = torch.Generator(run.device).manual_seed(seed)
    start = 0
    if state := run.load(f"{name}.pt"):
        average.load_state_dict(state["average"])
        start = state["step"]
        if start < config.steps:
            net.load_state_dict(state["net"])
            take_up(optimizer, state["optimizer"])
            generator.set_state(state["generator"].cpu())

    def update(_kind: None, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        with run.autocast():
            logits = net(x.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=config.label_smoothing)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        ema_update(average, net, fresh)
        return {"loss": loss}

    learn = Graphs(update, []).step if run.device.type == "cuda" else update
    sources = gather() if start < config.steps else []
    steps = range(start, config.steps)
    progress = tqdm(steps, name, config.steps, initial=start, disable=run.quiet)
    for step in progress:
        set_rate(optimizer, learning_rate(config, step, config.steps))
        fresh.fill_(ema_share(config.ema, step))
        x, labels = _batch(sources, generator)
        if config.augment is not None:
            x = augment(x, config.augment, generator)
        loss = learn(None, x, labels)["loss"]
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == config.steps:
            progress.set_postfix(loss=f"{loss.item():.3f}")
            rate = progress.format_dict["rate"]
            run.log(name, step + 1, loss=loss.item(), steps_per_second=rate)
            state = {"step": step + 1, "average": average.state_dict()}
            if step + 1 < config.steps:
                state |= {
                    "net": net.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "generator": generator.get_state(),
                }
            run.save(f"{name}.pt", state)
    return frozen(average)
