"""What emoji are measured by, on tensors made here; a whole run's measures: test_faces.py."""

import pytest
import torch

from training.face_evaluate import auc, detection, spread


def test_spread_is_the_mean_distance_of_pairs() -> None:
    assert spread(torch.zeros(4, 3)) == 0
    assert spread(torch.eye(2) * 3) in (0.0, pytest.approx(18**0.5))


def test_a_classifier_detects_what_is_not_of_t(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.face_evaluate.CLASSIFIER_STEPS", 25)
    white = torch.full((30, 64, 64, 3), 250, dtype=torch.uint8)
    found = detection(white, white, torch.zeros_like(white))
    assert found["detected_gs"] > 0.9
    assert found["detected_t"] == found["detected_gt"]
    assert found["gs_gt_auc"] == 1


def test_pictures_of_one_kind_cannot_be_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.face_evaluate.CLASSIFIER_STEPS", 5)
    same = torch.full((30, 64, 64, 3), 120, dtype=torch.uint8)
    assert detection(same, same, same)["gs_gt_auc"] == 0.5


def test_auc_by_hand() -> None:
    assert auc(torch.tensor([2.0, 1.0]), torch.tensor([1.0, 0.0, 3.0])) == pytest.approx(3.5 / 6)
