"""`dtn bench served` without a GPU: the service is started, asked right, and driven."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.cli import bench
from benchmarks.gpu.served import Lap, asked, report, wait_right
from benchmarks.serving.process import NotServingError, running
from benchmarks.serving.wrk import Load

MODELS = Path(__file__).parents[2] / "models"


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_the_service_is_driven_beside_its_session() -> None:
    arguments = ["served", "--device", "cpu", "--model", str(MODELS / "digits")]
    arguments += ["--connections", "1,2", "--seconds", "1", "--pictures", "4"]
    result = CliRunner().invoke(bench, arguments)
    assert result.exit_code == 0, result.output
    rows = [line.split("|") for line in result.output.splitlines() if line.startswith("| ")][1:]
    assert [row[1].strip() for row in rows] == ["1", "2"]
    assert all(
        float(row[2].replace(",", "")) > 0 and int(row[6]) == int(row[7]) == 0 for row in rows
    )


def test_a_service_that_answers_otherwise_is_not_measured(tmp_path: Path) -> None:
    ours = asked("digits", "x", np.zeros((2, 32, 32, 3), np.uint8), "y")
    with (
        running(ours, "digits", tmp_path, DTN_MODELS=str(MODELS)) as server,
        pytest.raises(NotServingError, match="answers otherwise"),
    ):
        wait_right(server, np.full((2, 32, 32, 1), 77, np.uint8))


def test_the_table_says_how_much_of_the_session_is_left() -> None:
    load = Load(500, 0, 0, 0, 0, 1.0, 2.0, 3.21, 9.87)
    text = report(Path("models/emoji"), 8000.0, [Lap(8, 16, load, 5.0, 0.9)], 16)
    assert "emoji, 16 pictures a request" in text and "8,000 pictures/s" in text
    assert "| 8 | 4,000 | 50% | 3.2 | 9.9 | 0 | 0 | 2.5, 0.5 | 90% |" in text
