"""g and D of the photo -> emoji task, Sec. 5.2. Pictures are float tensors in [-1, 1]."""

from itertools import pairwise

from torch import nn

SIDE = 64  # pixels of an emoji


def face_generator(
    features: int, width: int = 64, side: int = SIDE, channels: int = 3
) -> nn.Sequential:
    """g: features [B, K] to a picture [B, channels, side, side], by default an emoji.

    Five blocks (four at 32 pixels, six at 128) of an upscaling convolution, batch normalisation
    and ReLU, each followed by a 1x1 convolution; tanh at the end. The last 1x1 looks at 3x3, so
    that outlines come out clean.
    """
    widths = [5 * width, 3 * width, 2 * width, width, width // 2, width // 4]
    widths = widths[: (side // 4).bit_length()]
    layers: list[nn.Module] = [
        nn.Unflatten(1, (features, 1, 1)),
        nn.ConvTranspose2d(features, widths[0], 4, 1, 0, bias=False),  # 4x4
        nn.BatchNorm2d(widths[0]),
        nn.ReLU(),
    ]
    for inputs, outputs in pairwise(widths):  # 8x8, 16x16, 32x32 ...
        layers += [
            nn.Conv2d(inputs, inputs, 1, bias=False),
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], channels, 3, 1, 1), nn.Tanh())


def face_discriminator(
    side: int, width: int = 32, picture: int = SIDE, channels: int = 3
) -> nn.Sequential:
    """D: pictures [B, channels, picture, picture] to logits [B, 3] of the classes of Eq. 3, as it
    sees them at `side` pixels.

    Blocks of a convolution with stride 2, batch normalisation and a leaky ReLU of 0.2 down to at
    most 4x4; at the paper's side of 152 they are six with the last one.
    """
    layers: list[nn.Module] = []
    if side != picture:
        layers.append(nn.Upsample((side, side), mode="bilinear"))
    inputs, outputs = channels, width
    while side > 4:
        layers += [nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False)]
        if inputs != channels:
            layers.append(nn.BatchNorm2d(outputs))
        layers.append(nn.LeakyReLU(0.2))
        inputs, outputs, side = outputs, min(2 * outputs, 8 * width), side // 2
    return nn.Sequential(*layers, nn.Conv2d(inputs, 3, side), nn.Flatten())
