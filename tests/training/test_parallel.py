"""Two ranks on the CPU (gloo), as torchrun starts them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from training.parallel import average_gradients, own_seed, rank, ranks, share, together

RANK = """
import os, sys
import torch
from torch import nn
from training import parallel

with parallel.together("cpu") as device:
    weight = nn.Parameter(torch.zeros(3))
    unused = nn.Parameter(torch.zeros(2))
    (weight * (parallel.rank() + 1) * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    parallel.average_gradients([weight, unused])
    told = [parallel.rank(), parallel.ranks(), parallel.share(8), weight.grad.tolist()]
    first = parallel.first_alone(lambda: os.path.exists(sys.argv[1]) or open(sys.argv[1], "w"))
    told.append(first is True)
    try:
        parallel.share(7)
    except ValueError as error:
        told.append(str(error))
    os.write(1, f"{told}\\n".encode())  # the line at once: both ranks write into one pipe
"""


def torchrun(*arguments: str) -> str:
    """Output of two ranks."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*command, "--nproc-per-node", "2", *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_one_process_is_alone() -> None:
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([1.0, 2.0])
    average_gradients([weight])
    assert weight.grad.tolist() == [1, 2]
    with together("cpu") as device:
        assert (device, rank(), ranks(), share(7), own_seed(3)) == ("cpu", 0, 1, 7, 3)


def test_gradients_are_averaged_and_rank_0_goes_first(tmp_path: Path) -> None:
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    lines = sorted(torchrun(str(script), str(tmp_path / "first")).splitlines())
    refused = "'a batch of 7 cannot be shared out among 2 ranks'"
    slopes = "[1.5, 3.0, 4.5]"
    assert lines == [
        f"[0, 2, 4, {slopes}, False, {refused}]",
        f"[1, 2, 4, {slopes}, True, {refused}]",
    ]


@pytest.mark.slow
def test_two_ranks_train_a_run_and_go_on_with_it(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "two"
    base = ["-m", "service", "train", "digits_smoke", "--batch=8", f"--data={data}"]
    fewer = [*base, f"--out={out}", "--steps=2"]
    metrics = json.loads(torchrun(*fewer))  # printed by rank 0 alone
    assert metrics["steps"] == 2 and 0 <= metrics["metrics"]["transfer_accuracy"]["value"] <= 1
    assert json.loads(torchrun(*fewer)) == metrics
    names = {path.name for path in out.iterdir()}
    assert {"dtn.pt", "f.pt", "judge.pt", "metrics.json"} <= names
    assert not [name for name in names if name.endswith(".part") or name.startswith("config.json.")]
