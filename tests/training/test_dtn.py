"""The traps others fell into: what learns, what does not, and from what."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training.config import DigitsConfig, DTNConfig
from training.data import Digits
from training.dtn import DTN
from training.loop import draws, epochs, train_dtn, transfer
from training.losses import const_loss
from training.networks import DigitNet
from training.run import Run
from training.train import digits_domains, digits_dtn, evening_weights, features, view_features

CPU = torch.device("cpu")


def weights(net: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(net.state_dict())


def learn(run: Run, f: DigitNet, data: Digits) -> nn.Sequential:
    """The g that a run of digits ends with."""
    assert isinstance(run.config, DigitsConfig)
    dtn = digits_dtn(f, run.config, CPU)
    s, t = data.svhn_train.images, data.mnist_test.images
    return train_dtn(
        run, dtn, lambda: digits_domains(f, s, t, run.config), data.svhn_test.images[:4]
    )


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_the_slope_of_l_const_reaches_g_and_only_g(
    f: DigitNet, config: DTNConfig, batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    dtn = digits_dtn(f, config, CPU)
    fs = batch[0]
    const_loss(fs, f.features(dtn.g(fs))).backward()
    assert all(weight.grad is not None for weight in dtn.g.parameters())
    assert sum(weight.grad.abs().sum() for weight in dtn.g.parameters() if weight.grad is not None)
    assert all(weight.grad is None for weight in f.parameters())
    assert all(weight.grad is None for weight in dtn.D.parameters())


def test_a_step_leaves_f_and_its_statistics_alone(
    f: DigitNet, config: DTNConfig, batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    before = weights(f)
    dtn = digits_dtn(f, config, CPU)
    for step in range(3):
        dtn.step(*batch, step)
    assert same(before, f.state_dict())
    assert not f.training


def test_d_learns_from_pictures_cut_off_from_g(
    f: DigitNet, config: DTNConfig, batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    dtn = digits_dtn(f, config, CPU)
    fs, ft, t = batch
    before_g, before_d = weights(dtn.g), weights(dtn.D)
    gs, gt = dtn.g(fs), dtn.g(ft)
    before_g = weights(dtn.g)  # its running statistics moved in the forward pass
    dtn.d_step(gs, gt, t, penalised=False)
    assert same(before_g, dtn.g.state_dict())
    assert all(weight.grad is None for weight in dtn.g.parameters())
    assert not same(before_d, dtn.D.state_dict())


def test_g_s_update_leaves_d_s_weights_alone(
    f: DigitNet,
    config: DTNConfig,
    batch: tuple[Tensor, Tensor, Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dtn = digits_dtn(f, config, CPU)
    monkeypatch.setattr(DTN, "d_step", lambda self, gs, gt, t, penalised: torch.zeros(()))
    before_g, before_d = weights(dtn.g), {n: p.clone() for n, p in dtn.D.named_parameters()}
    dtn.step(*batch, 1)
    assert not same(before_g, dtn.g.state_dict())
    assert same(before_d, dict(dtn.D.named_parameters()))
    assert all(weight.requires_grad for weight in dtn.D.parameters())


@pytest.mark.parametrize(
    "changes",
    [
        {"d": "cosine"},
        {"gamma": 0.1},
        {"spectral_norm": True},
        {"r1": 1.0, "r1_every": 1},
        {"diff_augment": False, "ema": 0.0, "bf16": False},
        {"alpha": 0.0, "beta": 0.0},
        {"lr_decay": True},
        {"common_batch": True},
        {"const_logits": 0.7},
        {"const_jitter": True},
        {"adversary": "binary", "r1": 1.0, "r1_every": 1},
    ],
)
def test_every_option_trains(
    f: DigitNet,
    config: DTNConfig,
    batch: tuple[Tensor, Tensor, Tensor],
    changes: dict[str, Any],
) -> None:
    dtn = digits_dtn(f, dataclasses.replace(config, **changes), CPU)
    before = weights(dtn.g)
    for step in range(2):
        losses = dtn.step(*batch, step)
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert set(losses) == {"d", "gang", "const", "tid", "tv"}
    assert not same(before, dtn.g.state_dict())


def test_a_common_batch_is_one_to_d_and_separate_ones_are_not(
    f: DigitNet, config: DTNConfig, batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    t = batch[2]
    kinds = (t, -t, t.flip(3))
    plain = dataclasses.replace(config, diff_augment=False)
    apart = digits_dtn(f, plain, CPU)
    assert all(
        torch.equal(seen, apart.D(kind))
        for seen, kind in zip(apart.look(*kinds), kinds, strict=True)
    )
    together = digits_dtn(f, dataclasses.replace(plain, common_batch=True), CPU)
    assert torch.equal(torch.cat(together.look(*kinds)), together.D(torch.cat(kinds)))
    assert not torch.equal(together.look(*kinds)[0], together.D(t))  # other statistics


def test_g_s_losses_show_d_the_batch_that_it_learned_from(
    f: DigitNet,
    config: DTNConfig,
    batch: tuple[Tensor, Tensor, Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[Tensor, ...]] = []
    real_look = DTN.look

    def look(self: DTN, *kinds: Tensor) -> tuple[Tensor, ...]:
        seen.append(kinds)
        return real_look(self, *kinds)

    monkeypatch.setattr(DTN, "look", look)
    dtn = digits_dtn(f, dataclasses.replace(config, common_batch=True, r1=0.0), CPU)
    dtn.step(*batch, 1)
    to_d, to_g = seen
    assert all(torch.equal(one, other) for one, other in zip(to_d, to_g, strict=True))


def test_a_share_of_l_const_is_blind_to_what_f_s_classifier_ignores(
    f: DigitNet, config: DTNConfig, batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    fx = batch[0]
    below = fx.clamp(max=0) - 1.0  # what its ReLU cuts off
    ignored = torch.where(fx < 0, below, fx)
    features, mixed, logits = (
        digits_dtn(f, dataclasses.replace(config, const_logits=share), CPU).const(fx, ignored)
        for share in (0.0, 0.25, 1.0)
    )
    assert logits.item() == pytest.approx(0.0, abs=1e-9) and features.item() > 0.01
    assert mixed.item() == pytest.approx(0.75 * features.item())


def test_l_const_may_be_of_a_jittered_picture(
    f: DigitNet,
    config: DTNConfig,
    batch: tuple[Tensor, Tensor, Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Tensor] = []
    real_features = DigitNet.features

    def features(self: DigitNet, x: Tensor) -> Tensor:
        seen.append(x)
        return real_features(self, x)

    monkeypatch.setattr(DigitNet, "features", features)
    fs, _, t = batch
    for jitter in (False, True):
        own = dataclasses.replace(config, const_jitter=jitter, bf16=False)
        dtn = digits_dtn(f, own, CPU)
        gs = t.clone().requires_grad_()
        losses = dtn.g_losses(gs, t, fs, t)
        assert torch.equal(seen[-1], gs) == (not jitter)
        (slope,) = torch.autograd.grad(losses["const"], gs)
        assert slope.abs().sum() > 0
    assert (seen[-1] - t).abs().mean() < 0.5  # it is still the picture


def test_l_const_in_logits_wants_a_classifier(f: DigitNet, config: DTNConfig) -> None:
    own = digits_dtn(f, config, CPU)
    with pytest.raises(ValueError, match="this one has no logits"):
        DTN(f, own.g, own.D, dataclasses.replace(config, const_logits=0.5), CPU)


def test_g_learns_to_draw_t(
    f: DigitNet, config: DTNConfig, batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    dtn = digits_dtn(f, dataclasses.replace(config, lr=2e-3), CPU)
    first, *_, last = [dtn.step(*batch, step)["tid"].item() for step in range(40)]
    assert last < first / 2


def test_without_ema_the_average_is_g_itself(
    f: DigitNet, config: DTNConfig, batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    dtn = digits_dtn(f, dataclasses.replace(config, ema=0.0), CPU)
    dtn.step(*batch, 0)
    assert same(dtn.g.state_dict(), dtn.average.state_dict())


def test_no_label_is_seen(f: DigitNet, digits: Digits, config: DTNConfig, tmp_path: Path) -> None:
    def blind(split: Any) -> Any:
        return dataclasses.replace(split, labels=torch.full_like(split.labels, -1))

    hidden = dataclasses.replace(
        digits, svhn_train=blind(digits.svhn_train), mnist_test=blind(digits.mnist_test)
    )
    nets = [
        learn(Run(tmp_path / name, "p", config), f, data)
        for name, data in (("seen", digits), ("hidden", hidden))
    ]
    assert same(nets[0].state_dict(), nets[1].state_dict())


def test_an_interrupted_run_equals_an_uninterrupted_one(
    f: DigitNet,
    digits: Digits,
    config: DTNConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = dataclasses.replace(config, lr_decay=True, tid_first=2)
    whole = learn(Run(tmp_path / "whole", "p", config), f, digits)

    monkeypatch.setattr("training.loop.SAVE_EVERY", 2)
    broken = Run(tmp_path / "broken", "p", config)
    steps = []
    real_step = DTN.step

    def step_until_the_power_goes(self: DTN, *args: Any) -> dict[str, Tensor]:
        if len(steps) == 3:
            raise KeyboardInterrupt
        steps.append(args[-1])
        return real_step(self, *args)

    monkeypatch.setattr(DTN, "step", step_until_the_power_goes)
    with pytest.raises(KeyboardInterrupt):
        learn(broken, f, digits)
    monkeypatch.setattr(DTN, "step", real_step)
    resumed = learn(broken, f, digits)
    assert same(whole.state_dict(), resumed.state_dict())
    assert not resumed.training


def test_an_epoch_shows_every_picture_once() -> None:
    order = epochs(10, 5, torch.Generator().manual_seed(0))
    for _ in range(3):
        seen = torch.cat([next(order), next(order)])
        assert sorted(seen.tolist()) == list(range(10))


def test_s_is_drawn_evenly_as_f_reads_it(f: DigitNet, digits: Digits) -> None:
    fs = features(f, digits.svhn_train.images)
    reading = f.head(fs).argmax(1)
    counts = reading.bincount(minlength=10)
    assert counts.max() > 2 * counts[counts > 0].min()  # else there would be nothing to even out
    order = draws(len(fs), evening_weights(f, fs), 500, torch.Generator().manual_seed(0))
    drawn = reading[torch.cat([next(order) for _ in range(10)])].bincount(minlength=10)
    expected = 5000 / int((counts > 0).sum())
    assert drawn[counts > 0].float().sub(expected).abs().max() < 0.2 * expected


def test_g_learns_the_identity_alone_at_first(
    f: DigitNet, config: DTNConfig, batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    dtn = digits_dtn(f, dataclasses.replace(config, tid_first=2), CPU)
    before_d = weights(dtn.D)
    assert set(dtn.step(*batch, 1)) == {"tid"}
    assert same(before_d, dtn.D.state_dict())
    assert set(dtn.step(*batch, 2)) == {"d", "gang", "const", "tid", "tv"}


def test_views_begin_with_the_pictures_themselves(f: DigitNet, digits: Digits) -> None:
    images = digits.svhn_train.images[:6]
    views = view_features(f, images, 2, seed=0)
    assert views.shape == (18, 128)
    assert torch.equal(views[:6], features(f, images))
    assert not torch.allclose(views[6:12], views[:6])
    assert not torch.allclose(views[12:], views[6:12])


def test_transfer_gives_grey_bytes(f: DigitNet, config: DTNConfig, digits: Digits) -> None:
    y = transfer(f, digits_dtn(f, config, CPU).average, digits.svhn_test.images)
    assert y.shape == (40, 1, 32, 32)
    assert y.dtype == torch.uint8
