"""A digits run (Sec. 5.1) from data to a measured model: f, then the judge, then g and D."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.adaptation import nearest
from training.augment import augment
from training.captured import alone
from training.classifier import Source, accuracy, f_sources, train_classifier
from training.config import VIEWS, DigitsConfig, DTNConfig, of_digits
from training.data import Digits, Split, load_digits
from training.dtn import DTN, Features
from training.loop import Domains, train_dtn, transfer
from training.networks import (
    DigitNet,
    discriminator,
    encoder,
    generator,
    initialise,
    placed,
    to_unit,
)
from training.parallel import first_alone
from training.run import Run, seeded
from training.second_gan import SecondGAN

OMITTED = 3  # the digit of Table 3
ADAPTED_STEPS = 1000  # there are fewer pictures of s than the judge learns from
JUDGE_SEED = 0  # whatever the run's: all are measured by one instrument


@dataclass(frozen=True)
class Roles:
    """Which split is what in a run. Labels of s and t are never learned from by g and D."""

    s: Split
    t: Split
    measured: Split  # pictures of S that nothing learned from
    judged: Split  # labelled pictures of T to teach the judge
    judge_test: Split


@dataclass(frozen=True)
class Trained:
    """The networks of a run, frozen and in eval mode, and the data they were trained on."""

    f: DigitNet
    judge: DigitNet
    g: nn.Sequential
    digits: Digits
    roles: Roles
    start: Features  # what g is applied to: f, or the picture itself

    @property
    def measured(self) -> Split:
        """The split of the figures of `measure`."""
        return self.roles.measured

    def transfer(self, images: Tensor) -> Tensor:
        """G(x) of uint8 pictures [N, C, 32, 32]: uint8 [N, c, 32, 32]."""
        return transfer(self.start, self.g, images)


def held_out(digits: Digits, holdout: int) -> tuple[Digits, Split]:
    """The data to learn from and the pictures of SVHN to measure on.

    With `holdout`, the last pictures of svhn_train are kept for choosing between
    configurations and svhn_test is left alone.
    """
    if not holdout:
        return digits, digits.svhn_test
    kept = digits.svhn_train.part(-holdout, None, "svhn_validation")
    rest = digits.svhn_train.part(0, -holdout, "svhn_train")
    return dataclasses.replace(digits, svhn_train=rest), kept


def roles(digits: Digits, measured: Split, config: DigitsConfig) -> Roles:
    """From SVHN to MNIST (Sec. 5.1), or back (appendix D); without 3s where they are omitted."""

    def shown(split: Split, where: str) -> Split:
        return split.without(OMITTED) if where in config.omit else split

    if config.reverse:
        s, t = digits.mnist_train, digits.svhn_train
        own = Roles(s, t, digits.mnist_test, digits.svhn_train, measured)
    else:
        s, t = digits.svhn_train, digits.mnist_test
        own = Roles(s, t, measured, digits.mnist_train, digits.mnist_test)
    return dataclasses.replace(own, s=shown(s, "s"), t=shown(t, "t"))


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


def digits_dtn(f: DigitNet, config: DTNConfig, device: torch.device, captured: bool = True) -> DTN:
    """g and D of Sec. 5.1 before their first step."""
    channels = 3 if isinstance(config, DigitsConfig) and config.reverse else 1
    with seeded(config.seed):
        g = generator(config.g_width, channels)
        if config.from_pixels:
            g = nn.Sequential(*encoder(config.g_width), *g)
        D = discriminator(config.d_width, config.spectral_norm, channels)
        second = None
        if config.d2 == "gan":
            net = placed(initialise(discriminator(config.d_width, channels=2 * channels)), device)
            second = SecondGAN(net, config.lr, (config.beta1, 0.999))
        return DTN(f, g, D, config, device, second=second, head=f.head, captured=captured)


def digits_domains(f: DigitNet, s: Tensor, t: Tensor, config: DTNConfig) -> Domains:
    """Of s and t, uint8 [N, C, 32, 32], without a label."""
    if config.from_pixels and (config.s_views or config.balance or config.tid_first):
        raise ValueError("views, balance and tid_first are of f(s), not of a G from pixels")
    fs = view_features(f, s, config.s_views, config.seed)
    weights = evening_weights(f, fs) if config.balance else None
    pixels = s.expand(-1, 3, -1, -1) if config.from_pixels else None
    return Domains(fs, features(f, t), t, pixels, weights)


def f_taught(digits: Digits, config: DigitsConfig) -> list[Source]:
    """What f learns from; no 3 among it where Table 3 omits it there."""
    sources = f_sources(digits, config.f, config.seed)
    if "f" not in config.omit:
        return sources
    return [Source(source.split.without(OMITTED), source.share) for source in sources]


def train(run: Run, data: Path) -> Trained:
    """Train what `run` has not finished yet; all of it is reproducible from its config."""
    config = of_digits(run.config)
    digits, measured = held_out(load_digits(data, run.device), config.holdout)
    own = roles(digits, measured, config)
    judged_by = [Source(own.judged, config.judge.real)]
    f, judge = first_alone(
        lambda: (
            train_classifier(run, "f", config.f, lambda: f_taught(digits, config), config.seed),
            train_classifier(run, "judge", config.judge, lambda: judged_by, JUDGE_SEED),
        )
    )
    dtn = digits_dtn(f, config, run.device)

    def gather() -> Domains:
        with alone:
            return digits_domains(f, own.s.images, own.t.images, config)

    g = train_dtn(run, dtn, gather, own.measured.images[:64])
    return Trained(f, judge, g, digits, own, dtn.start)


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
    """Every figure of a run with its split's name and size, each picture counted once.

    Tables 1, 2 and 3: one transfer of the measured split serves them all.
    """
    roles, measured = trained.roles, trained.measured
    moved = trained.transfer(measured.images)
    threes = measured.labels == OMITTED
    found = [
        ("transfer_accuracy", judged(trained, moved), measured),
        (
            "threes_accuracy",
            accuracy(trained.judge, Split("3s", moved[threes], measured.labels[threes])),
            measured.only(OMITTED),
        ),
        ("untransferred_accuracy", accuracy(trained.judge, measured), measured),
        ("f_accuracy", accuracy(trained.f, measured), measured),
        ("f_accuracy_on_t", accuracy(trained.f, roles.judge_test), roles.judge_test),
        ("judge_accuracy", accuracy(trained.judge, roles.judge_test), roles.judge_test),
    ]
    if roles.t is not trained.digits.svhn_train:  # Table 2 is of the way from SVHN to MNIST
        test = trained.digits.mnist_test
        taught = trained.digits.svhn_train
        moved_train = trained.transfer(taught.images)
        found += [
            ("nearest_train", nearest(moved_train, taught.labels, test), test),
            ("nearest_test", nearest(moved, measured.labels, test), test),
        ]
        by_gt = dataclasses.replace(test, images=trained.transfer(test.images))
        found += [
            ("nearest_train_by_gt", nearest(moved_train, taught.labels, by_gt), test),
            ("nearest_test_by_gt", nearest(moved, measured.labels, by_gt), test),
        ]
    return {
        name: {"value": round(value, 5), "split": split.name, "n": len(split)}
        for name, value, split in found
    }


def adapt(run: Run, trained: Trained) -> dict[str, dict[str, Any]]:
    """Table 2 by a classifier instead of a neighbour: a short judge's recipe, on G(s) alone."""
    s, test = trained.digits.svhn_train, trained.digits.mnist_test
    recipe = dataclasses.replace(of_digits(run.config).judge, steps=ADAPTED_STEPS)
    moved = Split("G(s)", trained.transfer(s.images), s.labels)
    source = [Source(moved, recipe.real)]
    net = train_classifier(run, "adapted", recipe, lambda: source, run.config.seed)
    value = round(accuracy(net, test), 5)
    return {"taught_train": {"value": value, "split": test.name, "n": len(test)}}


def write_metrics(run: Run, trained: Trained, adapted: bool = False) -> dict[str, Any]:
    """Measure a run and write its metrics.json; with `adapted`, teach a classifier on G(s), too."""
    with alone:
        metrics = measure(trained)
        if adapted or (run.folder / "adapted.pt").exists():
            metrics |= adapt(run, trained)
    return run.write_metrics(trained.digits.protocol, trained.digits.sizes, metrics)
