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
from training.classifier import accuracy, learning_rate
from training.config import of_digits
from training.data import load_digits
from training.networks import FEATURES, DigitNet, placed, to_unit
from training.run import Run, ema_share, ema_update, seeded
from training.train import held_out

SAVE_EVERY = 500  # steps


class Reversed(torch.autograd.Function):
    """The identity, whose gradient is turned round and weighed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * slope, None


def reverse(x: Tensor, weight: float) -> Tensor:
    """x; what learns from it learns the opposite, `weight` times as fast."""
    return cast(Tensor, Reversed.apply(x, weight))  # type: ignore[no-untyped-call]


def reversal(step: int, steps: int) -> float:
    """The weight of the reversed gradient: 0 at the start, 1 at the end (their Sec. 5.2.2)."""
    return 2 / (1 + math.exp(-10 * step / steps)) - 1


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
    learned = [*net.parameters(), *critic.parameters()]
    optimizer = torch.optim.AdamW(
        learned, config.f.lr, (0.9, 0.99), weight_decay=config.f.weight_decay
    )
    random = torch.Generator(run.device).manual_seed(config.seed)
    start = 0
    if state := run.load("dann.pt"):
        net.load_state_dict(state["net"])
        average.load_state_dict(state["average"])
        critic.load_state_dict(state["critic"])
        optimizer.load_state_dict(state["optimizer"])
        random.set_state(state["random"].cpu())
        start = state["step"]

    def pictures(images: Tensor) -> tuple[Tensor, Tensor]:
        index = torch.randint(len(images), (config.batch,), generator=random, device=random.device)
        x = to_unit(images[index]).expand(-1, 3, -1, -1)
        return augment(x, config.f.augment, random) if config.f.augment else x, index

    domain = torch.tensor([0, 1], device=run.device).repeat_interleave(config.batch)
    steps = range(start, config.steps)
    for step in tqdm(steps, "dann", config.steps, initial=start, disable=run.quiet):
        rate = learning_rate(config.f, step, config.steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        s, index = pictures(digits.svhn_train.images)
        t, _ = pictures(digits.mnist_test.images)
        with run.autocast():
            features = net.features(torch.cat([s, t]).contiguous(memory_format=torch.channels_last))
            logits = net.head(features[: config.batch])
            told = critic(reverse(features, reversal(step, config.steps)))
        read = F.cross_entropy(logits.float(), digits.svhn_train.labels[index])
        apart = F.cross_entropy(told.float(), domain)
        optimizer.zero_grad()
        (read + apart).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        ema_update(average, net, ema_share(config.f.ema, step))
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == config.steps:
            run.log("dann", step + 1, read=read.item(), apart=apart.item())
            state = {
                "step": step + 1,
                "net": net.state_dict(),
                "average": average.state_dict(),
                "critic": critic.state_dict(),
                "optimizer": optimizer.state_dict(),
                "random": random.get_state(),
            }
            run.save("dann.pt", state)
    average.eval()
    test = digits.mnist_test
    read_right = {"value": round(accuracy(average, test), 5), "split": test.name, "n": len(test)}
    return run.write_metrics(digits.protocol, digits.sizes, {"adapted_accuracy": read_right})
