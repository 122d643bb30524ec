"""Likeness by group of people: does the emoji serve all alike? For the card of the model.

Groups are fifths by how light the skin is in the photograph, in whatever light that was taken,
and whom a network takes for women and men: nobody was asked. (A probe taught on avatars, as for
glasses, does not tell photographs of women from those of men: training/LOG.md.) Colours of
photographs are compared as f reads them, exposure corrected; those of emoji as anyone sees them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training import likeness
from training.face_features import PAINT, SKIN, FaceFeatures
from training.networks import to_unit
from training.resnet29 import FEATURES

FIFTHS = ("darkest", "second", "middle", "fourth", "lightest")
FEWEST = 30  # pairs that a correlation needs


@dataclass(frozen=True)
class Colour:
    """How emoji show the lightness (L*) of skin or hair of their photographs, over n pairs."""

    n: int
    apart: float | None  # mean |ΔL*|; None where there is no pair
    lighter: float | None  # mean ΔL*: above 0 where the emoji is lighter
    rho: float | None  # Spearman's; None for fewer than FEWEST pairs


@dataclass(frozen=True)
class Group:
    """Likeness of the emoji of n people."""

    n: int
    median_share: float  # rank in Table 4's search as a share of the gallery
    skin: Colour
    hair: Colour


@torch.inference_mode()
def gender_groups(man: nn.Module, photos: Tensor) -> dict[str, Tensor]:
    """Who is read as what: name to bool [N], of uint8 photographs [N, 152, 152, 3].

    `man` gives the chance of a man, [B, 1], as `recognisers.faceres_man` does.
    """
    chunks = torch.split(photos.permute(0, 3, 1, 2), 2)
    woman = torch.cat([man(to_unit(chunk)) for chunk in chunks])[:, 0].cpu() < 0.5
    return {"read as women": woman, "read as men": ~woman}


@torch.no_grad()
def as_f_reads(f: FaceFeatures, photos: Tensor) -> tuple[Tensor, Tensor]:
    """Skin and hair of uint8 photographs [N, 152, 152, 3]: L*a*b* [N, 3] each.

    Hair is NaN where `likeness.hair` says nothing of it. An f without colours reads none: then
    both are as in the photograph.
    """
    hair = likeness.hair(photos)
    if f.colours is None:
        return likeness.skin(photos), hair
    device = f.mean.device
    chunks = torch.split(photos.permute(0, 3, 1, 2), 64)
    numbers = torch.cat([f.numbers(f.raw(to_unit(x.to(device))), True).cpu() for x in chunks])
    paint = (numbers[:, FEATURES : FEATURES + PAINT] + 1) * 127.5
    skin, top = (likeness.lab(rgb) for rgb in (paint[:, :SKIN], paint[:, SKIN:]))
    return skin, top.where(~hair.isnan(), torch.nan)


def compared(photos: Tensor, drawings: Tensor) -> Colour:
    """L*a*b* [N, 3] of photographs beside those of their emoji; pairs with NaN are left out."""
    difference = drawings[:, 0] - photos[:, 0]
    difference = difference[~difference.isnan()]
    n = len(difference)
    if n == 0:
        return Colour(0, None, None, None)
    found = likeness.correlation(photos, drawings)
    return Colour(
        n,
        round(float(difference.abs().mean()), 2),
        round(float(difference.mean()), 2),
        round(found.rho, 3) if found.rho is not None and n >= FEWEST else None,
    )


def fifths(lightness: Tensor) -> dict[str, Tensor]:
    """Five groups of equal size by L* [N], dark to light: name to bool [N]."""
    order = lightness.argsort(stable=True)
    groups = {}
    for name, part in zip(FIFTHS, torch.tensor_split(order, len(FIFTHS)), strict=True):
        inside = torch.zeros(len(lightness), dtype=torch.bool)
        inside[part] = True
        if inside.any():
            low, high = float(lightness[part].min()), float(lightness[part].max())
            groups[f"skin in the photo, {name} fifth (L* {low:.0f} to {high:.0f})"] = inside
    return groups


def by_group(
    groups: Mapping[str, Tensor],
    shares: Tensor,
    skin: tuple[Tensor, Tensor],
    hair: tuple[Tensor, Tensor],
) -> dict[str, Group]:
    """Each of `groups`, bool [N], that is not empty.

    `shares` [N] are ranks as shares of the gallery; `skin` and `hair` are L*a*b* [N, 3] of
    photographs and of their emoji.
    """
    return {
        name: Group(
            int(inside.sum()),
            round(float(shares[inside].double().quantile(0.5)), 5),
            compared(*(x[inside] for x in skin)),
            compared(*(x[inside] for x in hair)),
        )
        for name, inside in groups.items()
        if inside.any()
    }
