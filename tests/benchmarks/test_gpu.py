"""`dtn bench gpu` without a GPU: every way draws what the CPU's session draws, and is timed."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.cli import bench
from benchmarks.gpu.speed import Device, Found, Lap, furthest, measure, pictures_of, report
from benchmarks.gpu.ways import SERVED, WAYS, Graph, Network, as_served, read_graph
from service.pictures import Pixels
from tests.training.conftest import data

__all__ = ["data"]  # a fixture
MODELS = Path(__file__).parents[2] / "models"
SLOW = "torch.compile"  # a minute for its first run
HERE = [name for name in WAYS if SLOW not in name and "CUDA" not in name]


@pytest.fixture(scope="module")
def digits() -> Graph:
    return read_graph(MODELS / "digits")


@pytest.mark.parametrize("name", HERE)
def test_every_way_draws_the_same(name: str, digits: Graph) -> None:
    pictures = pictures_of(digits, None, 6)
    expected = as_served(digits, "cpu", 6)(pictures)
    run = WAYS[name](digits, "cpu", 3)
    for start in (0, 3):  # a second batch, so that no answer of the first can stay
        off = np.abs(run(pictures[start : start + 3]).astype(int) - expected[start : start + 3])
        assert off.max() <= (8 if "16 bits" in name else 1)


def test_faces_have_a_graph_too() -> None:
    emoji = read_graph(MODELS / "emoji")
    pictures = pictures_of(emoji, None, 2)
    assert pictures.shape == (2, 152, 152, 3)
    expected = as_served(emoji, "cpu", 2)(pictures)
    drawn = WAYS["PyTorch, TF32"](emoji, "cpu", 2)(pictures)
    assert np.abs(drawn.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("name", [name for name in WAYS if "CUDA" in name])
def test_cuda_graphs_are_refused_on_a_cpu(name: str, digits: Graph) -> None:
    with pytest.raises(ValueError, match="CUDA graphs are of a GPU"):
        WAYS[name](digits, "cpu", 1)


def test_the_furthest_picture_counts_whichever_batch_it_is_in() -> None:
    pictures = np.zeros((7, 2, 2, 3), np.uint8)
    expected = pictures.copy()
    expected[4, 1, 1, 2] = 9
    expected[6] = 255  # of the last batch, which is not whole

    def same(x: Pixels) -> Pixels:
        return x

    assert furthest(same, 3, pictures, expected) == 9


def test_real_pictures_are_those_of_the_test_split(digits: Graph, data: Path) -> None:
    pictures = pictures_of(digits, data, 5)
    assert pictures.shape == (5, 32, 32, 3)
    assert not np.array_equal(pictures, pictures_of(digits, None, 5))


def test_what_is_measured_of_a_model(digits: Graph) -> None:
    ways = {name: WAYS[name] for name in (SERVED, "PyTorch, CUDA graph, TF32")}
    found = measure(MODELS / "digits", "cpu", (1, 2), ways, 0.0, None, 4)
    assert found.reference.startswith("digits@") and found.pictures == 4
    assert {batch: lap.off for batch, lap in found.laps[SERVED].items()} == {1: 0, 2: 0}
    assert all(len(lap.seconds) >= 3 for lap in found.laps[SERVED].values())
    assert found.absent == {"PyTorch, CUDA graph, TF32": "1 pictures: CUDA graphs are of a GPU"}
    assert found.operators["Conv"] > 0 and found.best in (1, 2)
    assert found.copied == 32 * 32 * 3 + 32 * 32
    convolutions = [module for module in Network(digits).buffers() if module.ndim == 4]
    assert found.weights > sum(weight.nbytes for weight in convolutions) > 1e6
    assert 5e7 < found.flop < 5e8


def test_a_report_is_worked_out_of_what_was_measured() -> None:
    found = Found("digits@9", 2000, best=2, flop=1e9, weights=2_000_000, copied=4096)
    found.laps = {
        SERVED: {1: Lap((0.002, 0.001, 0.001), 0), 2: Lap((0.001,), 1)},
        "PyTorch": {1: Lap((0.004,), 0)},
    }
    found.absent = {"PyTorch, CUDA graph": "1 pictures: no"}
    found.operators = {"Conv": 0.003, "Relu": 0.001}
    text = report([found], Device("a card", {"float32": 1e13}, 1e11), "dtn bench gpu")
    assert f"| {SERVED} | 1,000 | 2,000 | 1.00 ms | 1 |" in text
    assert "| PyTorch | 250 |  | 4.00 ms | 0 |" in text
    assert "- PyTorch, CUDA graph does not work here, 1 pictures: no" in text
    # 1e9 of 1e13 FLOP/s are 100 us; 1 MB and 4 kB at 100 GB/s are 10.
    assert "| float32 | 10,000 GFLOP/s | 100.0 us | 20% |" in text
    assert "| Conv | 75% |" in text and "| Relu | 25% |" in text


def test_the_command_writes_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.gpu.ways.WAYS", {SERVED: as_served})
    arguments = ["gpu", "--device", "cpu", "--batches", "1,2", "--seconds", "0", "--pictures", "2"]
    models = ["--models", str(MODELS / "digits"), "--out", str(tmp_path)]
    result = CliRunner().invoke(bench, [*arguments, *models])
    assert result.exit_code == 0, result.output
    assert f"| {SERVED} | " in (tmp_path / "RESULTS.md").read_text()


def test_without_a_gpu_the_reason_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = CliRunner().invoke(bench, ["gpu", "--out", str(tmp_path)])
    assert result.exit_code == 2 and "finds no GPU; --device cpu" in result.output
    assert not list(tmp_path.iterdir())
