"""g and D of faces: what goes in and out."""

import pytest
import torch

from training.face_networks import face_discriminator, face_generator


def test_g_draws_64_pixels_in_range() -> None:
    y = face_generator(20, 16)(torch.randn(2, 20))
    assert y.shape == (2, 3, 64, 64)
    assert y.abs().max() <= 1


@pytest.mark.parametrize("side", [64, 152])
def test_d_tells_three_kinds(side: int) -> None:
    D = face_discriminator(side, 16)
    assert D(torch.rand(2, 3, 64, 64)).shape == (2, 3)
    strides = [m.stride for m in D.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(strides) == {64: 5, 152: 6}[side]
