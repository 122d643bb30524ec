"""Spectacles: drawn on photographs, and told by a network that no photograph's label taught."""

from random import Random

import numpy as np
import pytest
import torch

from training.glasses import Glasses, drawn_on, halved, spectacles, teach_glasses, wearers
from training.networks import to_unit

CPU = torch.device("cpu")


def faces(n: int, seed: int = 0, side: int = 152) -> torch.Tensor:
    """uint8 [n, 3, side, side]: smooth patches of a few tones, as a face is from afar."""
    random = torch.Generator().manual_seed(seed)
    knots = torch.randint(60, 220, (n, 3, 6, 6), generator=random).float()
    return torch.nn.functional.interpolate(knots, (side, side), mode="bicubic").clamp(0, 255).byte()


def with_bar(avatars: torch.Tensor) -> torch.Tensor:
    """Avatars with dark spectacles: two lenses and what joins them."""
    worn = avatars.clone()
    worn[:, :, 26:36, 16:29] = 20
    worn[:, :, 26:36, 35:48] = 20
    worn[:, :, 28:31, 29:35] = 20
    return worn


def test_spectacles_lie_over_the_eyes_and_nowhere_else() -> None:
    photograph = np.full((152, 152, 3), 180, np.uint8)
    touched = np.zeros((152, 152), bool)
    for seed in range(40):
        drawn = spectacles(photograph, Random(seed))
        assert drawn.shape == photograph.shape and drawn.dtype == np.uint8
        changed = np.abs(drawn.astype(int) - 180).max(2) > 5
        assert changed.sum() > 40
        touched |= changed
    assert (photograph == 180).all()
    rows, columns = np.nonzero(touched)
    assert rows.min() >= 45 and rows.max() <= 105
    assert columns.min() >= 5 and columns.max() <= 147


def test_a_seed_draws_the_same_spectacles() -> None:
    photographs = faces(3)
    assert torch.equal(drawn_on(photographs, 1), drawn_on(photographs, 1))
    assert not torch.equal(drawn_on(photographs, 1), drawn_on(photographs, 2))


def test_it_learns_to_tell_wearers_in_both_domains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.glasses.SHARE", 16)
    photographs, avatars = faces(120), faces(80, 1, 64)
    worn = torch.arange(80) % 2 == 0
    avatars = torch.where(worn[:, None, None, None], with_bar(avatars), avatars)
    net = teach_glasses(photographs, avatars, worn, 0, CPU, steps=80)
    assert not net.training and not any(weight.requires_grad for weight in net.parameters())
    with torch.no_grad():
        bare, dressed = (
            net.logit(halved(x, CPU)) for x in (faces(40, 5), drawn_on(faces(40, 6), 7))
        )
        assert (dressed[:, None] > bare).float().mean() > 0.8  # of pairs
        unseen = faces(40, 8, 64)
        apart = net.logit(halved(with_bar(unseen), CPU)) - net.logit(halved(unseen, CPU))
    assert (apart > 0).float().mean() > 0.9
    assert torch.equal(wearers(net, faces(40, 5)), bare > 0)


@pytest.mark.parametrize("change", [lambda x: x * 0.4 - 0.3, lambda x: x + 0.1])
def test_light_and_contrast_change_nothing(change: object) -> None:
    net = Glasses().eval()
    x = to_unit(faces(4)) * 0.8
    with torch.no_grad():
        assert torch.allclose(net(x), net(change(x)), atol=0.02)  # type: ignore[operator]


def test_gradients_pass_to_what_is_drawn() -> None:
    x = to_unit(faces(2)).requires_grad_()
    value = Glasses().eval()(x)
    assert value.shape == (2, 1) and value.abs().max() < 1
    value.sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
