"""dlib's file format and network, on weights made here."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tests.training.small import write_resnet29
from training.resnet29 import FEATURES, SIDE, ResNet29, _integer, _tensors, load_resnet29


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_resnet29(tmp_path_factory.mktemp("dlib") / "weights.dat")


def test_packed_integers() -> None:
    assert _integer(bytes([1, 7]), 0) == (7, 2)
    assert _integer(bytes([0, 2, 0x2C, 1]), 1) == (300, 4)
    assert _integer(bytes([0x81, 5]), 0) == (-5, 2)


def test_a_convolution_takes_up_the_affine_layer_behind_it(path: Path) -> None:
    layers = dict(enumerate(_tensors(path.read_bytes())))
    convolution, affine = (torch.tensor(layers[i][1]) for i in (0, 1))
    x = torch.rand(1, 3, 20, 20)
    kernel, bias = convolution[:-32].view(32, 3, 7, 7), convolution[-32:]
    gain, shift = affine.view(2, 32, 1, 1)
    expected = F.conv2d(x, kernel, bias, 2) * gain + shift
    torch.testing.assert_close(load_resnet29(path).stem(x), expected, atol=1e-4, rtol=1e-4)


def test_a_chip_becomes_256_positive_numbers(path: Path) -> None:
    net = load_resnet29(path).eval()
    x = torch.rand(2, 3, SIDE, SIDE) * 2 - 1
    with torch.no_grad():
        features = net(x)
    assert features.shape == (2, FEATURES)
    assert (features >= 0).all()
    assert features.std() > 0


def test_a_halving_block_pads_what_is_missing() -> None:
    net = ResNet29()
    halving = net.blocks[3]
    assert halving(torch.rand(1, 32, 35, 35)).shape == (1, 64, 17, 17)


@pytest.mark.parametrize("content", [b"", b"\x01\x05con_5\x01\x02", b"nothing of the kind"])
def test_another_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.dat").write_bytes(content)
    with pytest.raises(ValueError, match="is not dlib's"):
        load_resnet29(tmp_path / "x.dat")
