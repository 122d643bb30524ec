"""A faces run on faces, artwork and weights made here, for one file of tests at a time."""

from pathlib import Path

import pytest

from tests.training.small import write_artwork, write_faces, write_resnet29
from training.config import FacesConfig, preset
from training.faces import (
    WEIGHTS,
    TrainedFaces,
    train_faces,
)
from training.run import Run


@pytest.fixture(scope="module")
def config() -> FacesConfig:
    smoke = preset("faces_smoke", steps=4, avatars=24, tid_first=1)
    assert isinstance(smoke, FacesConfig)
    return smoke


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_faces(folder / "faces", "lfw", [f"Person_{i // 4}" for i in range(32)])
    for seed, name in enumerate(("generated", "fake", "london"), 1):
        people = [f"{i // 2:03}" if name == "london" else "" for i in range(6)]
        write_faces(folder / "faces", name, people, seed)
    write_resnet29(folder / "networks" / WEIGHTS)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs whose cache holds the artwork, so that npm is not asked for it."""
    folder = tmp_path_factory.mktemp("runs")
    write_artwork(folder / "artwork")
    return folder


@pytest.fixture(autouse=True)
def no_npm(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.face_domains.obtain", lambda *_: [runs / "artwork" / "svgs.js"])


@pytest.fixture(scope="module")
def run(config: FacesConfig, runs: Path) -> Run:
    return Run(runs / "smoke", "faces_smoke", config)


@pytest.fixture
def trained(run: Run, data: Path) -> TrainedFaces:
    return train_faces(run, data)
