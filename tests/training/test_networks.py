import pytest
import torch
from torch import nn

from training.networks import DigitNet, discriminator, frozen, generator, initialise, to_unit


def test_f_has_the_paper_s_widths_and_a_representation_of_128() -> None:
    f = DigitNet().eval()
    widths = [layer.out_channels for layer in f.body if isinstance(layer, nn.Conv2d)]
    pools = [layer.kernel_size for layer in f.body if isinstance(layer, nn.MaxPool2d)]
    assert widths == [64, 128, 256, 128]
    assert pools == [2, 2, 2, 4]
    assert f.features(torch.rand(2, 3, 32, 32) * 2 - 1).shape == (2, 128)


def test_f_is_taken_before_the_last_relu() -> None:
    f = DigitNet().eval()
    assert (f.features(torch.rand(8, 3, 32, 32) * 2 - 1) < 0).any()


def test_a_grey_picture_is_repeated_three_times() -> None:
    f = DigitNet().eval()
    grey = torch.rand(2, 1, 32, 32) * 2 - 1
    torch.testing.assert_close(f.features(grey), f.features(grey.repeat(1, 3, 1, 1)))


def test_a_standardised_input_makes_f_blind_to_light_and_contrast() -> None:
    f = DigitNet(standardise=True).eval()
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(f.features(x), f.features(x * 0.5 - 0.3), atol=1e-3, rtol=1e-3)
    plain = DigitNet(standardise=False).eval()
    assert not torch.allclose(plain.features(x), plain.features(x * 0.5 - 0.3), atol=1e-3)


def test_g_draws_grey_pictures_in_range() -> None:
    g = initialise(generator(8)).eval()
    y = g(50 * torch.randn(3, 128))
    assert y.shape == (3, 1, 32, 32)
    assert y.abs().max() <= 1
    assert sum(isinstance(layer, nn.ConvTranspose2d) for layer in g) == 4


@pytest.mark.parametrize("spectral", [False, True])
def test_d_is_ternary(spectral: bool) -> None:
    d = discriminator(8, spectral)
    assert d(torch.rand(2, 1, 32, 32)).shape == (2, 3)
    norms = sum(isinstance(layer, nn.BatchNorm2d) for layer in d)
    assert norms == (0 if spectral else 3)


def test_frozen_lets_gradients_through_and_keeps_its_own_weights() -> None:
    f = frozen(DigitNet())
    x = (torch.rand(1, 3, 32, 32) * 2 - 1).requires_grad_()
    f.features(x).sum().backward()
    assert not f.training
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in f.parameters())


def test_to_unit_maps_bytes_to_the_one_range() -> None:
    x = to_unit(torch.tensor([[[[0, 255]]]], dtype=torch.uint8))
    assert x.flatten().tolist() == [-1.0, 1.0]
