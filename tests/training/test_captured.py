"""CUDA graphs of steps learn what eager steps learn; what stands around them works anywhere."""

import copy
import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training.captured import STREAMS, WARM, adam, set_rate, take_stream, take_up
from training.classifier import Source, train_classifier
from training.config import Augment, ClassifierConfig, DigitsConfig, DTNConfig
from training.dann import train_dann
from training.data import Split
from training.networks import DigitNet, frozen
from training.run import Run
from training.train import digits_dtn

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def learned(optimizer: torch.optim.Optimizer, net: nn.Linear, x: Tensor) -> None:
    net(x).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_a_rate_is_set_whether_it_is_a_number_or_a_tensor() -> None:
    for rate in (0.1, torch.tensor(0.1)):
        optimizer = torch.optim.Adam(nn.Linear(2, 2).parameters(), 0.1)
        optimizer.param_groups[0]["lr"] = rate
        set_rate(optimizer, 0.25)
        assert float(optimizer.param_groups[0]["lr"]) == 0.25
    assert isinstance(optimizer.param_groups[0]["lr"], Tensor)


def test_a_state_that_a_gpu_saved_is_taken_up_on_a_cpu() -> None:
    torch.manual_seed(0)
    net, x = nn.Linear(3, 1), torch.ones(1, 3)
    here = adam(net.parameters(), 0.1, (0.5, 0.999))
    learned(here, net, x)
    saved = copy.deepcopy(here.state_dict())
    saved["param_groups"][0] |= {"lr": torch.tensor(9.0), "fused": True, "capturable": True}
    other = copy.deepcopy(net)
    there = adam(other.parameters(), 0.1, (0.5, 0.999))
    take_up(there, saved)
    assert there.param_groups[0]["lr"] == 0.1 and not there.param_groups[0]["capturable"]
    learned(here, net, x)
    learned(there, other, x)
    assert torch.equal(net.weight, other.weight)


def test_weight_decay_makes_it_adamw() -> None:
    net = nn.Linear(2, 2)
    decayed = adam(net.parameters(), 0.1, (0.9, 0.99), 0.05)
    assert isinstance(decayed, torch.optim.AdamW)
    assert decayed.param_groups[0]["weight_decay"] == 0.05
    assert not isinstance(adam(net.parameters(), 0.1, (0.9, 0.99)), torch.optim.AdamW)


@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"r1": 1.0, "r1_every": 2, "lr_decay": True, "ema": 0.9},
        {"tid_first": 6},
        {"common_batch": True, "const_logits": 0.7},
        {"d2": "gan"},
        {"spectral_norm": True},
        {"bf16": False, "adversary": "binary", "beta": 0.0},
        {"from_pixels": True},
    ],
)
def test_recorded_steps_learn_what_eager_ones_do(
    config: DTNConfig, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A dozen steps of an adversary make much of a difference in the last bits.
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    device = torch.device("cuda")
    plain: dict[str, Any] = {
        "steps": 100,
        "diff_augment": False,
        "balance": False,
        "s_views": 0,
        "bf16": False,
    }
    config = dataclasses.replace(config, **(plain | changes))
    torch.manual_seed(0)
    f = frozen(DigitNet().to(device))
    x = torch.rand(8, 3, 32, 32, device=device) * 2 - 1
    t = torch.rand(8, 1, 32, 32, device=device) * 2 - 1
    with torch.no_grad():
        fs, ft = f.features(x), f.features(t)
    nets = []
    for captured in (False, True):
        dtn = digits_dtn(f, config, device, captured)
        assert (dtn.graphs is not None) == captured
        losses = [
            {
                name: loss.item()
                for name, loss in dtn.step(
                    fs, ft, t, step, x if config.from_pixels else None
                ).items()
            }
            for step in range(4 * WARM)
        ]
        nets.append((dtn, losses))
    (eager, expected), (recorded, found) = nets
    assert recorded.graphs is not None and recorded.graphs.recorded
    for one, other in zip(expected, found, strict=True):
        assert one == pytest.approx(other, rel=0.05, abs=0.02)
    pairs = zip(eager.average.parameters(), recorded.average.parameters(), strict=True)
    assert all(torch.allclose(one, other, atol=2e-2) for one, other in pairs)


@needs_gpu
@pytest.mark.gpu
def test_every_replay_draws_anew(config: DTNConfig) -> None:
    device = torch.device("cuda")
    config = dataclasses.replace(config, diff_augment=True, lr=0.0, r1=0.0, ema=0.0)
    torch.manual_seed(0)
    f = frozen(DigitNet().to(device))
    t = torch.rand(8, 1, 32, 32, device=device) * 2 - 1
    with torch.no_grad():
        ft = f.features(t)
    dtn = digits_dtn(f, config, device)
    seen = [dtn.step(ft, ft, t, step)["d"].item() for step in range(10)]
    assert len(set(seen[WARM:])) > 5


@needs_gpu
def test_a_classifier_learns_the_same_by_recorded_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = ClassifierConfig(steps=12, real=32, augment=Augment())
    config = DigitsConfig(f=recipe, judge=recipe, steps=1, bf16=False)
    split = Split(
        "s",
        torch.arange(200 * 3072, device="cuda").view(200, 3, 32, 32).byte(),
        torch.arange(200, device="cuda") % 10,
    )
    nets = []
    for name, warm in (("recorded", WARM), ("eager", 1000)):
        monkeypatch.setattr("training.captured.WARM", warm)
        run = Run(tmp_path / name, "digits", config, "cuda")
        nets.append(train_classifier(run, "f", recipe, lambda: [Source(split, 32)], seed=0))
    for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)


@needs_gpu
@pytest.mark.gpu
def test_a_dann_learns_the_same_by_recorded_steps(
    config: DigitsConfig, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned = []
    for name, warm in (("recorded", WARM), ("eager", 1000)):
        monkeypatch.setattr("training.captured.WARM", warm)
        own = dataclasses.replace(config, steps=12, bf16=False)
        run = Run(tmp_path / name, "dann", own, "cuda")
        train_dann(run, data)
        state = run.load("dann.pt")
        assert state is not None
        learned.append(state["average"])
    for name, value in learned[0].items():
        torch.testing.assert_close(value, learned[1][name], rtol=1e-2, atol=1e-3)


@needs_gpu
@pytest.mark.gpu
def test_graphs_recorded_in_several_threads_learn_what_each_learns_alone(
    config: DTNConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    device = torch.device("cuda")
    torch.manual_seed(0)
    f = frozen(DigitNet().to(device))
    t = torch.rand(8, 1, 32, 32, device=device) * 2 - 1
    with torch.no_grad():
        ft = f.features(t)
    torch.cuda.synchronize()

    def learned(seed: int) -> list[Tensor]:
        dtn = digits_dtn(f, dataclasses.replace(config, seed=seed, bf16=False), device)
        for step in range(4 * WARM):
            dtn.step(ft, ft, t, step)
        torch.cuda.current_stream().synchronize()
        return list(dtn.average.parameters())

    seeds = range(2 * STREAMS)
    alone = [learned(seed) for seed in seeds]
    with ThreadPoolExecutor(8, initializer=take_stream) as pool:
        beside = list(pool.map(learned, seeds))
    for one, other in zip(alone, beside, strict=True):
        for expected, found in zip(one, other, strict=True):
            torch.testing.assert_close(expected, found, atol=2e-2, rtol=0.0)
