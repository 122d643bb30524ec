"""dlib's face recognition ResNet-29 in PyTorch: the paper's DeepFace cannot be had, this one can.

The weights (`dlib_face_recognition_resnet_model_v1.dat`, CC0-1.0) ship inside the PyPI package
face-recognition-models 0.3.0. We stop at the 256 numbers before its last linear layer, which is
also the size of the paper's f.
"""

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 150  # pixels of the chip that the network was trained on
EYES = ((47.45, 44.44), (101.47, 43.96))  # of the median chip, pixels
FEATURES = 256
MEAN_RGB = (122.782, 117.001, 104.298)  # of 0..255
# Blocks of each stage: channels, and whether each block halves the picture.
STAGES = (
    (32, (False, False, False)),
    (64, (True, False, False, False)),
    (128, (True, False, False)),
    (256, (True, False, False)),
    (256, (True,)),
)
TAG = re.compile(rb"\x01[\x05-\x08]((?:con|affine|fc)_)")


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut; a halving one averages 2x2 and pads with zeros."""

    def __init__(self, inputs: int, outputs: int, halve: bool) -> None:
        super().__init__()
        self.halve = halve
        self.first = nn.Conv2d(inputs, outputs, 3, 2 if halve else 1, 0 if halve else 1)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(F.relu(self.first(x)))
        if self.halve:
            x = F.avg_pool2d(x, 2, 2)
            height, width = max(x.shape[2], y.shape[2]), max(x.shape[3], y.shape[3])
            x, y = (
                F.pad(
                    z, (0, width - z.shape[3], 0, height - z.shape[2], 0, y.shape[1] - z.shape[1])
                )
                for z in (x, y)
            )
        return F.relu(x + y)


class ResNet29(nn.Module):
    """Chips [B, 3, 150, 150] RGB in [-1, 1] to [B, 256], positive, not normalised."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 7, 2)
        blocks = []
        channels = 32
        for outputs, halvings in STAGES:
            for halve in halvings:
                blocks.append(Block(channels, outputs, halve))
                channels = outputs
        self.blocks = nn.Sequential(*blocks)
        mean = torch.tensor(MEAN_RGB).view(1, 3, 1, 1)
        self.register_buffer("mean", mean, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = ((x + 1) * 127.5 - self.mean) / 256
        x = F.max_pool2d(F.relu(self.stem(x)), 3, 2)
        return self.blocks(x).mean((2, 3))  # type: ignore[no-any-return]


def _integer(data: bytes, at: int) -> tuple[int, int]:
    """One of dlib's packed integers and where the next thing starts."""
    size, negative = data[at] & 0x0F, data[at] & 0x80
    value = int.from_bytes(data[at + 1 : at + 1 + size], "little")
    return -value if negative else value, at + 1 + size


def _tensors(data: bytes) -> list[tuple[str, npt.NDArray[np.float32]]]:
    """Kind (con, affine, fc) and parameters, flat, of each layer, last layer first."""
    found = []
    for tag in TAG.finditer(data):
        kind = tag[1].decode()[:-1]
        at = tag.start() + 2 + data[tag.start() + 1]
        for _ in range({"fc": 2}.get(kind, 0)):  # two sizes before an fc layer's tensor
            _, at = _integer(data, at)
        version, at = _integer(data, at)
        if version != 2:  # the same letters elsewhere in the file
            continue
        sizes = []
        for _ in range(4):
            size, at = _integer(data, at)
            sizes.append(size)
        count = int(np.prod(sizes))
        found.append((kind, np.frombuffer(data, "<f4", count, at)))
    return found


def load_resnet29(path: Path) -> ResNet29:
    """The network with dlib's weights, its affine layers folded into the convolutions.

    Raises FileNotFoundError where there is no such file, ValueError where it holds another
    network.
    """
    net = ResNet29()
    try:
        found = _tensors(path.read_bytes())
    except (IndexError, ValueError):  # cut off
        found = []
    layers = [(kind, values) for kind, values in found if kind != "fc"]
    kinds = [kind for kind, _ in layers]
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    if kinds != ["con", "affine"] * len(convolutions):
        raise ValueError(f"{path} is not dlib's face recognition ResNet")
    for i, convolution in enumerate(convolutions):
        weights = torch.tensor(layers[2 * i][1])
        gain, shift = torch.tensor(layers[2 * i + 1][1]).chunk(2)
        shape = convolution.weight.shape
        kernel, bias = weights[: shape.numel()].view(shape), weights[shape.numel() :]
        convolution.weight.data = kernel * gain.view(-1, 1, 1, 1)
        convolution.bias.data = bias * gain + shift  # type: ignore[union-attr]
    return net
