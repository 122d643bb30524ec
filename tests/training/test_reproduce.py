"""`dtn reproduce`: what it trains, in which order, and what it leaves alone."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from training.config import PRESETS, DigitsConfig, preset
from training.evaluate import TABLES
from training.paper_commands import reproduce
from training.reproduce import SMALL, Job, missing, waves
from training.reproduce import reproduce as train_missing
from training.shelf import shelf_names


def test_every_line_of_a_table_has_a_preset() -> None:
    names = {line.preset for lines in TABLES.values() for line in lines if line.preset}
    assert names <= set(PRESETS)


def test_what_is_finished_is_not_trained_again(tmp_path: Path) -> None:
    every = missing("table3", 2, tmp_path, small=True)
    assert [job.seed for job in every] == [0] * 5 + [1] * 5
    done = every[0].folder
    done.mkdir()
    (done / "metrics.json").write_text(json.dumps({"metrics": {"threes_accuracy": {}}}))
    assert every[0] not in missing("table3", 2, tmp_path, small=True)
    assert len(missing("table3", 2, tmp_path, small=True)) == 9


def test_a_run_that_lacks_a_figure_of_the_table_is_taken_up_again(tmp_path: Path) -> None:
    folder = tmp_path / "digits-seed0"
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps({"metrics": {"nearest_train": {}}}))
    (job,) = (j for j in missing("table2", 1, tmp_path, small=True) if j.preset == "digits")
    assert "--adapt" in job.command(Path("data"), "cpu")


def test_small_runs_are_small_and_the_command_says_so(tmp_path: Path) -> None:
    job = missing("variants", 1, tmp_path, small=True)[1]
    config = preset(job.preset, seed=0, **SMALL)
    assert job.config() == config and (config.steps, config.batch) == (1200, 32)
    assert {"--steps=1200", "--batch=32", "--lr=0.0005"} <= set(job.command(Path("d"), "cpu"))
    assert missing("variants", 1, tmp_path, small=False)[1].config().steps == 6000


def test_a_classifier_is_taught_once_before_those_who_borrow_it(tmp_path: Path) -> None:
    jobs = missing("table1", 2, tmp_path, small=True)
    first, rest = waves(jobs, tmp_path / "shelf")
    assert sorted(first + rest, key=jobs.index) == jobs
    taught = [name for job in first for name in shelf_names(job.config()).values()]
    needed = {name for job in jobs for name in shelf_names(job.config()).values()}
    assert set(taught) == needed
    assert len(first) == 4  # f and plain f, with two seeds


def test_runs_that_failed_are_told_with_their_logs(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    failed = train_missing("reverse", 1, runs, tmp_path / "nothing", "cpu", True, 1)
    assert failed == [runs / "reverse-seed0" / "output.log"]
    assert "not found in" in failed[0].read_text()


def test_runs_in_threads_learn_what_each_learns_alone(
    config: DigitsConfig, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "digits_smoke", config)

    # Threads round differently beside each other, which may turn the sign of a gradient that is
    # next to nothing, and Adam then goes the other way: 2 x 2e-4 apart at each step.
    def jobs(folder: str) -> list[Job]:
        return [
            Job("digits_smoke", seed, tmp_path / folder / str(seed), {"steps": 2}, frozenset())
            for seed in range(3)
        ]

    alone, beside = jobs("alone"), jobs("beside")
    for job in alone:
        job.in_thread(data, "cpu")
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda job: job.in_thread(data, "cpu"), beside))
    for one, other in zip(alone, beside, strict=True):
        expected, found = (
            torch.load(job.folder / "dtn.pt", weights_only=True) for job in (one, other)
        )
        for name, value in expected["average"].items():
            assert torch.allclose(value, found["average"][name], atol=1e-3), name


def test_a_run_that_fails_in_a_thread_leaves_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Job, "in_thread", lambda *_: 1 / 0)
    monkeypatch.setattr("training.reproduce.take_stream", lambda: None)
    failed = train_missing("reverse", 2, tmp_path, tmp_path, "cuda", True, 2)
    assert failed == [tmp_path / f"reverse-seed{seed}" / "output.log" for seed in range(2)]
    assert "ZeroDivisionError" in failed[0].read_text()


@pytest.mark.slow
def test_a_table_of_finished_runs_is_printed(tmp_path: Path) -> None:
    arguments = ["reverse", "--seeds", "1", "--runs", str(tmp_path), "--data", str(tmp_path)]
    result = CliRunner().invoke(reproduce, arguments)
    assert result.exit_code == 2
    assert "MNIST to SVHN (appendix D)" in result.output
    assert "1 runs failed" in result.output and "reverse-seed0/output.log" in result.output
