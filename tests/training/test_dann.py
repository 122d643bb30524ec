import dataclasses
import json
from pathlib import Path

import pytest
import torch

from training.config import DigitsConfig
from training.dann import reversal, reverse, train_dann
from training.run import Run


def test_the_gradient_is_turned_round_and_weighed() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = reverse(x, 0.25)
    assert torch.equal(y, x)
    y.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [-0.25, -0.25]


def test_its_weight_goes_from_0_to_1() -> None:
    assert reversal(0, 100) == 0
    assert reversal(50, 100) == pytest.approx(0.98661, abs=1e-5)
    assert reversal(100, 100) == pytest.approx(0.99991, abs=1e-5)


def test_an_interrupted_dann_ends_like_one_that_was_not(
    config: DigitsConfig, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.dann.SAVE_EVERY", 2)
    own = dataclasses.replace(config, steps=4, batch=8, bf16=False)
    whole = Run(tmp_path / "whole", "dann", own)
    metrics = train_dann(whole, data)
    assert metrics["metrics"]["adapted_accuracy"]["split"] == "mnist_test"
    assert json.loads((whole.folder / "metrics.json").read_text()) == metrics

    class CutError(Exception):
        pass

    class Stops(Run):
        def save(self, name: str, state: dict[str, object]) -> None:
            super().save(name, state)
            raise CutError

    with pytest.raises(CutError):
        train_dann(Stops(tmp_path / "cut", "dann", own), data)
    cut = Run(tmp_path / "cut", "dann", own)
    train_dann(cut, data)
    one, other = whole.load("dann.pt"), cut.load("dann.pt")
    assert one is not None and other is not None
    for name, value in one["average"].items():
        assert torch.equal(value, other["average"][name]), name
