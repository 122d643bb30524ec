"""Likeness by group: numbers worked out by hand, and how the card shows them."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from tests.training.small import write_resnet29
from training import card, likeness
from training.face_features import face_features
from training.face_groups import (
    FEWEST,
    FIFTHS,
    Colour,
    as_f_reads,
    by_group,
    compared,
    fifths,
    gender_groups,
)
from training.resnet29 import load_resnet29


def lightness(*values: float) -> torch.Tensor:
    return torch.tensor(values).double()[:, None] * torch.tensor([1.0, 0, 0])


def test_colours_are_compared_by_hand() -> None:
    nan = float("nan")
    found = compared(lightness(10, 20, nan, 40), lightness(13, 19, 50, nan))
    assert found == Colour(n=2, apart=2.0, lighter=1.0, rho=None)
    assert compared(lightness(nan), lightness(3)) == Colour(0, None, None, None)


def test_a_correlation_wants_enough_pairs() -> None:
    photos = torch.arange(FEWEST).double()[:, None].repeat(1, 3)
    assert compared(photos, photos * 2).rho == 1
    assert compared(photos[1:], photos[1:] * 2).rho is None


def test_fifths_are_of_equal_size_from_dark_to_light() -> None:
    groups = fifths(torch.tensor([90.0, 10, 50, 30, 70, 91, 11, 51, 31, 71]))
    assert [name.split()[4] for name in groups] == list(FIFTHS)
    (darkest, *_, lightest) = groups.items()
    assert darkest[0] == "skin in the photo, darkest fifth (L* 10 to 11)"
    assert darkest[1].nonzero().flatten().tolist() == [1, 6]
    assert lightest[1].nonzero().flatten().tolist() == [0, 5]


def test_everyone_is_read_as_one_of_two() -> None:
    photos = torch.tensor([0, 255, 0]).byte().view(3, 1, 1, 1).expand(3, 4, 4, 3)
    groups = gender_groups(lambda x: (x.mean((1, 2, 3))[:, None] + 1) / 2, photos)  # type: ignore[arg-type]
    assert groups["read as women"].tolist() == [True, False, True]
    assert groups["read as men"].tolist() == [False, True, False]


@pytest.mark.parametrize("colours", [True, False])
def test_a_photograph_is_seen_in_the_light_that_f_corrects_to(
    tmp_path: Path, colours: bool
) -> None:
    f = face_features(load_resnet29(write_resnet29(tmp_path / "weights.dat")), colours)
    photos = torch.full((1, 152, 152, 3), 255, dtype=torch.uint8)
    photos[:, 15:140, 38:114] = torch.tensor((60, 50, 40), dtype=torch.uint8)
    photos[:, :30, 38:114] = torch.tensor((10, 8, 6), dtype=torch.uint8)
    skin, hair = as_f_reads(f, photos)
    seen = likeness.skin(photos)[0, 0].item()
    if colours:
        assert skin[0, 0] > seen + 10  # a fit would say how light; unfitted f expects white
        assert hair[0, 0] > likeness.hair(photos)[0, 0]
        photos[:, :30, 38:114] = torch.tensor((160, 40, 20), dtype=torch.uint8)
        assert as_f_reads(f, photos)[1][0, 1] > 20  # a*: it is red
        photos[:, :30, 38:114] = 255  # no hair to be told from the wall
        assert as_f_reads(f, photos)[1].isnan().all()
    else:
        assert skin[0, 0].item() == seen


def test_the_card_has_a_row_for_each_group() -> None:
    groups = {
        "everyone": torch.tensor([True, True, True]),
        "some": torch.tensor([False, True, True]),
        "nobody": torch.tensor([False, False, False]),
    }
    skin = lightness(10, 20, 30), lightness(11, 22, 33)
    hair = lightness(10, 20, 30), lightness(float("nan"), float("nan"), 20)
    found = by_group(groups, torch.tensor([0.1, 0.2, 0.4]), skin, hair)
    assert [(name, group.n, group.median_share) for name, group in found.items()] == [
        ("everyone", 3, 0.2),
        ("some", 2, 0.3),
    ]
    shown = card._groups({"groups": {name: asdict(group) for name, group in found.items()}})
    assert "| everyone | 3 | 20.0% | 2.0 (+2.0) | – | 10.0 (-10.0) | – |" in shown
    assert "| some | 2 | 30.0% | 2.5 (+2.5) | – | 10.0 (-10.0) | – |" in shown
    assert len({line.count("|") for line in shown.splitlines() if line.startswith("|")}) == 1
    assert "not measured" in card._groups({"groups": {}})
