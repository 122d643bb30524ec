import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor

from training.likeness import (
    TRAITS,
    Correlation,
    Likeness,
    agreement,
    balanced_accuracy,
    correlation,
    fit,
    hair,
    lab,
    likeness,
    read_traits,
    show,
    skin,
    write,
)
from training.recognisers import Recogniser
from training.table4 import enlarge

Colour = tuple[int, int, int]
WHITE, SKIN, BROWN = (255, 255, 255), (220, 170, 134), (92, 58, 36)


def face(skin: Colour, hair: Colour, around: Colour = WHITE) -> Tensor:
    """A head of 152 px: an oval's box of skin under a block of hair."""
    picture = torch.tensor(around, dtype=torch.uint8).expand(1, 152, 152, 3).clone()
    picture[:, 10:140, 40:112] = torch.tensor(skin, dtype=torch.uint8)
    picture[:, 5:35, 30:122] = torch.tensor(hair, dtype=torch.uint8)
    return picture


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [
        ((0, 0, 0), (0, 0, 0)),
        ((255, 255, 255), (100, 0, 0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),  # CIE values of sRGB's red and blue
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((5, 5, 5), (1.37, 0, 0)),  # on the straight part of both curves
    ],
)
def test_lab_of_known_colours(rgb: Colour, expected: tuple[float, ...]) -> None:
    assert lab(torch.tensor(rgb, dtype=torch.uint8)).tolist() == pytest.approx(expected, abs=0.02)


def test_reads_skin_and_hair_where_they_are() -> None:
    picture = face(SKIN, BROWN)
    for seen, colour in ((skin, SKIN), (hair, BROWN)):
        expected = lab(torch.tensor(colour, dtype=torch.uint8))
        assert seen(picture)[0].tolist() == pytest.approx(expected.tolist())


@pytest.mark.parametrize(
    "picture",
    [
        face(SKIN, SKIN),  # bald
        face(SKIN, (250, 200, 165)),  # bald, and it shines
        face(SKIN, BROWN, around=(85, 55, 35)),  # before a brown wall
        face(SKIN, (250, 250, 248)),  # white hair on white
    ],
)
def test_says_nothing_of_hair_it_cannot_tell_apart(picture: Tensor) -> None:
    assert hair(picture).isnan().all()


def test_a_correlation_is_of_ranks_and_leaves_gaps_out() -> None:
    photos = torch.tensor([1.0, 2, 3, 4, 5]).double()[:, None]
    emoji = torch.tensor([10.0, 1000, 20, torch.nan, 2000]).double()[:, None]
    found = correlation(photos, emoji)  # ranks 1 2 3 4 and 1 3 2 4: 1 - 6 * 2 / (4 * 15)
    assert found.n == 4
    assert found.rho == pytest.approx(0.8)


def test_a_probe_finds_a_rare_trait() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 8, generator=generator)
    labels = x[:, 3] + 0.1 * x[:, 0] > 1.2
    probe = fit(x[:200], labels[:200])
    assert balanced_accuracy(probe(x[200:]), labels[200:]) > 0.9
    with pytest.raises(ValueError, match="both kinds"):
        fit(x, torch.zeros(300, dtype=torch.bool))


def test_balanced_accuracy_by_hand() -> None:
    truth = torch.tensor([True, False, False, False])
    assert balanced_accuracy(torch.tensor([False] * 4), truth) == 0.5
    assert balanced_accuracy(torch.tensor([True, True, False, False]), truth) == pytest.approx(
        5 / 6
    )


def test_agreement_by_hand() -> None:
    photos = torch.tensor([True, True, False, False, False])
    emoji = torch.tensor([True, False, True, False, False])
    found = agreement(photos, emoji, 0.9, 0.8)
    assert (found.n, found.photos_with, found.emoji_with) == (5, 2, 2)
    assert found.agree == 0.6
    assert found.kappa == pytest.approx((0.6 - 0.52) / 0.48)  # .4 * .4 + .6 * .6 by chance
    assert (found.kept, found.invented) == (0.5, pytest.approx(1 / 3))
    nobody = agreement(torch.zeros(3, dtype=torch.bool), torch.zeros(3, dtype=torch.bool), 1, 1)
    assert (nobody.kept, nobody.kappa) == (None, 0)


def test_traits_are_found_by_the_name_of_the_file(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"Ann_1.webp").hexdigest()[:16]
    path = tmp_path / "traits.csv"
    path.write_text(f"picture,glasses,facial_hair\n{digest},1,0\n")
    traits = read_traits(["Ann_1.webp"], path)
    assert {kind: values.tolist() for kind, values in traits.items()} == {
        "glasses": [True],
        "facial_hair": [False],
    }
    with pytest.raises(ValueError, match=r"Bob_1\.webp and 0 others"):
        read_traits(["Ann_1.webp", "Bob_1.webp"], path)


def test_the_labels_name_nobody() -> None:
    lines = TRAITS.read_text().splitlines()[1:]
    assert len(lines) == 376
    assert all(len(line) == 20 and line[16:] in {",0,0", ",0,1", ",1,0", ",1,1"} for line in lines)


def test_figures_are_shown_from_their_file(tmp_path: Path) -> None:
    photos = torch.tensor([True, True, False, False, False])
    emoji = torch.tensor([True, False, True, False, False])
    found = agreement(photos, emoji, 0.9, 0.8)
    nothing = agreement(photos & ~photos, emoji, 0.9, 0.8)
    traits = {"MobileFaceNet": {"glasses": found, "facial_hair": nothing}}
    kept = write(Likeness(Correlation(0.5, 300), Correlation(None, 0), traits), tmp_path)
    lines = show(kept).splitlines()
    assert lines[0] == "skin: rho of L* 0.500 over 300 pairs"
    assert lines[1] == "hair: rho of L* undefined over 0 pairs"
    assert lines[3].split() == [
        *("MobileFaceNet", "glasses", "2", "2", "60.0%", "0.17", "50.0%", "33.3%"),
        *("90.0%,", "80.0%"),
    ]
    assert lines[4].split()[6:8] == ["-", "40.0%"]


def test_measures_pairs_of_pictures(judge: Recogniser) -> None:
    """The mean colour stands in for a judge; avatars with glasses are dark ones."""
    shades = torch.tensor([120, 140, 160, 180, 200, 220])
    photos = torch.cat([face((int(v), int(v) - 20, 40), BROWN) for v in shades])
    green = torch.tensor([True, False] * 3)
    photos[green, 40:] = torch.tensor((0, 200, 0), dtype=torch.uint8)
    traits = {"glasses": green, "facial_hair": ~green}
    small = enlarge(photos, 64)
    found = likeness(photos, traits, small, small, traits, [judge])
    assert found.hair == Correlation(None, 6)  # all the same
    assert found.skin.n == 6
    agreed = found.traits[judge.name]["glasses"]
    assert (agreed.agree, agreed.kappa, agreed.probe_on_avatars) == (1, 1, 1)
