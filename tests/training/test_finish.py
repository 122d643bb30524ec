"""The last steps of a training, in which f sees what is made of G(s)."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training.config import DTNConfig
from training.dtn import DTN, Finish, decayed
from training.losses import symmetry_loss
from training.networks import DigitNet
from training.train import digits_dtn

CPU = torch.device("cpu")


def test_in_the_last_steps_f_sees_g_of_s_enlarged_and_d_does_not(
    f: DigitNet,
    config: DTNConfig,
    batch: tuple[Tensor, Tensor, Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = digits_dtn(f, config, CPU)

    def enlarge(x: Tensor) -> Tensor:
        return nn.functional.interpolate(x.float(), scale_factor=2)

    last = dataclasses.replace(config, steps=6, bf16=False, const_jitter=False)
    dtn = DTN(f, own.g, own.D, last, CPU, finish=Finish(4, 2, enlarge))
    sides: list[int] = []
    drawn: list[Tensor] = []
    shown: list[Tensor] = []
    real_features, real_d_step, real_generate = DigitNet.features, dtn.d_step, dtn.generate

    def features(self: DigitNet, x: Tensor) -> Tensor:
        sides.append(x.shape[-1])
        return real_features(self, nn.functional.avg_pool2d(x, x.shape[-1] // 32))

    def generate(*inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        gs, gt = real_generate(*inputs)
        drawn.append(gs)
        return gs, gt

    def d_step(gs: Tensor, *others: Any) -> Tensor:
        shown.append(gs)
        return real_d_step(gs, *others)

    monkeypatch.setattr(DigitNet, "features", features)
    monkeypatch.setattr(dtn, "generate", generate)
    monkeypatch.setattr(dtn, "d_step", d_step)
    for step in range(6):
        dtn.step(*batch, step)
    assert sides == [32, 32, 64, 32, 64, 32]
    assert all(seen is gs for gs, seen in zip(drawn, shown, strict=True))


def test_a_finish_may_pull_g_of_s_to_its_mirror_image(
    f: DigitNet, config: DTNConfig, batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    fs, _, t = batch
    dtn = digits_dtn(f, config, CPU)
    asked = Finish(1, symmetry=3.0)
    for finish in (asked, asked.between()):
        losses = dtn.g_losses(t / 2, t, fs, t, finish)
        assert losses["symmetry"].item() == symmetry_loss(t / 2).item() > 0
    assert "symmetry" not in dtn.g_losses(t / 2, t, fs, t)


def test_a_finish_may_stress_numbers_of_f_and_pull_g_of_s_to_what_is_made_of_it(
    f: DigitNet, config: DTNConfig, batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    fs, _, t = batch
    dtn = digits_dtn(f, dataclasses.replace(config, const_jitter=False, bf16=False), CPU)
    gs = (t / 2).requires_grad_()
    stress = torch.zeros(fs.shape[1])
    stress[3] = 2
    finish = Finish(1, enlarge=torch.neg, red=7.0, stress=stress)
    losses = dtn.g_losses(gs, t, fs, t, finish)
    far = f.features(-gs)[:, 3] - fs[:, 3]
    assert losses["const"].item() == pytest.approx(
        4 * far.square().mean().item() / len(stress), rel=1e-4
    )
    assert losses["red"].item() == pytest.approx((2 * gs).square().mean().item(), rel=1e-5)
    between = dtn.g_losses(gs, t, fs, t, finish.between())
    far = f.features(gs)[:, 3] - fs[:, 3]
    assert between["const"].item() == pytest.approx(
        4 * far.square().mean().item() / len(stress), rel=1e-4
    )
    assert "red" not in between


def test_in_a_finish_f_of_s_may_be_exaggerated(
    f: DigitNet,
    config: DTNConfig,
    batch: tuple[Tensor, Tensor, Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fs, ft, _ = batch
    own = digits_dtn(f, config, CPU)
    factors = torch.linspace(0.5, 2, fs.shape[1])
    last = dataclasses.replace(config, steps=2)
    dtn = DTN(f, own.g, own.D, last, CPU, finish=Finish(1, caricature=factors))
    given: list[Tensor] = []
    wanted: list[Tensor] = []
    real_generate, real_const = dtn.generate, dtn.const

    def generate(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor | None]:
        assert t is ft
        given.append(x)
        return real_generate(x, t)

    def const(fx: Tensor, fgx: Tensor) -> Tensor:
        wanted.append(fx)
        return real_const(fx, fgx)

    monkeypatch.setattr(dtn, "generate", generate)
    monkeypatch.setattr(dtn, "const", const)
    for step in range(2):
        dtn.step(*batch, step)
    for before, finishing in (given, wanted):
        assert torch.equal(before, fs)
        assert torch.equal(finishing, fs * factors)


def test_a_finish_may_have_weights_of_its_own(
    f: DigitNet,
    config: DTNConfig,
    batch: tuple[Tensor, Tensor, Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = digits_dtn(f, config, CPU)
    last = dataclasses.replace(config, steps=3)
    dtn = DTN(f, own.g, own.D, last, CPU, finish=Finish(2, 2, alpha=0.5, red=7.0, symmetry=3.0))
    seen: list[dict[str, float]] = []
    monkeypatch.setattr(dtn, "g_step", lambda weights, _: seen.append(weights))
    for step in range(3):
        dtn.step(*batch, step)
    before, between, enlarged = seen
    assert (before["const"], before["red"], before["symmetry"]) == (config.alpha, 0, 0)
    assert between == before | {"const": 0.5, "symmetry": 3}
    assert enlarged == between | {"red": 7}


def test_the_rate_falls_twice_where_there_is_a_finish() -> None:
    rates = [decayed(1.0, step, 100, 20) for step in range(100)]
    assert (rates[0], rates[40], rates[80], rates[90]) == pytest.approx((1, 0.5, 0.5, 0.25))
    assert rates[79] < 0.001 and rates[99] < 0.01
    assert decayed(1.0, 50, 100, 0) == pytest.approx(0.5)
