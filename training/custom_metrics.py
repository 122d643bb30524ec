"""Figures of a custom run, on pictures that nothing learned from; each is counted once."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training.custom import Trained
from training.custom_f import read_all
from training.loop import transfer

Metric = dict[str, Any]
# What a figure is, for people; the report and the card have them in this order.
ROWS = {
    "f_distance_mean": "mean ‖f(x) − f(G(x))‖ (Eq. 8)",
    "f_distance_unrelated": "the same to G of another picture: what a loss of all would give",
    "f_distance_lookup": "the same to the nearest picture of t instead of G(x)",
    "class_agreement": "f reads G(x) as the class it reads x as",
    "class_agreement_lookup": "the same of the nearest picture of t",
    "label_agreement": "f reads G(x) as x's label",
    "f_accuracy": "f reads x as its label",
    "identity_error": "mean difference of G(t) and t, grey levels of 255",
    "two_sample": "1-NN tells G(s) from t by f (50 % is alike)",
    "two_sample_before": "1-NN tells s from t by f",
    "copy_distance": "from G(x) to the nearest t that g learned from, RMS grey levels",
    "copy_distance_of_t": "the same from a held-out t; G(x) much nearer than this would be copied",
}
SHARES = {
    "class_agreement", "class_agreement_lookup", "label_agreement", "f_accuracy", "two_sample",
    "two_sample_before",
}  # fmt: skip


def shown(name: str, value: float) -> str:
    """A figure as people read it."""
    return f"{value:.1%}" if name in SHARES else f"{value:.3g}"


@dataclass(frozen=True)
class Drawn:
    """Held-out pictures and what became of them, uint8 on the CPU; rows belong together."""

    s: Tensor  # [N, 3, S, S]
    gs: Tensor  # G(s), [N, C, S, S]
    lookup: Tensor  # the nearest of t by f(s)
    copied: Tensor  # the nearest of t to G(s), in pixels
    t: Tensor  # [M, C, S, S]
    gt: Tensor


def nearest(x: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    """Of vectors [N, K] and [M, K]: Euclidean distance [N] to the nearest, and which [N]."""
    best = [torch.cdist(chunk, among).min(1) for chunk in torch.split(x, 256)]
    return torch.cat([b.values for b in best]), torch.cat([b.indices for b in best])


def two_sample(x: Tensor, y: Tensor) -> float:
    """Leave-one-out accuracy of 1-NN that tells vectors x [N, K] from y [M, K] (Lopez-Paz and
    Oquab 2017): 0.5 where they are alike, 1 where each has only its own around it."""
    n = min(len(x), len(y))
    both = torch.cat([x[:n], y[:n]])
    distance = torch.cdist(both, both)
    distance.fill_diagonal_(torch.inf)
    own = torch.arange(2 * n, device=both.device) < n
    return float((own[distance.argmin(1)] == own).float().mean())


@torch.no_grad()
def measure(trained: Trained) -> tuple[dict[str, Metric], Drawn]:
    """Every figure with its split's name and size, and the pictures that they are of."""
    f, g, pictures = trained.f, trained.g, trained.pictures
    device = f.deviation.device
    s, t, t_learned = (
        part.images.to(device) for part in (pictures.held_s, pictures.held_t, pictures.t)
    )
    gs, gt = transfer(trained.start, g, s), transfer(f, g, t)
    raw_s, logits_s = read_all(f, s)
    raw_gs, logits_gs = read_all(f, gs)
    fs = (raw_s - f.mean_s) / f.deviation
    fgs, ft, ft_learned = (
        (raw - f.mean_t) / f.deviation
        for raw in (raw_gs, read_all(f, t)[0], read_all(f, t_learned)[0])
    )
    away, which = nearest(fs, ft_learned)
    flat = [x.flatten(1).float() for x in (gs, t, t_learned)]
    (copy, copied), (copy_t, _) = nearest(flat[0], flat[2]), nearest(flat[1], flat[2])
    root = flat[0].shape[1] ** 0.5
    of_s: dict[str, float] = {
        "f_distance_mean": float((fs - fgs).norm(dim=1).mean()),
        "f_distance_unrelated": float((fs - fgs.roll(1, 0)).norm(dim=1).mean()),
        "f_distance_lookup": float(away.mean()),
        "two_sample": two_sample(fgs, ft),
        "two_sample_before": two_sample((raw_s - f.mean_t) / f.deviation, ft),
        "copy_distance": float(copy.mean()) / root,
    }
    if logits_s is not None and logits_gs is not None:
        read = logits_s.argmax(1)
        looked = read_all(f, t_learned[which])[1]
        of_s["class_agreement"] = float((logits_gs.argmax(1) == read).float().mean())
        if looked is not None:
            of_s["class_agreement_lookup"] = float((looked.argmax(1) == read).float().mean())
        if pictures.held_s.labels is not None:
            labels = pictures.held_s.labels.to(device)
            of_s["label_agreement"] = float((logits_gs.argmax(1) == labels).float().mean())
            of_s["f_accuracy"] = float((read == labels).float().mean())
    of_t = {
        "identity_error": float((gt.float() - t.float()).abs().mean()),
        "copy_distance_of_t": float(copy_t.mean()) / root,
    }
    metrics = {
        name: {"value": round(values[name], 5), "split": split, "n": n}
        for name in ROWS
        for values, split, n in ((of_s, "s held out", len(s)), (of_t, "t held out", len(t)))
        if name in values
    }
    drawn = (s, gs, t_learned[which], t_learned[copied], t, gt)
    return metrics, Drawn(*(x.cpu() for x in drawn))
