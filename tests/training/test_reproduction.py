"""REPRODUCTION.md is what the runs left, and nothing else."""

import json
from pathlib import Path

import pytest

from tests.training.test_evaluate import record, write
from training.reproduction import render, write_report

ROOT = Path(__file__).parents[2]


def test_the_report_is_the_figures_beside_it() -> None:
    results = json.loads((ROOT / "REPRODUCTION.json").read_text())
    assert (ROOT / "REPRODUCTION.md").read_text() == render(results)


def test_every_figure_comes_with_what_it_is_worth(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    write(runs, record("digits_paper", 0, 0.8765), record("digits_paper", 2, 0.8865))
    text, figures = write_report(runs, tmp_path / "none", tmp_path / "R.md")
    row = next(line for line in text.read_text().splitlines() if line.startswith("| DTN |"))
    assert row == (
        "| DTN | 90.66 % | 88.15 % ± 0.71 | 0, 2 | 500 x 64 | `svhn_test` (2,000), SVHN-10k "
        "| CPU, 2 cores | 2026-11-24 |"
    )
    assert len(json.loads(figures.read_text())["runs"]) == 2


def test_what_was_not_run_is_left_empty(tmp_path: Path) -> None:
    write(tmp_path, record("digits_paper", 0, 0.8765))
    text = write_report(tmp_path, tmp_path / "none", tmp_path / "R.md")[0].read_text()
    assert "| DTN w/o L_TID | 88.40 % | | | | | | |" in text
    assert "## Table 4" not in text


def test_without_a_run_there_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="dtn reproduce table1"):
        write_report(tmp_path, tmp_path / "none", tmp_path / "R.md")
