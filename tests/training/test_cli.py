import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from tests.training.test_data import write_idx, write_mat
from tests.training.test_evaluate import record, write
from training import cli, paper_commands
from training.config import DigitsConfig
from training.run import Run
from training.train import Trained, train, write_metrics


@pytest.mark.parametrize(
    "command",
    [cli.data, cli.train, cli.figures, cli.export, *paper_commands.COMMANDS],
    ids=lambda c: c.name,
)
def test_help(command: cli.click.Command) -> None:
    result = CliRunner().invoke(command, ["--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


@pytest.mark.parametrize(
    ("command", "arguments", "says"),
    [
        (cli.train, ["digits_smoke", "--data", "nowhere"], "not found in nowhere"),
        (cli.train, ["digits_smoke", "--device", "cuda"], "no CUDA device"),
        (cli.train, ["digits_smoke", "--finish", "9"], "no field finish in the preset"),
        (paper_commands.evaluate, ["--runs", "nowhere"], "no finished run in nowhere"),
        (
            paper_commands.evaluate,
            ["report", "--runs", "nowhere", "--run", "mine"],
            "nowhere/mine has no table4.json: run `dtn evaluate table4 --run mine` first",
        ),
        (cli.figures, ["nowhere"], "no run in nowhere"),
        (cli.export, ["nowhere"], "no run in nowhere"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    command: cli.click.Command,
    arguments: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.fail("this test wants a machine without CUDA")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 2
    assert says in result.output
    assert result.output.count("\n") == 1


def test_an_unknown_preset_is_refused() -> None:
    result = CliRunner().invoke(cli.train, ["digit"])
    assert result.exit_code == 2
    assert "digits_paper" in result.output


def test_evaluate_prints_the_runs_beside_the_paper(tmp_path: Path) -> None:
    write(
        tmp_path, record("digits_paper", 0, 0.9), record("digits_paper", 1, 0.8, protocol="paper")
    )
    arguments = ["table1", "--runs", str(tmp_path), "--protocol", "paper"]
    result = CliRunner().invoke(paper_commands.evaluate, arguments)
    assert result.exit_code == 0, result.output
    assert "80.00 %" in result.output and "90.00 %" not in result.output
    assert "dtn reproduce table1" in result.output


def test_the_papers_own_protocol_is_that_of_the_original_files(
    tmp_path: Path, config: DigitsConfig
) -> None:
    """extra_32x32.mat to learn from, test_32x32.mat to measure, MNIST's own files."""
    data = tmp_path / "data"
    data.mkdir()
    write_mat(data / "extra_32x32.mat", 40)
    write_mat(data / "test_32x32.mat", 24)
    write_idx(data, "train", 40)
    write_idx(data, "t10k", 20)
    own = Run(tmp_path / "runs" / "paper", "digits_paper", dataclasses.replace(config, steps=2))
    write_metrics(own, train(own, data))
    arguments = ["table1", "--runs", str(tmp_path / "runs"), "--protocol", "paper"]
    result = CliRunner().invoke(paper_commands.evaluate, arguments)
    assert result.exit_code == 0, result.output
    line = next(line for line in result.output.splitlines() if line.startswith("DTN  "))
    assert "svhn_test (24), paper protocol" in line and "90.66%" in line


@pytest.mark.parametrize("rendered", [[], ["--rendered"]])
def test_figures_puts_inputs_in_odd_columns(
    run: Run, trained: Trained, data: Path, tmp_path: Path, rendered: list[str]
) -> None:
    path = tmp_path / "figure.png"
    arguments = [str(run.folder), "--data", str(data), "--out", str(path), "--pairs", "16"]
    result = CliRunner().invoke(cli.figures, arguments + rendered)
    assert result.exit_code == 0, result.output
    image = Image.open(path)
    assert image.size == (16 * 64, 2 * 64)
    first = torch.from_numpy(np.array(image))[:64:2, :64:2].permute(2, 0, 1)
    if not rendered:
        assert torch.equal(first, trained.measured.images[0])


def test_a_run_of_digits_has_no_figures_of_faces(run: Run, trained: Trained, data: Path) -> None:
    result = CliRunner().invoke(cli.figures, [str(run.folder), "--figure", "8"])
    assert result.exit_code == 2
    assert "Figure 8 is of faces" in result.output


def test_train_then_export(run: Run, trained: Trained, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "digits"
    arguments = [str(run.folder), "--data", str(data), "--out", str(folder)]
    result = CliRunner().invoke(cli.export, arguments)
    assert result.exit_code == 0, result.output
    assert {path.name for path in folder.iterdir()} == {
        "model.onnx", "distance.onnx", "manifest.json", "CARD.md",
    }  # fmt: skip
