"""`dtn bench training`: both loops really train, and the report is of what was measured."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks.cli import bench
from benchmarks.training.plain import PlainLoop, endless
from benchmarks.training.speed import OURS, PLAIN, Speed, report
from tests.training.conftest import config, data, digits
from training.config import DigitsConfig, of_digits, preset
from training.data import Digits
from training.networks import DigitNet, discriminator, frozen, generator

__all__ = ["config", "data", "digits"]  # fixtures


def test_the_plain_loop_learns(config: DigitsConfig, digits: Digits) -> None:
    torch.manual_seed(0)
    f = frozen(DigitNet())
    loop = PlainLoop(f, generator(8), discriminator(8), config, torch.device("cpu"))
    s, t = endless(digits.svhn_train, 8, 0), endless(digits.mnist_test, 8, 0)
    losses = [loop.step(next(s), next(t)) for _ in range(12)]
    assert losses[-1] < losses[0]
    assert all(weight.grad is None for weight in f.parameters())


def test_ratios_are_taken_round_by_round() -> None:
    speed = Speed(
        of_digits(preset("digits_paper")), "CPU", {PLAIN: [1.0, 2.0, 4.0], OURS: [2.0, 8.0, 8.0]},
        1e9, 1e6, {"float32": 1e11},
    )  # fmt: skip
    assert speed.ratio == 2
    text = report(speed, "dtn bench training")
    assert "**2.00 times**" in text and "| float32 | 100 GFLOP/s | 10.0 ms | 8% |" in text


def test_the_command_writes_its_report(data: Path, tmp_path: Path) -> None:
    arguments = ["training", "--data", str(data), "--batch", "8", "--steps", "1", "--rounds", "1"]
    result = CliRunner().invoke(bench, [*arguments, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    text = (tmp_path / "RESULTS.md").read_text()
    assert "times** the plain loop" in text and "GFLOP/s" in text
    assert "| ours in float32 | " in text and "torch.compile" not in text


@pytest.mark.parametrize("missing", ["svhn_train"])
def test_data_that_are_not_there_are_one_line(tmp_path: Path, missing: str) -> None:
    result = CliRunner().invoke(bench, ["training", "--data", str(tmp_path)])
    assert result.exit_code == 2 and missing in result.output
