import dataclasses
from pathlib import Path

import pytest
import torch

from training.classifier import Source, accuracy, f_sources, train_classifier
from training.config import ClassifierConfig, DigitsConfig
from training.data import Digits
from training.run import Run


def test_accuracy_counts_every_picture_once(digits: Digits) -> None:
    class Says(torch.nn.Module):
        """Reads every picture as the digit 3."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.eye(10)[3].expand(len(x), 10)

    share = (digits.mnist_train.labels == 3).float().mean().item()
    assert accuracy(Says(), digits.mnist_train) == pytest.approx(share)  # type: ignore[arg-type]


def test_it_learns(digits: Digits, config: DigitsConfig, tmp_path: Path) -> None:
    recipe = ClassifierConfig(steps=60, real=32, warmup=10, ema=0.9)
    run = Run(tmp_path, "digits_smoke", config)
    net = train_classifier(run, "judge", recipe, lambda: [Source(digits.mnist_train, 32)], 0)
    assert accuracy(net, digits.mnist_train) > 0.9
    assert not net.training


def test_an_interrupted_training_equals_an_uninterrupted_one(
    digits: Digits, config: DigitsConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.classifier.SAVE_EVERY", 2)
    whole = Run(tmp_path / "whole", "digits_smoke", config)
    broken = Run(tmp_path / "broken", "digits_smoke", config)
    sources = f_sources(digits, config.f, seed=0)
    expected = train_classifier(whole, "f", config.f, lambda: sources, 0)

    class PowerCutError(Exception):
        pass

    def save_once(name: str, state: dict[str, object]) -> None:
        Run.save(broken, name, state)
        raise PowerCutError

    monkeypatch.setattr(broken, "save", save_once)
    with pytest.raises(PowerCutError):
        train_classifier(broken, "f", config.f, lambda: sources, 0)
    monkeypatch.undo()
    resumed = train_classifier(broken, "f", config.f, lambda: sources, 0)
    for name, value in expected.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_a_finished_network_is_loaded_not_trained(
    digits: Digits, config: DigitsConfig, tmp_path: Path
) -> None:
    run = Run(tmp_path, "digits_smoke", config)
    sources = f_sources(digits, config.f, seed=0)
    first = train_classifier(run, "f", config.f, lambda: sources, 0)
    log = (tmp_path / "log.jsonl").read_text()
    second = train_classifier(run, "f", config.f, lambda: pytest.fail("not needed"), 0)
    assert (tmp_path / "log.jsonl").read_text() == log
    assert torch.equal(first.head[2].weight, second.head[2].weight)  # type: ignore[arg-type]


def test_sources_are_as_the_configuration_says(digits: Digits, config: DigitsConfig) -> None:
    with_meter = dataclasses.replace(config.f, meter=4)
    sources = f_sources(digits, with_meter, seed=0)
    assert [(source.split.name, source.share) for source in sources] == [
        ("svhn_train", 16), ("meter_digits", 4), ("rendered", 8),
    ]  # fmt: skip
    assert len(sources[2].split) == 20
