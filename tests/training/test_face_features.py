"""f of faces: what it reads, that it is frozen, that gradients pass."""

import pytest
import torch

from tests.training.small import write_resnet29
from training.face_features import (
    APPEARANCE,
    SIDES,
    Appearance,
    FaceFeatures,
    alike,
    face_features,
    raw_features,
)
from training.resnet29 import FEATURES, ResNet29, load_resnet29

SKIN, HAIR = (0.5, 0.2, 0.0), (-0.6, -0.7, -0.8)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> ResNet29:
    return load_resnet29(write_resnet29(tmp_path_factory.mktemp("dlib") / "weights.dat"))


def face(long_hair: bool = False, bald: bool = False, beard: bool = False) -> torch.Tensor:
    """[1, 3, 152, 152]: skin in the middle, hair on top, white around."""
    x = torch.ones(1, 3, 152, 152)
    skin, hair = (torch.tensor(colour).view(3, 1, 1) for colour in (SKIN, HAIR))
    x[0, :, 30:, 38:114] = skin
    x[0, :, :30, 38:114] = skin if bald else hair
    if long_hair:
        x[0, :, 30:, :38] = x[0, :, 30:, 114:] = hair
    if beard:
        x[0, :, 100:, 38:114] = hair
    return x


def test_colours_of_skin_and_hair_are_read() -> None:
    numbers = Appearance()(face())[0]
    assert len(numbers) == APPEARANCE
    torch.testing.assert_close(numbers[:3], torch.tensor(SKIN), atol=0.02, rtol=0)
    torch.testing.assert_close(numbers[6:9], torch.tensor(HAIR), atol=0.05, rtol=0)


def test_long_hair_a_bald_head_and_a_beard_are_told() -> None:
    read = Appearance()
    short, long, bald, beard = (
        read(x)[0] for x in (face(), face(long_hair=True), face(bald=True), face(beard=True))
    )
    sides, top = slice(9, 9 + len(SIDES)), slice(9 + len(SIDES), 12 + len(SIDES))
    assert (short[sides] < 0.1).all()
    assert (long[sides] > 0.9).all()
    assert (short[top] < 0.1).all()
    assert (bald[top] > 0.9).all()
    assert (beard[-3:] < short[-3:] - 0.5).all()


def test_alike_is_one_for_the_same_colour() -> None:
    a = torch.zeros(1, 1, 3)
    assert alike(a, a).item() == 1
    assert alike(a, a + 0.3).item() == pytest.approx(torch.exp(torch.tensor(-1.5)).item())


def test_an_emoji_is_read_as_the_photograph_it_was_shrunk_from(net: ResNet29) -> None:
    f = face_features(net, appearance=True)
    smooth = torch.nn.functional.interpolate(torch.rand(2, 3, 6, 6), (152, 152), mode="bicubic")
    small = torch.nn.functional.interpolate(smooth, (64, 64), mode="area")
    large, reduced = f.features(smooth), f.features(small)
    assert (large - reduced).norm() < 0.1 * large.std(0).norm() * len(large[0]) ** 0.5


def test_fitted_numbers_are_standardised_and_the_domain_is_gone(net: ResNet29) -> None:
    f = FaceFeatures(net, appearance=True, weight=3.0)
    random = torch.Generator().manual_seed(0)
    s = torch.randn(2000, f.width, generator=random) * 2 + 5
    t = torch.randn(2000, f.width, generator=random) * 2 + 5
    t[:, 7] += 8
    f.fit(s, t, directions=2)
    zs, zt = f.standardised(s), f.standardised(t)
    torch.testing.assert_close(zs.mean(0), torch.zeros(f.width), atol=1e-3, rtol=0)
    assert zs[:, FEATURES:].std(0).mean().item() == pytest.approx(3, abs=0.01)
    assert (zt.mean(0)[:FEATURES] - zs.mean(0)[:FEATURES]).norm() < 0.5  # it was 4
    torch.testing.assert_close(f.remove.T @ f.remove, torch.eye(2), atol=1e-4, rtol=0)


def test_gradients_pass_through_a_frozen_f(net: ResNet29) -> None:
    f = face_features(net, appearance=True)
    x = torch.rand(1, 3, 64, 64, requires_grad=True)
    f.features(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert not f.training
    assert all(not weight.requires_grad and weight.grad is None for weight in f.parameters())


def test_raw_features_of_bytes_are_those_of_f(net: ResNet29) -> None:
    f = face_features(net, appearance=False)
    images = torch.randint(0, 256, (5, 3, 152, 152), dtype=torch.uint8)
    raw = raw_features(f, images, batch=2)
    assert raw.shape == (5, FEATURES)
    exact = f.raw(images.float() / 127.5 - 1)
    assert (raw - exact).abs().mean() < 0.02 * exact.std()
