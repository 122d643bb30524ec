"""What emoji are measured by, on tensors made here; of a whole run: faces/test_finished.py."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch

from training.face_data import Faces
from training.face_evaluate import auc, best_of_several, detection, spread
from training.recognisers import Recogniser


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


def test_eq_8_is_measured_on_its_choice_beside_any_photo(
    judge: Recogniser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    red, green, blue = torch.eye(3).mul(200).add(20).byte()

    def plain(colour: torch.Tensor, side: int) -> torch.Tensor:
        return colour.view(3, 1, 1).expand(3, side, side)

    # A's emoji are green, green and blue; s' is all red but for one of blue.
    images = torch.stack([plain(c, 152) for c in (green, green, green, red, red, blue)])
    photos = [Faces("x", list("abcdef"), [*"AAABB", ""], images)]
    drawn = torch.stack([plain(c, 64) for c in (green, green, blue)]).permute(0, 2, 3, 1)

    def drawing(_: None, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert torch.equal(x, images[:3].permute(0, 2, 3, 1))
        return drawn, torch.tensor([2.0, 1.0, 3.0])

    def upscale(x: torch.Tensor) -> torch.Tensor:
        return x.repeat_interleave(8, 1).repeat_interleave(8, 2)

    monkeypatch.setattr("training.face_evaluate.emoji", drawing)
    nobody = cast(Any, None)  # `drawing` needs no networks
    found, gains = best_of_several(nobody, photos, ["A"], [judge, judge], tmp_path, upscale)
    assert found[:2] == found[2:]
    chosen, any_of_them = found[:2]
    # The picture looked for is never chosen: for the second one it is the first.
    assert (chosen.n, chosen.gallery, chosen.mean) == (1, 4, 1)
    assert (any_of_them.n, any_of_them.gallery) == (1, 4)
    # Blue, one in three, is nearest to blue, and B's red are as near as A's green: a rank of 3.
    assert 1 < any_of_them.mean < 3
    gain, error = gains[judge.name]
    assert 3 ** (-2 / 3) < gain < 1
    assert error == 1  # of one person nothing is known of others
