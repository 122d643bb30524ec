"""Small data made here, and one finished smoke run that most tests look at."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.small import SIZES, grey_digits
from training.config import Augment, ClassifierConfig, DigitsConfig, preset
from training.data import Digits, load_digits
from training.render import house_numbers
from training.run import Run
from training.train import Trained, train, write_metrics

TINY_F = ClassifierConfig(
    steps=4, real=16, rendered=8, rendered_pictures=20, warmup=2, augment=Augment()
)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the npz files of the SVHN-10k protocol, tiny."""
    folder = tmp_path_factory.mktemp("data")
    for seed, (name, n) in enumerate(SIZES.items()):
        images, labels = house_numbers(n, seed + 10) if "svhn" in name else grey_digits(n)
        np.savez(folder / f"{name}.npz", images=images, labels=labels)
    meter = np.random.default_rng(0).integers(0, 256, (20, 32, 20, 3), dtype=np.uint8)
    np.savez(folder / "meter_digits.npz", images=meter, labels=np.arange(20) % 10)
    return folder


@pytest.fixture(scope="session")
def digits(data: Path) -> Digits:
    return load_digits(data)


@pytest.fixture(scope="session")
def config() -> DigitsConfig:
    """digits_smoke cut down to a few steps."""
    smoke = preset("digits_smoke", steps=6, batch=8)
    return dataclasses.replace(smoke, f=TINY_F, judge=dataclasses.replace(TINY_F, rendered=0))


@pytest.fixture(scope="session")
def run(config: DigitsConfig, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("runs") / "smoke", "digits_smoke", config)


@pytest.fixture(scope="session")
def trained(run: Run, data: Path) -> Trained:
    """A finished run: every part of the pipeline went through its steps."""
    torch.set_num_threads(2)
    result = train(run, data)
    write_metrics(run, result)
    return result
