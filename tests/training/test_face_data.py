"""Faces out of zips, and a split that keeps people apart."""

from pathlib import Path

import pytest
import torch

from tests.training.small import write_faces
from training.face_data import is_held_out, read_faces, split_by_identity

PEOPLE = [f"Person_{i // 2}" for i in range(60)] + ["Alone", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    write_faces(folder, "lfw", PEOPLE)
    return folder


def test_pictures_come_with_their_people(folder: Path) -> None:
    faces = read_faces(folder, "lfw")
    assert faces.images.shape == (62, 3, 152, 152)
    assert faces.images.dtype == torch.uint8
    assert faces.identities == PEOPLE
    assert faces.files[3] == "lfw_3.webp"


def test_nobody_is_on_both_sides(folder: Path) -> None:
    faces = read_faces(folder, "lfw")
    s, out = split_by_identity(faces)
    assert len(s) + len(out) == len(faces)
    assert not set(s.identities) & set(out.identities)
    assert {"Alone", ""} <= set(s.identities)
    assert 0 < len(out) < len(faces) / 2
    assert torch.equal(out.images[0], faces.images[faces.files.index(out.files[0])])


def test_who_is_held_out_never_changes() -> None:
    assert [i for i in range(20) if is_held_out(f"Person_{i}", 2)] == [2, 7, 11, 13, 19]
    assert not any(is_held_out(f"Person_{i}", 1) for i in range(20))
    assert not is_held_out("", 9)


def test_missing_and_odd_files_are_one_clear_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"fake_152\.zip is missing"):
        read_faces(folder, "fake")
    write_faces(tmp_path, "fake", [""])
    (tmp_path / "fake_152.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"fake_152\.csv is missing"):
        read_faces(tmp_path, "fake")
