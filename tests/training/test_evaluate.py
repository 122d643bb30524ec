import json
from pathlib import Path
from typing import Any

import pytest

from training.evaluate import TABLES, Line, finished, measured, show


def record(
    preset: str, seed: int, value: float, metric: str = "transfer_accuracy", **changes: Any
) -> dict[str, Any]:
    own = {"value": value, "split": "svhn_test", "n": 2000}
    return {
        "preset": preset,
        "seed": seed,
        "steps": 500,
        "batch": 64,
        "protocol": "SVHN-10k",
        "device": "CPU, 2 cores",
        "date": "2026-11-24",
        "metrics": {metric: own},
    } | changes


def write(runs: Path, *records: dict[str, Any]) -> None:
    for i, one in enumerate(records):
        (runs / str(i)).mkdir(parents=True)
        (runs / str(i) / "metrics.json").write_text(json.dumps(one))


def test_mean_and_spread_over_seeds() -> None:
    records = [record("digits", seed, value) for seed, value in ((2, 0.92), (0, 0.9), (1, 0.94))]
    (figure,) = measured(Line("DTN+", "digits", "transfer_accuracy"), records, None)
    assert (figure.seeds, figure.values) == ((0, 1, 2), (0.9, 0.94, 0.92))
    assert str(figure) == "92.00 % ± 2.00"


def test_a_single_seed_has_no_spread() -> None:
    line = Line("DTN+", "digits", "transfer_accuracy")
    (figure,) = measured(line, [record("digits", 0, 0.9)], None)
    assert str(figure) == "90.00 %"


def test_scales_and_protocols_are_never_mixed() -> None:
    records = [
        record("digits", 0, 0.9),
        record("digits", 1, 0.8, steps=6000, batch=128),
        record("digits", 0, 0.95, protocol="paper"),
    ]
    line = Line("DTN+", "digits", "transfer_accuracy")
    assert [figure.mean for figure in measured(line, records, None)] == [0.95, 0.8, 0.9]
    assert [figure.mean for figure in measured(line, records, "paper")] == [0.95]


def test_a_table_shows_the_papers_figure_beside_ours(tmp_path: Path) -> None:
    write(tmp_path, record("digits_paper", 0, 0.9), record("table1_no_tid", 0, 0.85))
    text = show("table1", finished(tmp_path))
    line = next(line for line in text.splitlines() if line.startswith("DTN  "))
    assert "90.66%" in line and "90.00 %" in line and "svhn_test (2,000)" in line


@pytest.mark.parametrize("name", TABLES)
def test_what_is_missing_is_said_with_its_command(name: str) -> None:
    assert show(name, []).endswith(f"What is missing: dtn reproduce {name} --seeds 3")
    assert "extra" not in show(name, []) and "paper protocol" in show(name, [], "paper")


def test_nothing_is_missing_from_a_whole_table(tmp_path: Path) -> None:
    lines = TABLES["table3"]
    write(tmp_path, *(record(line.preset, 0, 0.5, line.metric) for line in lines))
    assert "missing" not in show("table3", finished(tmp_path))


def test_a_run_that_is_not_finished_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.json").write_text("{}")
    assert finished(tmp_path) == []
