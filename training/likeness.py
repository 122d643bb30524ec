"""What an emoji keeps of its photograph that anyone can name: skin, hair, glasses, facial hair.

Beside Table 4, because a recogniser may find a person by what nobody sees. Colours are read
in fixed windows of aligned pictures. Glasses and facial hair of emoji are read by a linear
probe on a judge's embeddings, fitted on avatars, of which we know the truth. On photographs
such a probe stands on foreign ground: their traits were labelled by eye (`read_traits`).
"""

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor

from training.recognisers import Recogniser
from training.table4 import enlarge

Window = tuple[float, float, float, float]  # left, top, right, bottom, shares of the side
# Eyes are at (0.365, 0.48) and (0.635, 0.48): below glasses, above a moustache, beside the nose.
CHEEKS: tuple[Window, ...] = ((0.34, 0.59, 0.43, 0.66), (0.57, 0.59, 0.66, 0.66))
HAIR: tuple[Window, ...] = ((0.42, 0.10, 0.58, 0.18),)
BACKGROUND: tuple[Window, ...] = ((0.0, 0.02, 0.08, 0.2), (0.92, 0.02, 1.0, 0.2))
APART = 12.0  # least distance in L*a*b* of hair from skin and from either background
TRAITS = Path(__file__).with_name("lfw_traits.csv")
KINDS = ("glasses", "facial_hair")
Traits = Mapping[str, Tensor]  # each of KINDS to bool [N]


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of L* between photographs and emoji, over n pairs.

    None where it isn't defined: one side is all the same, or there is no pair.
    """

    rho: float | None
    n: int


@dataclass(frozen=True)
class Agreement:
    """How often the emoji shows what the photograph shows."""

    n: int
    photos_with: int
    emoji_with: int
    agree: float  # share of pairs
    kappa: float  # Cohen's: 0 is chance, 1 is perfect
    kept: float | None  # share of the photographs that have it
    invented: float | None  # share of those that don't
    probe_on_avatars: float  # balanced accuracy of the probe on avatars it was not fitted on
    probe_on_photos: float  # and on the photographs, against the labels


@dataclass(frozen=True)
class Likeness:
    """`traits` by judge, then by kind."""

    skin: Correlation
    hair: Correlation
    traits: dict[str, dict[str, Agreement]]


def lab(rgb: Tensor) -> Tensor:
    """sRGB uint8 [..., 3] to CIE L*a*b* (D65): L* in 0..100 (IEC 61966-2-1; CIE 15)."""
    x = rgb.double() / 255
    linear = torch.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    to_xyz = linear.new_tensor(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    ratio = linear @ (to_xyz / to_xyz.sum(1, keepdim=True)).T  # white is (1, 1, 1)
    low = ratio <= (6 / 29) ** 3
    root = torch.where(low, ratio * (29 / 6) ** 2 / 3 + 4 / 29, ratio ** (1 / 3))
    fx, fy, fz = root.unbind(-1)
    return torch.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], -1)


def colour(pictures: Tensor, windows: Sequence[Window]) -> Tensor:
    """The median L*a*b* over the windows together: uint8 [N, S, S, 3] to [N, 3]."""
    side = pictures.shape[1]
    parts = []
    for window in windows:
        left, top, right, bottom = (round(share * side) for share in window)
        parts.append(pictures[:, top:bottom, left:right].flatten(1, 2))
    return lab(torch.cat(parts, 1)).quantile(0.5, dim=1)


def skin(pictures: Tensor) -> Tensor:
    """The colour of the cheeks, L*a*b* [N, 3], of aligned faces uint8 [N, S, S, 3]."""
    return colour(pictures, CHEEKS)


def hair(pictures: Tensor) -> Tensor:
    """The colour of the top of the head, L*a*b* [N, 3]; NaN where it can't be told apart.

    That is where it is closer than APART to the colour in either upper corner (the background,
    or long hair) or to the skin (a bald head, which may be lighter: it shines). A hat counts
    as hair.
    """
    found = colour(pictures, HAIR)
    from_skin = found - skin(pictures)
    from_skin[:, 0].clamp_(max=0)
    from_corners = [found - colour(pictures, [window]) for window in BACKGROUND]
    apart = torch.stack([from_skin, *from_corners]).norm(dim=2).amin(0)
    return found.where(apart[:, None] >= APART, torch.nan)


def correlation(photos: Tensor, emoji: Tensor) -> Correlation:
    """Between the L* of two [N, 3], pairs with NaN left out."""
    pairs = torch.stack([photos[:, 0], emoji[:, 0]])
    pairs = pairs[:, ~pairs.isnan().any(0)]
    n = pairs.shape[1]
    if n == 0 or (pairs == pairs[:, :1]).all(1).any():
        return Correlation(None, n)
    return Correlation(float(spearmanr(*pairs.numpy()).statistic), n)


@dataclass(frozen=True)
class Probe:
    """A logistic regression on embeddings."""

    mean: Tensor
    deviation: Tensor
    weight: Tensor
    bias: Tensor

    def __call__(self, embeddings: Tensor) -> Tensor:
        """[N, D] to bool [N]."""
        return ((embeddings - self.mean) / self.deviation) @ self.weight + self.bias > 0


def fit(embeddings: Tensor, labels: Tensor, decay: float = 1e-2) -> Probe:
    """A probe for `labels`, bool [N], both classes weighing the same; `decay` weighs |w|^2.

    Raises ValueError where a class is empty.
    """
    labels = labels.to(embeddings)
    share = labels.mean()
    if share in (0, 1):
        raise ValueError("a probe needs examples of both kinds")
    mean, deviation = embeddings.mean(0), embeddings.std(0) + 1e-6
    x = (embeddings - mean) / deviation
    weight = torch.zeros(x.shape[1], requires_grad=True)
    bias = torch.zeros((), requires_grad=True)
    balance = torch.where(labels > 0, 0.5 / share, 0.5 / (1 - share))
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = F.binary_cross_entropy_with_logits(x @ weight + bias, labels, balance)
        value = value + decay * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    return Probe(mean, deviation, weight.detach(), bias.detach())


def balanced_accuracy(found: Tensor, truth: Tensor) -> float:
    """The mean of the two classes' accuracies, bool [N] each."""
    right = (found == truth).double()
    return float((right[truth].mean() + right[~truth].mean()) / 2)


def agreement(photos: Tensor, emoji: Tensor, on_avatars: float, on_photos: float) -> Agreement:
    """Between a trait of photographs and of their emoji, bool [N] each."""
    agree = float((photos == emoji).double().mean())
    p, q = float(photos.double().mean()), float(emoji.double().mean())
    chance = p * q + (1 - p) * (1 - q)
    return Agreement(
        n=len(photos),
        photos_with=int(photos.sum()),
        emoji_with=int(emoji.sum()),
        agree=agree,
        kappa=(agree - chance) / (1 - chance) if chance < 1 else 0.0,
        kept=float(emoji[photos].double().mean()) if photos.any() else None,
        invented=float(emoji[~photos].double().mean()) if not photos.all() else None,
        probe_on_avatars=on_avatars,
        probe_on_photos=on_photos,
    )


def likeness(
    photos: Tensor,
    traits: Traits,
    emoji: Tensor,
    avatars: Tensor,
    avatar_traits: Traits,
    judges: Sequence[Recogniser],
) -> Likeness:
    """All that this module measures, of photographs and their emoji, pair by pair.

    Pictures are uint8 [N, S, S, 3] of any side; `avatars` with `avatar_traits` teach the
    probes, two thirds of them, and measure them, the last third.
    """
    emoji = enlarge(emoji)
    cut = 2 * len(avatars) // 3
    by_judge: dict[str, dict[str, Agreement]] = {}
    for judge in judges:
        of_avatars = judge.embed(enlarge(avatars)).cpu().clone()
        of_photos, of_emoji = judge.embed(photos).cpu(), judge.embed(emoji).cpu()
        by_judge[judge.name] = {}
        for kind in KINDS:
            truth = avatar_traits[kind]
            probe = fit(of_avatars[:cut], truth[:cut])
            by_judge[judge.name][kind] = agreement(
                traits[kind],
                probe(of_emoji),
                balanced_accuracy(probe(of_avatars[cut:]), truth[cut:]),
                balanced_accuracy(probe(of_photos), traits[kind]),
            )
    return Likeness(
        correlation(skin(photos), skin(emoji)), correlation(hair(photos), hair(emoji)), by_judge
    )


def read_traits(files: Sequence[str], path: Path = TRAITS) -> Traits:
    """Glasses and facial hair of LFW pictures, by file name; True where seen.

    Labelled by eye, once, by one reader, on 2026-11-24, for the first picture of each held-out
    person; sunglasses are glasses, a shadow of stubble is no facial hair. Pictures are named
    by the first 16 digits of the SHA-256 of their file's name, so that the list describes
    nobody by name. Raises ValueError where a picture has no label.
    """
    with path.open(newline="") as file:
        known = {row["picture"]: row for row in csv.DictReader(file)}
    names = [hashlib.sha256(name.encode()).hexdigest()[:16] for name in files]
    missing = [name for name, digest in zip(files, names, strict=True) if digest not in known]
    if missing:
        raise ValueError(f"no traits are known of {missing[0]} and {len(missing) - 1} others")
    return {kind: torch.tensor([known[name][kind] == "1" for name in names]) for kind in KINDS}


def write(measured: Likeness, folder: Path) -> Path:
    """`measured` as likeness.json in the run's `folder`."""
    path = folder / "likeness.json"
    path.write_text(json.dumps(asdict(measured), indent=2) + "\n")
    return path


def show(path: Path) -> str:
    """The figures in the JSON file `path` as text."""
    measured: dict[str, Any] = json.loads(path.read_text())
    lines = []
    for name in ("skin", "hair"):
        rho = measured[name]["rho"]
        shown = "undefined" if rho is None else f"{rho:.3f}"
        lines.append(f"{name}: rho of L* {shown} over {measured[name]['n']} pairs")
    lines.append(
        f"{'judge':<14} {'trait':<12} {'photos':>6} {'emoji':>6} {'agree':>6} {'kappa':>6}"
        f" {'kept':>6} {'invented':>8}   probe: avatars, photos"
    )
    for judge, kinds in measured["traits"].items():
        for kind, found in kinds.items():
            kept, invented = (
                "-" if found[key] is None else f"{found[key]:.1%}" for key in ("kept", "invented")
            )
            lines.append(
                f"{judge:<14} {kind:<12} {found['photos_with']:>6} {found['emoji_with']:>6}"
                f" {found['agree']:>6.1%} {found['kappa']:>6.2f} {kept:>6} {invented:>8}"
                f"   {found['probe_on_avatars']:>14.1%}, {found['probe_on_photos']:.1%}"
            )
    return "\n".join(lines)
