"""Table 2's peer, measured: domain-adversarial training (DANN, Ganin et al. 2016) of f's network.

It reads MNIST from labelled SVHN and unlabelled MNIST, as the DTN does, but draws nothing: a
second classifier tells the two domains apart by f(x), and f learns to leave it at a loss.
"""

import math
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from training.augment import augment
from training.captured import Graphs, adam, alone, set_rate, take_up
from training.classifier import accuracy, learning_rate
from training.config import Augment, of_digits
from training.data import load_digits
from training.networks import FEATURES, DigitNet, placed, to_unit
from training.run import Run, ema_share, ema_update, seeded
from training.train import held_out

SAVE_EVERY = 500  # steps


class Reversed(torch.autograd.Function):
    """The identity, whose gradient is turned round and weighed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float | Tensor) -> Tensor:
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * slope, None


def reverse(x: Tensor, weight: float | Tensor) -> Tensor:
    """x; what learns from it learns the opposite, `weight` times as fast."""
    return cast(Tensor, Reversed.apply(x, weight))  # type: ignore[no-untyped-call]


def reversal(step: int, steps: int) -> float:
    """The weight of the reversed gradient: 0 at the start, 1 at the end (their Sec. 5.2.2)."""
    return 2 / (1 + math.exp(-10 * step / steps)) - 1


def draw(
    images: Tensor, n: int, how: Augment | None, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """`n` of uint8 pictures, augmented, as float [n, 3, 32, 32] in [-1, 1]; and which they are."""
    index = torch.randint(len(images), (n,), generator=random, device=random.device)
    x = to_unit(images[index]).expand(-1, 3, -1, -1)
    return augment(x, how, random) if how else x, index


def train_dann(run: Run, data: Path) -> dict[str, Any]:
    """Train, from where `run` stopped, and write its metrics.json.

    f's recipe on svhn_train, pictures of t beside them, augmented alike; the last averaged
    weights are measured, for no label of t may choose others.
    """
    config = of_digits(run.config)
    digits, _ = held_out(load_digits(data, run.device), config.holdout)
    with seeded(config.seed):
        net, average = (placed(DigitNet(), run.device) for _ in range(2))
        critic = nn.Sequential(nn.Linear(FEATURES, 128), nn.ReLU(), nn.Linear(128, 2))
    average.load_state_dict(net.state_dict())
    critic = critic.to(run.device)
    nets = {"net": net, "average": average, "critic": critic}
    optimizer = adam(
        [*net.parameters(), *critic.parameters()], config.f.lr, (0.9, 0.99), config.f.weight_decay
    )
    random = torch.Generator(run.device).manual_seed(config.seed)
    start = 0
    if state := run.load("dann.pt"):
        for name, each in nets.items():
            each.load_state_dict(state[name])
        take_up(optimizer, state["optimizer"])
        random.set_state(state["random"].cpu())
        start = state["step"]

    domain = torch.tensor([0, 1], device=run.device).repeat_interleave(config.batch)
    weight = torch.zeros((), device=run.device)  # of the reversed gradient
    fresh = torch.ones((), device=run.device)  # share of net in its average's next state

    def update(_kind: None, s: Tensor, t: Tensor, labels: Tensor) -> dict[str, Tensor]:
        with run.autocast():
            features = net.features(torch.cat([s, t]).contiguous(memory_format=torch.channels_last))
            logits = net.head(features[: config.batch])
            told = critic(reverse(features, weight))
        read = F.cross_entropy(logits.float(), labels)
        apart = F.cross_entropy(told.float(), domain)
        optimizer.zero_grad()
        (read + apart).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        ema_update(average, net, fresh)
        return {"read": read, "apart": apart}

    learn = Graphs(update, []).step if run.device.type == "cuda" else update
    steps = range(start, config.steps)
    for step in tqdm(steps, "dann", config.steps, initial=start, disable=run.quiet):
        set_rate(optimizer, learning_rate(config.f, step, config.steps))
        weight.fill_(reversal(step, config.steps))
        fresh.fill_(ema_share(config.f.ema, step))
        s, index = draw(digits.svhn_train.images, config.batch, config.f.augment, random)
        t, _ = draw(digits.mnist_test.images, config.batch, config.f.augment, random)
        losses = learn(None, s, t, digits.svhn_train.labels[index])
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == config.steps:
            run.log("dann", step + 1, **{name: loss.item() for name, loss in losses.items()})
            own = {"optimizer": optimizer.state_dict(), "random": random.get_state()}
            learned = {name: each.state_dict() for name, each in nets.items()}
            run.save("dann.pt", {"step": step + 1, **own, **learned})
    test = digits.mnist_test
    with alone:
        right = round(accuracy(average.eval(), test), 5)
    read_right = {"value": right, "split": test.name, "n": len(test)}
    return run.write_metrics(digits.protocol, digits.sizes, {"adapted_accuracy": read_right})
