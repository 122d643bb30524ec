"""What each row of Tables 1 and 3 changes in the network, the losses and the data."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from training.config import PRESETS, DigitsConfig
from training.data import Digits
from training.losses import binary_d_loss, binary_gan_loss, const_loss
from training.networks import DigitNet, frozen, to_unit
from training.rows import CHANGED, TABLE1, TABLE3
from training.run import Run
from training.train import (
    digits_domains,
    digits_dtn,
    f_taught,
    features,
    held_out,
    measure,
    roles,
    train,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def f() -> DigitNet:
    torch.manual_seed(0)
    return frozen(DigitNet())


@pytest.fixture
def batch(f: DigitNet, digits: Digits) -> tuple[Tensor, Tensor, Tensor]:
    t = digits.mnist_test.images[:8]
    return features(f, digits.svhn_train.images[:8]), features(f, t), to_unit(t)


def plain(config: DigitsConfig, **changes: Any) -> DigitsConfig:
    """`config` with nothing beyond the paper, but `changes`."""
    extras = {"ema": 0.0, "r1": 0.0, "diff_augment": False, "s_views": 0, "balance": False}
    return dataclasses.replace(config, **extras | changes)


def test_every_row_is_a_preset_that_changes_what_it_says() -> None:
    for row in CHANGED:
        paper = dataclasses.asdict(PRESETS[row.base])
        own = dataclasses.asdict(PRESETS[row.preset])
        assert {name for name in own if own[name] != paper[name]} == set(row.changes)


def test_the_papers_figures_are_those_of_its_tables() -> None:
    assert [row.paper for row in TABLE1] == [0.1371, 0.9066, 0.884, 0.7455, 0.369, 0.347, 0.0528]
    assert [row.paper for row in TABLE3] == [0.9467, 0.9333, 0.4013, 0.6002, 0.0452]


def test_the_baseline_has_a_binary_d_and_never_sees_g_of_t(
    f: DigitNet, config: DigitsConfig, digits: Digits, batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    changes = PRESETS["table1_baseline"]
    own = plain(config, adversary="binary", from_pixels=True, beta=0.0)
    assert (changes.adversary, changes.from_pixels, changes.beta) == ("binary", True, 0.0)
    dtn = digits_dtn(f, own, CPU)
    s = to_unit(digits.svhn_train.images[:8])
    gs, gt = dtn.generate(s, dtn.start.features(batch[2]))
    assert gs.shape == (8, 1, 32, 32) and gt is None
    assert set(dtn.step(*batch, 0, s)) == {"d", "gang", "const", "tv"}


def test_binary_losses_are_those_of_two_classes() -> None:
    logits = torch.tensor([[0.0, 99.0, 0.0]])  # the class between is not there
    assert binary_d_loss(logits, logits).item() == pytest.approx(2 * 0.693147, abs=1e-5)
    assert binary_gan_loss(torch.tensor([[0.0, 99.0, 2.0]])).item() == pytest.approx(
        0.126928, abs=1e-5
    )


def test_without_a_gan_d_does_not_learn(
    f: DigitNet, config: DigitsConfig, batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    dtn = digits_dtn(f, plain(config, adversary="none"), CPU)
    before = [weight.clone() for weight in dtn.D.parameters()]
    assert set(dtn.step(*batch, 0)) == {"const", "tid", "tv"}
    assert all(torch.equal(a, b) for a, b in zip(before, dtn.D.parameters(), strict=True))


@pytest.mark.parametrize("weight", ["alpha", "beta"])
def test_a_term_without_weight_does_not_reach_g(
    f: DigitNet, config: DigitsConfig, batch: tuple[Tensor, Tensor, Tensor], weight: str
) -> None:
    """Of L_TID and L_CONST alone, the one that is switched off leaves g where it is."""
    off = {"alpha": 0.0, "beta": 0.0, "adversary": "none"}
    dtn = digits_dtn(f, plain(config, **off), CPU)
    before = [p.clone() for p in dtn.g.parameters()]
    with pytest.raises(AttributeError):
        dtn.step(*batch, 0)  # no term at all: nothing to learn from
    dtn = digits_dtn(f, plain(config, **off | {weight: 1.0}), CPU)
    dtn.step(*batch, 0)
    assert any(not torch.equal(a, b) for a, b in zip(before, dtn.g.parameters(), strict=True))


def test_g_from_pixels_never_asks_f_for_its_input(
    f: DigitNet, config: DigitsConfig, digits: Digits
) -> None:
    own = plain(config, from_pixels=True)
    domains = digits_domains(f, digits.svhn_train.images, digits.mnist_test.images, own)
    assert domains.s is not None and domains.s.shape[1:] == (3, 32, 32)
    dtn = digits_dtn(f, own, CPU)
    assert dtn.start.features(torch.zeros(2, 1, 32, 32)).shape == (2, 3, 32, 32)
    with pytest.raises(ValueError, match="of f\\(s\\)"):
        digits_domains(
            f,
            digits.svhn_train.images,
            digits.mnist_test.images,
            dataclasses.replace(own, balance=True),
        )


@pytest.mark.parametrize("d", ["cosine", "hinge", "triplet"])
def test_every_d_is_least_where_f_is_kept(d: str) -> None:
    fx = torch.randn(16, 128, generator=torch.Generator().manual_seed(0))
    kept, lost = const_loss(fx, fx, d), const_loss(fx, fx.roll(1, 0), d)
    assert kept < lost


def test_hinge_and_triplet_by_hand() -> None:
    fx, fgx = torch.tensor([[0.0], [0.5]]), torch.tensor([[0.0], [1.0]])
    # near: 0, 0.25; far: to the other picture's f, 0.25, 1
    assert const_loss(fx, fgx, "hinge").item() == pytest.approx((0 + 0.75 + 0.25 + 0) / 2)
    assert const_loss(fx, fgx, "triplet").item() == pytest.approx((0.75 + 0.25) / 2)


def test_the_digit_3_is_left_out_where_a_row_says_so(config: DigitsConfig, digits: Digits) -> None:
    for omit in ("", "s", "t", "st", "stf"):
        own = roles(*held_out(digits, 0), dataclasses.replace(config, omit=omit))
        assert bool((own.s.labels == 3).any()) == ("s" not in omit)
        assert bool((own.t.labels == 3).any()) == ("t" not in omit)
        assert (own.measured.labels == 3).any() and (own.judged.labels == 3).any()


def test_f_learns_from_no_3_where_a_row_says_so(config: DigitsConfig, digits: Digits) -> None:
    own = dataclasses.replace(config, f=dataclasses.replace(config.f, meter=4))
    for omit, shown in (("", True), ("st", True), ("stf", False)):
        sources = f_taught(digits, dataclasses.replace(own, omit=omit))
        assert [bool((source.split.labels == 3).any()) for source in sources] == [shown] * 3


def test_reverse_draws_coloured_digits_from_grey_ones(
    config: DigitsConfig, data: Path, tmp_path: Path
) -> None:
    own = plain(config, reverse=True, steps=2)
    trained = train(Run(tmp_path / "reverse", "reverse", own), data)
    assert trained.measured.name == "mnist_test"
    assert trained.transfer(trained.measured.images[:3]).shape == (3, 3, 32, 32)
    found = measure(trained)
    assert found["transfer_accuracy"]["split"] == "mnist_test"
    assert found["judge_accuracy"]["split"] == "svhn_test"
    assert "nearest_train" not in found


def test_a_second_gan_stands_in_for_d2(config: DigitsConfig, data: Path, tmp_path: Path) -> None:
    own = plain(config, d2="gan", beta=1.0, steps=3)
    run = Run(tmp_path / "d2", "d2_gan", own)
    train(run, data)
    assert run.load("dtn.pt")["second"] is not None  # type: ignore[index]
    assert '"d2"' in (run.folder / "log.jsonl").read_text()
