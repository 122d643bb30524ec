"""What the benchmark of bulk work counts, and that it counts it."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import cli
from benchmarks.bulk import SHARD, Killed, Timed, count_faults, kill_and_go_on, report, write_shards
from benchmarks.cli import bench


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five shards of pictures."""
    folder = tmp_path_factory.mktemp("bench") / "in"
    write_shards(folder, 5 * SHARD)
    return folder


@pytest.mark.slow
def test_a_run_is_killed_half_way_and_goes_on(shards: Path, tmp_path: Path) -> None:
    killed = kill_and_go_on(shards, tmp_path / "out", 1, 5 * SHARD)
    assert (killed.missing, killed.doubled) == (0, 0)
    assert killed.before >= 5 * SHARD / 2
    assert killed.before + killed.after == 5 * SHARD
    assert count_faults(tmp_path / "out", 5 * SHARD) == (0, 0)

    (one, two, *_) = sorted((tmp_path / "out").glob("*.tar"))
    shutil.copy(one, tmp_path / "out" / "again.tar")
    assert count_faults(tmp_path / "out", 5 * SHARD) == (0, SHARD)
    two.unlink()
    assert count_faults(tmp_path / "out", 5 * SHARD) == (SHARD, SHARD)
    (tmp_path / "out" / "again.tar").unlink()
    assert count_faults(tmp_path / "out", SHARD)[1] >= 3 * SHARD  # none of ours


def test_the_report_compares_with_one_worker_and_with_the_bare_loop() -> None:
    runs = [
        Timed("local", 1, 1000, 2.0),
        Timed("local", 2, 1000, 1.25),
        Timed("ray", 1, 1000, 4.0),
        Timed("ray", 2, 1000, 2.5),
    ]
    told = report(Killed(1000, 600, 400, 0, 0), {1: 1000.0, 2: 1600.0}, runs)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in told.split("\n")[-6:]]
    assert rows == [
        ["session.run alone", "1", "", "", "1000", "1.00", "1.00"],
        ["session.run alone", "2", "", "", "1600", "1.00", "1.60"],
        ["local", "1", "1000", "2.0", "500", "0.50", "1.00"],
        ["local", "2", "1000", "1.2", "800", "0.50", "1.60"],
        ["ray", "1", "1000", "4.0", "250", "0.25", "1.00"],
        ["ray", "2", "1000", "2.5", "400", "0.25", "1.60"],
    ]
    assert "every picture exactly once: yes" in told
    assert "exactly once: NO" in report(Killed(1000, 600, 400, 1, 0), {1: 1.0, 2: 1.0}, runs)
    assert "exactly once: NO" in report(Killed(1000, 600, 400, 0, 1), {1: 1.0, 2: 1.0}, runs)


def test_the_command_writes_the_report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []
    monkeypatch.setattr(cli, "run_bulk", lambda *given: asked.append(given[:3]) or "- the report")
    result = CliRunner().invoke(bench, ["bulk", "--out", str(tmp_path), "--pictures", "7"])
    assert result.exit_code == 0, result.output
    assert asked == [(7, 7, 1)]
    assert (tmp_path / "BULK.md").read_text().endswith("\n\n- the report\n")
