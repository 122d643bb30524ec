"""One run from data to a measured model: f, then the judge, then g and D."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from training.classifier import Source, accuracy, f_sources, train_classifier
from training.data import Digits, Split, load_digits
from training.dtn import train_dtn, transfer
from training.networks import DigitNet
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


def train(run: Run, data: Path) -> Trained:
    """Train what `run` has not finished yet; all of it is reproducible from its config."""
    config = run.config
    digits, measured = measured_split(load_digits(data, run.device), config.holdout)
    seed = config.seed
    f = train_classifier(run, "f", config.f, lambda: f_sources(digits, config.f, seed), seed)
    judged_by = [Source(digits.mnist_train, config.judge.real)]
    judge = train_classifier(run, "judge", config.judge, lambda: judged_by, seed)
    g = train_dtn(run, f, digits, measured.images[:64])
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
