"""A faces run is trained and resumed, and so are its relatives; what it learns from."""

import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from training import cli
from training.config import FacesConfig, preset
from training.face_domains import draw_avatars, face_domains, shrunk, source
from training.face_export import export_faces
from training.face_features import APPEARANCE, COLOURS
from training.faces import (
    TrainedFaces,
    evening_weights,
    faces_config,
    train_faces,
)
from training.glasses import teach_glasses
from training.resnet29 import FEATURES
from training.run import Run


def test_a_run_leaves_what_it_made(trained: TrainedFaces, run: Run) -> None:
    assert (run.folder / "grid-000004.png").exists()
    assert json.loads((run.folder / "log.jsonl").read_text().splitlines()[-1])["step"] == 4
    assert not trained.f.training
    assert not trained.g.training


def test_a_second_start_trains_nothing(
    trained: TrainedFaces, run: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.faces.face_domains", None)
    again = train_faces(run, data)
    for one, other in ((trained.f, again.f), (trained.g, again.g)):
        assert all(
            torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items()
        )


def test_without_the_faces_it_says_what_to_do(runs: Path, config: FacesConfig, data: Path) -> None:
    half = runs / "half"
    shutil.copytree(data / "networks", half / "networks")
    with pytest.raises(FileNotFoundError, match=r"lfw_152\.zip is missing"):
        train_faces(Run(half / "runs" / "x", "faces_smoke", config), half)


def test_an_unfinished_run_is_not_exported(config: FacesConfig, data: Path, runs: Path) -> None:
    started = Run(runs / "started", "faces_smoke", config)
    result = CliRunner().invoke(cli.export, [str(started.folder), "--data", str(data)])
    assert result.exit_code == 2
    assert "is not finished: run `dtn train faces_smoke` first" in result.output


def test_a_run_of_digits_is_refused(tmp_path: Path, data: Path) -> None:
    with pytest.raises(ValueError, match="no run of faces"):
        train_faces(Run(tmp_path / "d", "digits_smoke", preset("digits_smoke")), data)


def test_avatars_are_drawn_once(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    t, attributes = draw_avatars(runs / "cache", 24)
    assert t.shape == (24, 3, 64, 64)
    assert len(attributes) == 24
    monkeypatch.setattr("training.face_domains.avatars", None)
    assert torch.equal(draw_avatars(runs / "cache", 24)[0], t)


def test_rare_faces_are_drawn_more_often() -> None:
    random = torch.Generator().manual_seed(0)
    many = torch.randn(900, 4, generator=random)
    few = torch.randn(100, 4, generator=random) + 30
    weights = evening_weights(torch.cat([many, few]), 2, seed=1)
    share = (weights[900:].sum() / weights.sum()).item()
    assert share == pytest.approx(0.25, abs=0.02)  # sqrt(100) of sqrt(900) + sqrt(100)


def test_the_reverse_direction_has_the_f_of_the_main_task(
    trained: TrainedFaces, config: FacesConfig, runs: Path, data: Path
) -> None:
    back = dataclasses.replace(config, t="photographs")
    again = train_faces(Run(runs / "back", "faces_smoke", back), data).f
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in trained.f.state_dict().items())


def test_f_may_read_spectacles_which_is_part_of_the_graphs(
    config: FacesConfig, runs: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.face_domains.teach_glasses", partial(teach_glasses, steps=3))
    seeing = dataclasses.replace(config, glasses=True, caricature=1.5)
    run = Run(runs / "seeing", "faces_smoke", seeing)
    trained = train_faces(run, data)
    assert trained.f.glasses is not None
    assert trained.f.width == FEATURES + APPEARANCE + 1
    found = face_domains(trained.f, faces_config(run), data, runs / "cache")
    assert found.raw_s.shape[1] == FEATURES + COLOURS + 1
    assert found.raw_s[:, -1].abs().max() < 1 and found.raw_s[:, -1].std() > 0
    monkeypatch.setattr("training.face_domains.teach_glasses", None)  # it is kept
    other = Run(runs / "seeing too", "faces_smoke", dataclasses.replace(config, glasses=True))
    again = train_faces(other, data)
    values = trained.f.glasses.state_dict()
    assert all(torch.equal(v, values[k]) for k, v in again.f.glasses.state_dict().items())
    monkeypatch.setattr(
        "training.face_export.write_detector", lambda _, path: path.write_bytes(b"a detector")
    )
    export_faces(run, trained, runs / "seeing model", data)  # checks that graphs are as PyTorch
    card = (runs / "seeing model" / "CARD.md").read_text()
    assert "reading of spectacles" in card
    assert "tells who it is times 1.5" in card and "at unit\nlength" in card


def test_jittered_copies_stand_beside_s(
    trained: TrainedFaces, config: FacesConfig, runs: Path, data: Path
) -> None:
    plain = face_domains(trained.f, config, data, runs / "cache")
    viewed = dataclasses.replace(config, s_views=2)
    found = face_domains(trained.f, viewed, data, runs / "cache")
    n = len(plain.raw_s)
    assert torch.equal(found.raw_s[:n], plain.raw_s)
    copies = found.raw_s[n:].split(n)
    assert [len(copy) for copy in copies] == [n, n]
    apart = torch.pdist(plain.raw_s).mean()
    for copy in copies:  # of the same pictures, but not the same
        off = (copy - plain.raw_s).norm(dim=1)
        assert off.min() > 0 and off.mean() < apart / 2
    assert not torch.equal(*copies)
    assert torch.equal(face_domains(trained.f, viewed, data, runs / "cache").raw_s, found.raw_s)


def test_in_the_reverse_direction_g_draws_photographs_without_held_out_people(
    trained: TrainedFaces, config: FacesConfig, runs: Path, data: Path
) -> None:
    back = dataclasses.replace(config, t="photographs")
    found = face_domains(trained.f, back, data, runs / "cache")
    assert len(found.raw_s) == config.avatars
    assert len(found.raw_t) == len(found.t) == len(source(data)) == 32 - 8 + 12
    assert found.t.shape[1:] == (3, 64, 64)
    assert torch.equal(found.t, shrunk(source(data).images))
