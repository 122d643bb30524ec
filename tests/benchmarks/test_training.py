"""`dtn bench training`: both loops really train, and the report is of what was measured."""

import dataclasses
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks.cli import bench
from benchmarks.training.plain import PlainLoop, endless
from benchmarks.training.speed import PLAIN, VARIANTS, Speed, faces_loops, numbers_of, report
from tests.training.conftest import config, data, digits
from training.config import DigitsConfig, FacesConfig, of_digits, preset
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
    rates = {PLAIN: [1.0, 2.0, 4.0], "ours: all": [2.0, 8.0, 8.0], "ours: less": [1.0, 1.0, 1.0]}
    speed = Speed(
        "digits",
        of_digits(preset("digits")),
        "CPU",
        rates,
        1e9,
        1e6,
        {"float32": 1e11, "bfloat16": 2e11},
    )
    assert speed.ratio == 2
    text = report([speed, dataclasses.replace(speed, name="emoji", rates={"ours: all": [2.0]})], "")
    assert text.count("**2.00 times**") == 1 and "## emoji, batches of 64" in text
    assert "| float32 | 100 GFLOP/s | 10.00 ms |  |" in text
    assert "| bfloat16 | 200 GFLOP/s | 5.00 ms | 4.0% |" in text
    assert "| ours: all | 8.00 | 2.00 to 8.00 | 512 |" in text


def test_the_command_writes_its_report(data: Path, tmp_path: Path) -> None:
    arguments = ["training", "--data", str(data), "--batch", "8", "--steps", "1", "--rounds", "1"]
    result = CliRunner().invoke(bench, [*arguments, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    text = (tmp_path / "RESULTS.md").read_text()
    assert "times** the plain loop" in text and "GFLOP/s" in text
    assert "| ours: float32, channels_last, eager | " in text
    assert "torch.compile" not in text and "CUDA graphs" not in text


def test_a_step_of_faces_is_timed_without_pictures() -> None:
    config = dataclasses.replace(preset("faces_smoke"), tid_first=0)
    assert isinstance(config, FacesConfig)
    how = VARIANTS["cpu"][0]
    loops = faces_loops(config, torch.device("cpu"), (how,))
    losses = loops.steps[how.told]()
    assert isinstance(losses, dict) and set(losses) == {"d", "gang", "const", "tid", "tv"}
    assert loops.bytes > 1e6


@pytest.mark.parametrize("missing", ["svhn_train"])
def test_data_that_are_not_there_are_one_line(tmp_path: Path, missing: str) -> None:
    result = CliRunner().invoke(bench, ["training", "--data", str(tmp_path)])
    assert result.exit_code == 2 and missing in result.output


def test_a_device_is_measured_in_the_numbers_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(numbers_of(torch.device("cuda"))) == ["float32", "bfloat16", "float16"]
    for there, names in ((True, ["float32", "bfloat16"]), (False, ["float32"])):
        monkeypatch.setattr("benchmarks.training.speed.has_bf16", lambda on, there=there: there)
        assert list(numbers_of(torch.device("cpu"))) == names
