"""The same work by Ray Data, in a Ray of its own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.service.bulk_inputs import lines, outputs, picture, write_parquet, write_tar

pytestmark = pytest.mark.slow  # starting Ray takes many seconds

PROGRAM = "from service.cli import main; main()"


def start(models: Path, *arguments: object) -> subprocess.Popen[str]:
    """dtn bulk --engine ray, with a driver that can be killed."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "bulk", "--engine", "ray", *map(str, arguments)],
        env=os.environ | {"DTN_MODELS": str(models)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> dict[str, object]:
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return json.loads(output.splitlines()[-1])


def test_ray_draws_what_the_local_engine_draws(models_dir: Path, tmp_path: Path) -> None:
    rows = [picture(i) for i in range(40)]
    write_parquet(tmp_path / "in" / "a.parquet", [*rows, b"no picture"], group=16)
    options = "--chunk", 8, "--to", "tar", "--distance", "--json", "--workers", 2
    summary = finish(start(models_dir, tmp_path / "in", tmp_path / "ray", *options))
    assert (summary["engine"], summary["drawn"], summary["rejected"]) == ("ray", 40, 1)
    local = [sys.executable, "-c", PROGRAM, "bulk", tmp_path / "in", tmp_path / "local"]
    subprocess.run(
        [*map(str, [*local, *options])],
        env=os.environ | {"DTN_MODELS": str(models_dir)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    assert outputs(tmp_path / "ray") == outputs(tmp_path / "local")
    assert len(outputs(tmp_path / "ray")) == 80  # a picture and its distance
    assert lines(tmp_path / "ray", "rejects") == lines(tmp_path / "local", "rejects")


def test_killed_and_started_again_every_picture_is_there_once(
    models_dir: Path, tmp_path: Path
) -> None:
    write_tar(tmp_path / "in.tar", {f"{i}.png": picture(i) for i in range(600)})
    arguments = models_dir, tmp_path / "in.tar", tmp_path / "out", "--chunk", 4, "--workers", 1
    process = start(*arguments)
    manifest = tmp_path / "out" / "manifest.jsonl"
    for _ in range(30_000):
        if manifest.exists() and manifest.read_text().count("\n") >= 5:
            break
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.kill()
    process.communicate()
    summary = finish(start(*arguments, "--json"))
    assert 0 < summary["drawn"] <= 600 - 4 * 4
    assert summary["drawn_in_all"] == 600
    assert sorted(outputs(tmp_path / "out")) == sorted(f"in/{i}.png" for i in range(600))


def test_a_model_that_fails_in_the_actors_is_told(models_dir: Path, tmp_path: Path) -> None:
    write_tar(tmp_path / "in.tar", {"a.png": picture(1)})
    models = tmp_path / "models"
    models.mkdir()
    (models / "digits").mkdir()
    for file in (models_dir / "digits").iterdir():
        content = file.read_bytes()
        if file.name == "manifest.json":
            content = content.replace(b'["N", 32, 32, 1]', b'["N", 9, 9, 1]')
        (models / "digits" / file.name).write_bytes(content)
    process = start(models, tmp_path / "in.tar", tmp_path / "out", "--workers", 1)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 2
    assert "Error: digits@1: warm-up" in errors
