"""A digits run (Sec. 5.1) from data to a measured model: f, then the judge, then g and D."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.augment import augment
from training.classifier import Source, accuracy, f_sources, train_classifier
from training.config import VIEWS, DigitsConfig, DTNConfig
from training.data import Digits, Split, load_digits
from training.dtn import DTN, Domains, train_dtn, transfer
from training.networks import DigitNet, discriminator, generator, to_unit
from training.run import Run


@dataclass(frozen=True)
class Trained:
    """The networks of a run, frozen and in eval mode, and the data they were trained on."""

    f: DigitNet
    judge: DigitNet
    g: nn.Sequential
    digits: Digits
    measured: Split  # the figures of `measure` are of this split


def measured_split(digits: Digits, holdout: int) -> tuple[Digits, Split]:
    """The data to learn from and the split to measure on.

    With `holdout`, the last pictures of svhn_train are kept for choosing between
    configurations and svhn_test is left alone.
    """
    if not holdout:
        return digits, digits.svhn_test
    kept = digits.svhn_train.part(-holdout, None, "svhn_validation")
    rest = digits.svhn_train.part(0, -holdout, "svhn_train")
    return dataclasses.replace(digits, svhn_train=rest), kept


@torch.no_grad()
def features(f: DigitNet, images: Tensor) -> Tensor:
    """f(x) of uint8 pictures [N, C, 32, 32]: [N, 128]."""
    return torch.cat([f.features(to_unit(chunk)) for chunk in torch.split(images, 500)])


@torch.no_grad()
def view_features(f: DigitNet, images: Tensor, views: int, seed: int) -> Tensor:
    """f of s and of `views` augmented copies of s: [(1 + views) N, 128].

    f has learned the pictures of s by heart; what it says of a shifted, blurred or
    recoloured one is closer to what it will say of a picture it never saw.
    """
    random = torch.Generator(images.device).manual_seed(seed)
    parts = [features(f, images)]
    for _ in range(views):
        parts += [
            f.features(augment(to_unit(chunk), VIEWS, random)) for chunk in torch.split(images, 500)
        ]
    return torch.cat(parts)


@torch.no_grad()
def evening_weights(f: DigitNet, features: Tensor) -> Tensor:
    """Weights [N] of features [N, 128] that make each class, as f reads it, equally likely.

    S and T need not hold their classes in the same shares: one SVHN digit in five is a 1, one
    MNIST digit in nine. D would notice, and g would draw the surplus of 1s as something else.
    No label is used: the classes are what f says of s.
    """
    reading = f.head(features).argmax(1)
    counts = reading.bincount(minlength=10).clamp(min=1)
    return torch.reciprocal(counts[reading].float())


def digits_dtn(f: DigitNet, config: DTNConfig, device: torch.device) -> DTN:
    """g and D of Sec. 5.1 before their first step."""
    torch.manual_seed(config.seed)
    g = generator(config.g_width)
    return DTN(f, g, discriminator(config.d_width, config.spectral_norm), config, device)


def digits_domains(f: DigitNet, digits: Digits, config: DTNConfig) -> Domains:
    """s = svhn_train and t = mnist_test, without a label."""
    fs = view_features(f, digits.svhn_train.images, config.s_views, config.seed)
    t = digits.mnist_test.images
    weights = evening_weights(f, fs) if config.balance else None
    return Domains(fs, features(f, t), t, weights)


def train(run: Run, data: Path) -> Trained:
    """Train what `run` has not finished yet; all of it is reproducible from its config."""
    config = run.config
    if not isinstance(config, DigitsConfig):
        raise ValueError(f"{run.folder} is no run of digits")
    digits, measured = measured_split(load_digits(data, run.device), config.holdout)
    seed = config.seed
    f = train_classifier(run, "f", config.f, lambda: f_sources(digits, config.f, seed), seed)
    judged_by = [Source(digits.mnist_train, config.judge.real)]
    judge = train_classifier(run, "judge", config.judge, lambda: judged_by, seed)
    dtn = digits_dtn(f, config, run.device)
    g = train_dtn(run, dtn, lambda: digits_domains(f, digits, config), measured.images[:64])
    return Trained(f, judge, g, digits, measured)


def load(run: Run, data: Path) -> Trained:
    """The networks of a finished run. Raises ValueError where it is not finished."""
    if not (run.folder / "metrics.json").exists():
        raise ValueError(f"{run.folder} is not finished: run `dtn train {run.name}` first")
    return train(run, data)


def judged(trained: Trained, pictures: torch.Tensor) -> float:
    """Table 1: share of `pictures`, G(x) of the measured split, that the judge reads as x's label.

    uint8 [N, 1, 32, 32], in the split's order.
    """
    moved = pictures.to(trained.measured.images.device)
    return accuracy(trained.judge, dataclasses.replace(trained.measured, images=moved))


def measure(trained: Trained) -> dict[str, dict[str, Any]]:
    """Every figure of a run with its split's name and size, each picture counted once."""
    digits, measured = trained.digits, trained.measured
    moved = transfer(trained.f, trained.g, measured.images)
    return {
        name: {"value": round(value, 5), "split": split.name, "n": len(split)}
        for name, value, split in (
            ("transfer_accuracy", judged(trained, moved), measured),
            ("f_accuracy", accuracy(trained.f, measured), measured),
            ("f_accuracy_on_t", accuracy(trained.f, digits.mnist_test), digits.mnist_test),
            ("judge_accuracy", accuracy(trained.judge, digits.mnist_test), digits.mnist_test),
        )
    }


def write_metrics(run: Run, trained: Trained) -> dict[str, Any]:
    """metrics.json of `run`: figures, protocol, split sizes, seed, hardware."""
    metrics = {
        "preset": run.name,
        "seed": run.config.seed,
        "protocol": trained.digits.protocol,
        "splits": trained.digits.sizes,
        "device": torch.cuda.get_device_name() if run.device.type == "cuda" else "CPU",
        "metrics": measure(trained),
    }
    (run.folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    return metrics
