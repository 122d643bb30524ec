"""The networks of Sec. 5.1: f (and the judge, built alike), g, and the ternary D.

Pictures are float tensors in [-1, 1], shape [B, C, 32, 32]; a grey picture (C = 1) is
repeated three times before f, as in the paper.
"""

from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

SIDE = 32
F_WIDTHS = (64, 128, 256, 128)
FEATURES = F_WIDTHS[-1]
Net = TypeVar("Net", bound=nn.Module)


class DigitNet(nn.Module):
    """The digit network of Sec. 5.1: convolutions 64, 128, 256, 128, each pooled, and ReLU.

    `features` is the paper's f: 128 numbers, after the last 4x4 max pool and before its
    ReLU. The kernels (5x5 first, then 3x3), the batch normalisation, which an exported
    graph folds into the convolutions, and the standardised input are our choices. A larger `side`
    is halved by further convolutions in front.
    """

    def __init__(
        self, standardise: bool = True, dropout: float = 0.0, classes: int = 10, side: int = SIDE
    ) -> None:
        super().__init__()
        self.standardise = standardise
        layers: list[nn.Module] = []
        previous = 3
        halved = [(F_WIDTHS[0] // 2, 3, 2)] * (side // SIDE).bit_length()
        stages = [*halved[1:], *zip(F_WIDTHS, (5, 3, 3, 3), (2, 2, 2, 4), strict=True)]
        for width, kernel, pool in stages:
            layers += [
                nn.Conv2d(previous, width, kernel, padding=kernel // 2, bias=False),
                nn.BatchNorm2d(width),
                nn.MaxPool2d(pool),
                nn.ReLU(),
            ]
            previous = width
        self.body = nn.Sequential(*layers[:-1])  # the last ReLU belongs to the head
        self.head = nn.Sequential(nn.ReLU(), nn.Dropout(dropout), nn.Linear(previous, classes))

    def features(self, x: Tensor) -> Tensor:
        """f(x): [B, 1 or 3, side, side] in [-1, 1] to [B, 128]."""
        x = x.expand(-1, 3, -1, -1)
        if self.standardise:  # each picture to mean 0, deviation 1: light and contrast go
            mean = x.mean((1, 2, 3), keepdim=True)
            deviation = (x - mean).square().mean((1, 2, 3), keepdim=True).add(1e-4).sqrt()
            x = (x - mean) / deviation
        return cast(Tensor, self.body(x).flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the ten digits, or of other classes: [B, classes]."""
        return cast(Tensor, self.head(self.features(x)))


def encoder(width: int = 64) -> nn.Sequential:
    """What stands below g where G does not contain f (Table 1).

    [B, 3, 32, 32] to [B, 128]; "a few additional layers" in the paper, here D's, wider.
    """
    layers: list[nn.Module] = []
    previous = 3
    for outputs in (width, 2 * width, 4 * width):  # 16x16, 8x8, 4x4
        layers += [
            nn.Conv2d(previous, outputs, 4, 2, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
        previous = outputs
    return nn.Sequential(*layers, nn.Conv2d(previous, FEATURES, 4), nn.Flatten())


def generator(width: int = 64, channels: int = 1) -> nn.Sequential:
    """g: features [B, 128] to a picture [B, channels, 32, 32] in [-1, 1], grey by default.

    Four deconvolutions, with batch normalisation and ReLU between them and tanh at the
    end (Sec. 5.1; layout of Radford et al. 2015).
    """

    def block(inputs: int, outputs: int, stride: int, padding: int) -> list[nn.Module]:
        return [
            nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]

    return nn.Sequential(
        nn.Unflatten(1, (FEATURES, 1, 1)),
        *block(FEATURES, 4 * width, 1, 0),  # 4x4
        *block(4 * width, 2 * width, 2, 1),  # 8x8
        *block(2 * width, width, 2, 1),  # 16x16
        nn.ConvTranspose2d(width, channels, 4, 2, 1),  # 32x32
        nn.Tanh(),
    )


def discriminator(width: int = 64, spectral: bool = False, channels: int = 1) -> nn.Sequential:
    """D: a picture [B, channels, 32, 32] to logits [B, 3] of the classes of Eq. 3.

    Class 0 is the paper's 1, G(s); 1 is its 2, G(t); 2 is its 3, a real t. Four
    convolutions with batch normalisation and ReLU; `spectral` puts spectral normalisation
    (Miyato et al. 2018) in place of batch normalisation.
    """

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        if spectral:
            convolution = nn.Conv2d(inputs, outputs, 4, 2, 1)
            return [nn.utils.parametrizations.spectral_norm(convolution), nn.ReLU()]
        convolution = nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False)
        return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *block(channels, width),  # 16x16
        *block(width, 2 * width),  # 8x8
        *block(2 * width, 4 * width),  # 4x4
        nn.Conv2d(4 * width, 3, 4),  # 1x1
        nn.Flatten(),
    )


def placed(net: Net, device: torch.device) -> Net:
    """`net` on `device`, its convolutions in the memory layout that is fastest there."""
    return cast(Net, cast(Any, net).to(device, memory_format=torch.channels_last))


def initialise(net: Net) -> Net:
    """Weights of convolutions from N(0, 0.02), as in Radford et al. 2015; returns `net`."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
    return net


def frozen(net: Net) -> Net:
    """`net` in eval mode, no parameter of it learning; gradients still pass through it."""
    net.eval().requires_grad_(False)
    return net


@torch.no_grad()
def to_unit(pictures: Tensor) -> Tensor:
    """uint8 [B, C, H, W] in 0..255 to float32 in [-1, 1], the one value range of training."""
    return pictures.float().div_(127.5).sub_(1.0)
