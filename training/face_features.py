"""f of the photo -> emoji task: who it is, and what hair and skin look like. Frozen.

The identity part is the 256 numbers of dlib's ResNet-29, like the paper's DeepFace 256-dimensional
and trained to tell people apart. Such a network hardly looks at hair, so the shipped f joins an
appearance part: the colours of fixed windows of the aligned picture, how alike they are, and, where
a network was taught to tell, whether there are spectacles. It lets gradients through. A photograph
shows skin in the light of its place; who somebody is tells which skin to expect, so the colours of
a photograph are first corrected for its exposure. Of hair, which shines and shades itself, the
same is asked. A photograph has shadows under nose and chin, too, which drawings have not: what is
usual of them is taken off.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.glasses import Glasses
from training.networks import frozen, to_unit
from training.recognisers import EYES_DISTANCE, EYES_MIDDLE, SIDE, resampling
from training.resnet29 import EYES, FEATURES, ResNet29
from training.resnet29 import SIDE as CHIP
from training.run import autocast

# Centres of Gaussian windows in shares of the side; the eyes are at (0.365 and 0.635, 0.48).
CHEEKS = ((0.34, 0.62), (0.66, 0.62))
FOREHEAD = ((0.50, 0.30),)
TOP = ((0.50, 0.07), (0.36, 0.10), (0.64, 0.10))
SIDES = tuple((x, y) for y in (0.30, 0.48, 0.66) for x in (0.145, 0.855))
JAW = ((0.50, 0.70), (0.50, 0.90), (0.37, 0.84), (0.63, 0.84))
CORNERS = ((0.05, 0.06), (0.95, 0.06))  # left and right, as SIDES are
WINDOWS = CHEEKS + FOREHEAD + TOP + SIDES + JAW + CORNERS
RADIUS = 0.03  # standard deviation of a window
ALIKE, SHARP = 0.35, 4.0  # colours so far apart, of a range of 2, are half alike; and how sharply
COLOURS = 3 * len(WINDOWS)
SKIN = 3  # of the numbers, cheeks in RGB
HAIR = 3  # and the top of the head
PAINT = SKIN + HAIR
APPEARANCE = PAINT + len(SIDES) // 2 + len(TOP) + 1 + len(JAW)
# How a photograph is exposed is told by its skin: expected of this face by who it is, give or
# take AWAY; what lies beyond is the light's, and skin further off than BEYOND says nothing. Then
# skin is made lighter by LIFT, as a drawing without shades has it; SPREAD keeps people as far
# apart as the means of several of their photographs are, and BEND the very light from white and
# the usual from brown. All in natural logarithms; chosen in training/LOG.md.
AWAY, BEYOND, LIFT, SPREAD, BEND = 0.1, 0.45, 0.29, 1.4, 0.8
MOST = 0.9  # of a correction
DARKEST = 0.02  # skin in [0, 1] below this counts as this
# The top of a head shines or lies in the shadow of its own hair: half of what is seen there is
# believed (SEEN), half is what to expect of this face. Then hair, too, is made lighter, and
# VIVID times as colourful, as fair hair of T is; or it would lie between T's blond and T's grey.
SEEN, HAIR_LIFT, VIVID = 0.5, 0.12, 1.4
RIDGE = 0.1  # of the regressions from identity to skin and hair, in shares of the numbers' variance


class Colours(nn.Module):
    """Mean colours of WINDOWS: [B, 3, 152, 152] in [-1, 1] to [B, COLOURS]."""

    windows: Tensor

    def __init__(self) -> None:
        super().__init__()
        at = (torch.arange(SIDE) + 0.5) / SIDE
        x, y = torch.tensor(WINDOWS).T[..., None]
        across = torch.exp(-((at - x) ** 2) / (2 * RADIUS**2))
        down = torch.exp(-((at - y) ** 2) / (2 * RADIUS**2))
        windows = (down[:, :, None] * across[:, None, :]).flatten(1)
        windows /= windows.sum(1, keepdim=True)
        self.register_buffer("windows", windows.T.contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(2) @ self.windows).transpose(1, 2).flatten(1)


def appearance(colours: Tensor) -> Tensor:
    """Colour layout of a face, of its `Colours`: [B, COLOURS] to [B, APPEARANCE].

    Skin and hair in RGB; whether both sides look like the hair and unlike the background (long
    hair does) and the top like the skin (a bald head does), forehead and skin are alike (under a
    fringe they are not); how much darker lip, chin and jaw are than the skin (a beard is).
    """
    parts = [len(part) for part in (CHEEKS, FOREHEAD, TOP, SIDES, JAW, CORNERS)]
    windows = torch.split(colours.view(-1, len(WINDOWS), 3), parts, 1)
    cheeks, forehead, top, sides, jaw, corners = windows
    skin, hair = cheeks.mean(1, keepdim=True), top.mean(1, keepdim=True)
    pairs = sides.reshape(-1, len(SIDES) // 2, 2, 3)  # heights, then left and right
    long = alike(pairs, hair[:, None]) * (1 - alike(pairs, corners[:, None]))
    numbers = (
        skin.flatten(1),
        hair.flatten(1),
        long.prod(2),
        alike(top, skin),
        alike(forehead, skin),
        (jaw - skin).mean(2),
    )
    return torch.cat(numbers, 1)


def alike(a: Tensor, b: Tensor) -> Tensor:
    """Near 1 for equal colours, towards 0 for different ones, and seldom between, as in drawings:
    [..., 3] and [..., 3] to [...]."""
    return torch.sigmoid(SHARP * (1 - (a - b).square().sum(-1) / ALIKE**2))


def light(colours: Tensor) -> Tensor:
    """Natural logarithm of how light the skin is in [0, 1], of `Colours`: [B, COLOURS] to [B]."""
    skin = colours[:, : 3 * len(CHEEKS)].mean(1)
    return ((skin + 1) / 2).clamp(min=DARKEST).log()


class FaceFeatures(nn.Module):
    """f: aligned pictures [B, 3, S, S] RGB in [-1, 1] to [B, K]: photographs, S = 152, and emoji.

    K is 256, or 273 with the appearance part, which corrects the exposure of photographs, and one
    more with `glasses`. Every number has mean 0 and deviation 1 over the training photographs
    (times `weight` in the appearance part). `remove` [256, n] are orthonormal directions of the
    identity part that are set to zero.
    """

    rows: Tensor
    columns: Tensor
    mean: Tensor
    deviation: Tensor
    remove: Tensor
    skin: Tensor
    skin_mean: Tensor
    hair: Tensor
    hair_mean: Tensor
    hair_spread: Tensor
    shade: Tensor

    def __init__(
        self, net: ResNet29, appearance: bool, weight: float = 1.0, glasses: Glasses | None = None
    ) -> None:
        super().__init__()
        self.net = net
        self.colours = Colours() if appearance else None
        self.glasses = glasses if appearance else None
        step = EYES_DISTANCE * SIDE / (EYES[1][0] - EYES[0][0])
        middle = [(left + right) / 2 for left, right in zip(*EYES, strict=True)]
        for name, axis in (("columns", 0), ("rows", 1)):
            start = EYES_MIDDLE[axis] * SIDE - middle[axis] * step
            self.register_buffer(name, resampling(CHIP, start, step), persistent=False)
        width = FEATURES + (APPEARANCE if appearance else 0) + (self.glasses is not None)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        self.register_buffer("remove", torch.zeros(FEATURES, 0))
        self.register_buffer("skin", torch.zeros(FEATURES))
        self.register_buffer("skin_mean", torch.zeros(()))
        self.register_buffer("hair", torch.zeros(FEATURES, HAIR))
        self.register_buffer("hair_mean", torch.zeros(HAIR))
        self.register_buffer("hair_spread", torch.ones(()))
        self.register_buffer("shade", torch.zeros(len(JAW)))
        self.weight = weight

    @property
    def width(self) -> int:
        """K."""
        return len(self.mean)

    def raw(self, x: Tensor) -> Tensor:
        """What is read of a picture: identity [B, 256] and, where appearance counts, `Colours` and
        `Glasses`."""
        if x.shape[-1] != SIDE:
            x = F.interpolate(x, (SIDE, SIDE), mode="bilinear", align_corners=False)
        chip = self.rows @ x @ self.columns.T
        identity: Tensor = self.net(chip.contiguous(memory_format=torch.channels_last))
        if self.colours is None:
            return identity.float()
        read = [identity.float(), self.colours(x.float())]
        if self.glasses is not None:
            read.append(self.glasses(x.float()))
        return torch.cat(read, 1)

    def standardised(self, raw: Tensor, photograph: bool) -> Tensor:
        """f(x) of `raw` numbers [B, n]: [B, K]."""
        z = (self.numbers(raw, photograph) - self.mean) / self.deviation
        identity, rest = z[:, :FEATURES], z[:, FEATURES:]
        identity = identity - identity @ self.remove @ self.remove.T
        return torch.cat([identity, rest * self.weight], 1)

    def numbers(self, raw: Tensor, photograph: bool) -> Tensor:
        """f(x) before it is standardised: [B, n] to [B, K]."""
        if self.colours is None:
            return raw
        glasses = raw.shape[1] - FEATURES - COLOURS
        identity, colours, worn = torch.split(raw, [FEATURES, COLOURS, glasses], 1)
        if not photograph:
            return torch.cat([identity, appearance(colours), worn], 1)
        own, numbers = self.in_good_light(identity, colours)
        parts = [SKIN, HAIR, APPEARANCE - PAINT - len(JAW), len(JAW)]
        skin, hair, layout, jaw = torch.split(numbers, parts, 1)
        skin = exposed(skin, LIFT + (SPREAD - 1) * own - BEND * own.square())
        hair = self.own_hair(identity, hair)
        return torch.cat([identity, skin, hair, layout, jaw + self.shade, worn], 1)

    def in_good_light(self, identity: Tensor, colours: Tensor) -> tuple[Tensor, Tensor]:
        """`own_skin` [B] and `appearance` [B, APPEARANCE] of a photograph's `Colours`, exposed so
        that it shows that skin."""
        seen = light(colours) - self.skin_mean
        own = self.own_skin(identity, seen)
        return own, appearance(exposed(colours, (own - seen).clamp(-MOST, MOST)))

    def own_skin(self, identity: Tensor, seen: Tensor) -> Tensor:
        """How light the skin itself is, of identity [B, 256] and `light` over its mean [B]: [B]."""
        expected = self.scaled(identity) @ self.skin
        off = seen - expected
        believed = 1 / (1 + (off / BEYOND).square() ** 3)
        return expected + AWAY * torch.tanh(off / AWAY) * believed

    def own_hair(self, identity: Tensor, seen: Tensor) -> Tensor:
        """The colour of the hair itself, of identity [B, 256] and the top as it is seen [B, 3] in
        [-1, 1]: [B, 3]."""
        own = self.hair_mean + self.hair_spread * self.off_mean_hair(identity, seen)
        grey = own.mean(1, keepdim=True)
        vivid = grey + VIVID * (own - grey)
        return ((vivid + 1) * math.exp(HAIR_LIFT) - 1).clamp(-1, 1)

    def off_mean_hair(self, identity: Tensor, seen: Tensor) -> Tensor:
        """How hair differs from the mean, before it is spread: as `own_hair`."""
        expected = self.scaled(identity) @ self.hair
        return SEEN * (seen - self.hair_mean) + (1 - SEEN) * expected

    def scaled(self, identity: Tensor) -> Tensor:
        """Identity [B, 256] with mean 0 and deviation 1 over the training photographs."""
        return (identity - self.mean[:FEATURES]) / self.deviation[:FEATURES]

    def features(self, x: Tensor) -> Tensor:
        """f(x)."""
        return self.standardised(self.raw(x), photograph=x.shape[-1] == SIDE)

    def compared(self, fx: Tensor) -> Tensor:
        """What Eq. 8 compares of f(x) and f(G(x)): who it is, at unit length: [B, K] to [B, 256].

        So recognisers compare faces. The length of f(x) tells how far a face is from the mean one,
        and such faces are drawn best; colours differ by the light of the day.
        """
        return F.normalize(fx[:, :FEATURES])

    def fit(self, photographs: Tensor, avatars: Tensor, directions: int) -> None:
        """Learn from raw numbers of training photographs [N, n] what to expect of faces; remove
        the `directions` in which avatars [M, n] differ most from photographs as a whole.

        Such a direction tells drawings from photographs, nothing of a face: L_CONST would only
        pull G(x) towards looking like a photograph. They are found one after the other by linear
        discriminant analysis.
        """
        identity = photographs[:, :FEATURES]
        self.mean[:FEATURES] = identity.mean(0)
        self.deviation[:FEATURES] = identity.std(0).clamp(min=1e-3)
        if self.colours is not None:
            colours = photographs[:, FEATURES : FEATURES + COLOURS]
            self.fit_skin(identity, light(colours))
            self.fit_hair(identity, self.in_good_light(identity, colours)[1][:, SKIN:PAINT])
            self.fit_shade(photographs, avatars)
        numbers = self.numbers(photographs, photograph=True)
        self.mean, self.deviation = numbers.mean(0), numbers.std(0).clamp(min=1e-3)
        self.remove = self.remove[:, :0]
        for _ in range(directions):
            s, t = (
                self.standardised(raw, photograph)[:, :FEATURES]
                for raw, photograph in ((photographs, True), (avatars, False))
            )
            within = s.T.cov() + t.T.cov()
            within += 0.1 * within.diagonal().mean() * torch.eye(FEATURES, device=s.device)
            direction = torch.linalg.solve(within, t.mean(0) - s.mean(0))
            direction = direction - self.remove @ (self.remove.T @ direction)
            self.remove = torch.cat([self.remove, (direction / direction.norm())[:, None]], 1)

    def fit_shade(self, photographs: Tensor, avatars: Tensor) -> None:
        """Learn by how much lip, chin and jaw are darker in photographs: of the medians, as most
        wear no beard."""
        jaw = slice(FEATURES + APPEARANCE - len(JAW), FEATURES + APPEARANCE)
        self.shade.zero_()
        usual = [
            self.numbers(raw, photograph)[:, jaw].median(0).values
            for raw, photograph in ((photographs, True), (avatars, False))
        ]
        self.shade.copy_(usual[1] - usual[0])

    def fit_skin(self, identity: Tensor, seen: Tensor) -> None:
        """Learn which `light` to expect of whom; no label is used."""
        self.skin_mean = seen.mean(0)
        self.skin = regression(self.scaled(identity), seen - self.skin_mean)

    def fit_hair(self, identity: Tensor, seen: Tensor) -> None:
        """Learn which hair to expect of whom, and to spread what `own_hair` makes of it as widely
        as what is seen; no label is used."""
        self.hair_mean = seen.mean(0)
        self.hair = regression(self.scaled(identity), seen - self.hair_mean)
        off_mean = self.off_mean_hair(identity, seen)
        wide, narrow = (x.std(0).clamp(min=1e-3) for x in (seen, off_mean))
        self.hair_spread = (wide / narrow).mean()


def regression(z: Tensor, y: Tensor) -> Tensor:
    """Ridge regression from z [N, K] to y [N] or [N, n], both of mean 0: [K] or [K, n]."""
    ridge = RIDGE * len(z) * torch.eye(z.shape[1], device=z.device)
    weights: Tensor = torch.linalg.solve(z.T @ z + ridge, z.T @ y)
    return weights


def exposed(colours: Tensor, correction: Tensor) -> Tensor:
    """Colours [B, n] in [-1, 1] in a light stronger by the exponential of `correction` [B]."""
    return ((colours + 1) * correction.exp()[:, None] - 1).clamp(-1, 1)


def face_features(
    net: ResNet29, appearance: bool, weight: float = 1.0, glasses: bool = False
) -> FaceFeatures:
    """A frozen f; `fit` it before use, and teach it `glasses` before that."""
    return frozen(FaceFeatures(net, appearance, weight, Glasses() if glasses else None))


@torch.no_grad()
def raw_features(
    f: FaceFeatures,
    images: Tensor,
    batch: int = 64,
    alter: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """`f.raw` of uint8 pictures [N, 3, S, S], in bf16 where there is: [N, K] on f's device; of
    what `alter` makes of them, [B, 3, S, S] in [-1, 1], where it is given."""
    device = f.mean.device
    parts = []
    for chunk in torch.split(images, batch):
        x = to_unit(chunk.to(device))
        with autocast(device):
            parts.append(f.raw(x if alter is None else alter(x)))
    return torch.cat(parts)
