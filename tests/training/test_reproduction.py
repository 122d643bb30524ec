"""REPRODUCTION.md is what the runs left, and nothing else."""

import json
from pathlib import Path

import pytest

from tests.training.test_evaluate import record, write
from training.reproduction import END, START, render, summary, with_summary, write_report

ROOT = Path(__file__).parents[2]


def test_the_report_is_the_figures_beside_it() -> None:
    results = json.loads((ROOT / "REPRODUCTION.json").read_text())
    assert (ROOT / "REPRODUCTION.md").read_text() == render(results)


def test_the_readme_has_the_same_figures() -> None:
    results = json.loads((ROOT / "REPRODUCTION.json").read_text())
    assert START + summary(results) + END in (ROOT / "README.md").read_text()


def test_a_readme_is_changed_between_its_marks_alone() -> None:
    short = record("digits", 0, 0.8) | {"steps": 499}
    results = {"runs": [short, record("digits", 0, 0.9)], "table4": None}
    text = with_summary(f"# a\n{START}old\n{END}\nb\n", results)
    assert text.startswith(f"# a\n{START}| | the paper |") and text.endswith(f"{END}\nb\n")
    assert "| Table 1: DTN+: all of these |  | 90.00 % | 500 x 64 | 1 |" in text
    assert "80.00 %" not in text and "old" not in text
    assert with_summary("# no marks\n", results) == "# no marks\n"


def test_every_figure_comes_with_what_it_is_worth(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    write(runs, record("digits_paper", 0, 0.8765), record("digits_paper", 2, 0.8865))
    (runs / "upscaler").mkdir()  # no run of a DTN
    (runs / "upscaler" / "metrics.json").write_text('{"steps": 4000, "psnr_256": {}}')
    text, figures = write_report(runs, tmp_path / "none", tmp_path / "R.md")
    row = next(line for line in text.read_text().splitlines() if line.startswith("| DTN |"))
    assert row == (
        "| DTN | 90.66 % | 88.15 % ± 0.71 | 0, 2 | 500 x 64 | `svhn_test` (2,000), SVHN-10k "
        "| CPU, 2 cores | 2026-11-24 |"
    )
    assert len(json.loads(figures.read_text())["runs"]) == 2


def test_figures_of_runs_that_are_gone_stay(tmp_path: Path) -> None:
    here, elsewhere, out = tmp_path / "here", tmp_path / "elsewhere", tmp_path / "R.md"
    write(elsewhere, record("digits_paper", 0, 0.80), record("digits_paper", 1, 0.82))
    write_report(elsewhere, tmp_path / "none", out)
    write(here, record("digits_paper", 1, 0.90), record("digits", 0, 0.95))
    text, figures = write_report(here, tmp_path / "none", out)
    assert "| DTN | 90.66 % | 85.00 % ± 7.07 | 0, 1 |" in text.read_text()
    kept = [(run["preset"], run["seed"]) for run in json.loads(figures.read_text())["runs"]]
    assert kept == [("digits", 0), ("digits_paper", 0), ("digits_paper", 1)]


def test_what_was_not_run_is_left_empty(tmp_path: Path) -> None:
    write(tmp_path, record("digits_paper", 0, 0.8765))
    text = write_report(tmp_path, tmp_path / "none", tmp_path / "R.md")[0].read_text()
    assert "| DTN w/o L_TID | 88.40 % | | | | | | |" in text
    assert "## Table 4" not in text


def test_without_a_run_there_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="dtn reproduce table1"):
        write_report(tmp_path, tmp_path / "none", tmp_path / "R.md")
