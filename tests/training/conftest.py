"""Small data made here, and one finished smoke run that most tests look at."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training import tfjs_model
from tests.training.small import SIZES, grey_digits
from tests.training.tfjs_model import integers, node
from training.config import Augment, ClassifierConfig, DigitsConfig, preset
from training.data import Digits, load_digits
from training.networks import DigitNet, frozen, to_unit
from training.recognisers import Crop, FaceNet, Recogniser
from training.render import house_numbers
from training.run import Run
from training.tfjs import GraphModel, read
from training.train import Trained, features, train, write_metrics

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


@pytest.fixture(scope="session")
def f(digits: Digits) -> DigitNet:
    torch.manual_seed(0)
    net = DigitNet().train()
    net(to_unit(digits.svhn_train.images[:32]))  # statistics that are not 0 and 1
    return frozen(net)


@pytest.fixture
def batch(f: DigitNet, digits: Digits) -> tuple[Tensor, Tensor, Tensor]:
    t = digits.mnist_test.images[:8]
    return features(f, digits.svhn_train.images[:8]), features(f, t), to_unit(t)


@pytest.fixture
def judge(tmp_path: Path) -> Recogniser:
    """Compares mean colours."""
    nodes = [
        node("x", "Placeholder"),
        node("mean", "Mean", "x", "axes", keep_dims={"b": True}),
        node("y", "Squeeze", "mean", squeeze_dims=integers(1, 2)),
    ]
    path = tfjs_model.write(tmp_path / "mean.json", nodes, {"axes": np.int32([1, 2])})
    return Recogniser("MobileFaceNet", FaceNet(Crop(8), GraphModel(read(path), "y")))
