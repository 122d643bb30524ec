"""Whether a face wears spectacles, read without a label on any photograph.

Networks that tell people apart hardly look at them: a reading of dlib's that is taught on avatars
finds them in photographs little better than chance. So a small network looks at the band of the
eyes. It learns from avatars, whose spectacles are known, and from photographs as they are and with
spectacles drawn on. Some wear them as they are: those that it takes for wearers after a third of
its steps are no longer examples of bare faces.
"""

import math
from random import Random

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor, nn
from tqdm import tqdm

from training.augment import augment
from training.config import Augment
from training.networks import frozen, to_unit
from training.recognisers import SIDE

ROWS, COLUMNS = slice(25, 51), slice(7, 69)  # of 76, half the side: the band of the eyes
WIDTHS = (24, 32, 48, 64)  # channels
SURE = 4.0  # of the logit's range, that is still told apart

STEPS = 1500
SHARE = 40  # bare photographs of a batch; as many with spectacles drawn on, as many avatars
PHOTOGRAPHS = 7000  # of s at most
RATE, DECAY, SMOOTHING = 2e-3, 0.05, 0.05
SEEN = Augment(  # how differently faces lie, and cameras see
    rotate=5,
    shear=0.03,
    scale=1.06,
    stretch=0.03,
    shift=2.5,
    elastic=0,
    thicken=0,
    neighbours=0,
    blur=0.8,
    invert=0,
    contrast=0.8,
    tint=0.1,
    brightness=0.15,
    cutout=0,
    noise=0.05,
)

FINE = 3  # times finer than the photograph are spectacles drawn
FRAMES = (
    (20, 18, 18),
    (35, 25, 20),
    (60, 40, 25),
    (90, 85, 80),
    (150, 140, 120),
    (110, 90, 50),
    (170, 170, 175),
    (70, 20, 20),
    (30, 30, 60),
)


class Glasses(nn.Module):
    """Aligned pictures [B, 3, 152, 152] in [-1, 1] to [B, 1] in (-1, 1): -1 bare, 1 spectacles."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width in WIDTHS:
            stride = 1 if before == 3 else 2
            layers += [nn.Conv2d(before, width, 3, stride, 1), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        self.body = nn.Sequential(*layers, nn.AvgPool2d(2), nn.Flatten(), nn.Dropout(0.3))
        self.head = nn.Linear(8 * before, 1)

    def logit(self, half: Tensor) -> Tensor:
        """[B] of pictures of half their size, [B, 3, 76, 76], in any light and contrast."""
        band = half[:, :, ROWS, COLUMNS]
        band = band - band.mean((1, 2, 3), keepdim=True)
        band = band / (band.square().mean((1, 2, 3), keepdim=True) + 1e-3).sqrt()
        logit: Tensor = self.head(self.body(band))[:, 0]
        return logit

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.logit(F.avg_pool2d(x, 2)) / SURE)[:, None]


def spectacles(photograph: npt.NDArray[np.uint8], rng: Random) -> npt.NDArray[np.uint8]:
    """An aligned photograph uint8 [152, 152, 3] with spectacles drawn on: round or square, with a
    whole rim, half of one or none, clear or dark, thin or thick, straight or a little tilted."""
    side = SIDE * FINE
    layer = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    kind = rng.random()
    dark, half, rimless = kind < 0.15, 0.15 <= kind < 0.3, 0.3 <= kind < 0.42
    width, apart = rng.uniform(13, 20), rng.uniform(19.5, 22)  # half a lens; of its middle
    height = width * rng.uniform(0.5, 0.9)
    x, y = SIDE / 2 + rng.uniform(-1.5, 1.5), 0.48 * SIDE + rng.uniform(-2, 6)
    thin = rimless or rng.random() < 0.35
    line = max(1, int(FINE * (rng.uniform(0.4, 0.9) if thin else rng.uniform(0.8, 3.2))))
    tone = [min(255, max(0, value + rng.randint(-15, 15))) for value in rng.choice(FRAMES)]
    colour = (*tone, int(255 * rng.uniform(0.65, 1)))
    grey = rng.randint(0, 60) if dark else rng.randint(150, 255)
    lens = (grey, grey, grey, int(255 * (rng.uniform(0.6, 0.97) if dark else rng.uniform(0, 0.14))))
    square, corner = rng.random() < 0.5, rng.uniform(0.25, 0.6) * height
    rim = None if half or (rimless and rng.random() < 0.5) else colour
    for sign in (-1, 1):
        middle = x + sign * apart
        box = [FINE * place for place in (middle - width, y - height, middle + width, y + height)]
        if square:
            draw.rounded_rectangle(box, corner * FINE, lens, rim, line)
        else:
            draw.ellipse(box, lens, rim, line)
        if half:
            draw.arc(box, 180 + rng.uniform(0, 15), 360 - rng.uniform(0, 15), colour, line)
        if rng.random() < 0.85:  # the side
            start = FINE * (middle + sign * width), FINE * (y - height * rng.uniform(0.1, 0.6))
            out = width + rng.uniform(6, 16)
            end = FINE * (middle + sign * out), FINE * (y - rng.uniform(0, 5))
            draw.line([start, end], colour, max(1, int(line * rng.uniform(0.7, 1.3))))
        if rng.random() < 0.3:  # a lamp's reflection
            across = middle + rng.uniform(-0.6, 0.6) * width
            down, size = y + rng.uniform(-0.6, 0.5) * height, rng.uniform(1, 5)
            white = (255, 255, 255, int(255 * rng.uniform(0.3, 0.9)))
            corners = (across - size, down - 0.6 * size, across + size, down + 0.6 * size)
            draw.ellipse([FINE * place for place in corners], white)
    gap, top = max(apart - width, 2.0) + 1, y - height * rng.uniform(0, 0.55)
    bridge = (x - gap, top - rng.uniform(1, 4), x + gap, top + rng.uniform(2, 5))
    draw.arc([FINE * place for place in bridge], 180, 360, colour, line)
    turned = layer.rotate(rng.uniform(-5, 5), Image.Resampling.BICUBIC, center=(side / 2, side / 2))
    small = turned.resize((SIDE, SIDE), Image.Resampling.BOX)
    if rng.random() < 0.6:
        small = small.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 1.1)))
    picture = Image.fromarray(photograph).convert("RGBA")
    picture.alpha_composite(small)
    return np.asarray(picture.convert("RGB"))


def drawn_on(photographs: Tensor, seed: int) -> Tensor:
    """uint8 [N, 3, 152, 152], all with spectacles."""
    rng = Random(seed)  # noqa: S311
    worn = torch.empty_like(photographs)
    for i, photograph in enumerate(tqdm(photographs, "drawing spectacles", leave=False)):
        picture = spectacles(photograph.permute(1, 2, 0).numpy(), rng)
        worn[i] = torch.from_numpy(picture.copy()).permute(2, 0, 1)
    return worn


def halved(pictures: Tensor, device: torch.device) -> Tensor:
    """Photographs uint8 [N, 3, 152, 152], or avatars [N, 3, 64, 64] enlarged to that as f sees
    them, at half the side: [N, 3, 76, 76] in [-1, 1]."""
    x = to_unit(pictures.to(device))
    if x.shape[-1] != SIDE:
        x = F.interpolate(x, (SIDE, SIDE), mode="bilinear", align_corners=False)
    return F.avg_pool2d(x, 2)


@torch.no_grad()
def wearers(net: Glasses, photographs: Tensor) -> Tensor:
    """Which of uint8 [N, 3, 152, 152] `net`, in eval mode, takes for wearers: bool [N]."""
    device = net.head.weight.device
    parts = [net.logit(halved(part, device)) > 0 for part in torch.split(photographs, 500)]
    return torch.cat(parts).cpu()


def teach_glasses(
    photographs: Tensor,
    avatars: Tensor,
    worn: Tensor,
    seed: int,
    device: torch.device,
    steps: int = STEPS,
) -> Glasses:
    """A network that has learned from photographs uint8 [N, 3, 152, 152], of whom it is not known
    who wears spectacles, and avatars uint8 [M, 3, 64, 64], of which `worn` [M] do. Frozen."""
    torch.manual_seed(seed)
    draw = torch.Generator().manual_seed(seed)
    random = torch.Generator(device).manual_seed(seed)
    photographs = photographs[torch.randperm(len(photographs), generator=draw)[:PHOTOGRAPHS]]
    dressed = drawn_on(photographs, seed)
    net = Glasses().to(device)
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=DECAY)
    bare = torch.ones(len(photographs))
    net.train()
    for step in tqdm(range(steps), "glasses", leave=False):
        if step and step % max(1, steps // 3) == 0:
            taken = wearers(net.eval(), photographs)
            bare = (~taken).float() if not taken.all() else bare
            net.train()
        i = torch.multinomial(bare, SHARE, replacement=True, generator=draw)
        j = torch.randint(len(dressed), (SHARE,), generator=draw)
        k = torch.randint(len(avatars), (SHARE,), generator=draw)
        seen = halved(torch.cat([photographs[i], dressed[j]]), device)
        x = torch.cat([seen, halved(avatars[k], device)])
        flipped = torch.rand(len(x), 1, 1, 1, generator=random, device=device) < 0.5
        x = augment(torch.where(flipped, x.flip(3), x), SEEN, random)
        truth = torch.cat([torch.zeros(SHARE), torch.ones(SHARE), worn[k].float()]).to(device)
        truth = truth * (1 - SMOOTHING) + SMOOTHING / 2
        rate = RATE * min(1.0, (step + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        optimizer.param_groups[0]["lr"] = rate
        loss = F.binary_cross_entropy_with_logits(net.logit(x), truth)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return frozen(net)
