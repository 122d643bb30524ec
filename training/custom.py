"""Your own two domains: from two folders of pictures and an f to a trained g."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.config import CustomConfig
from training.custom_data import (
    Part,
    colours,
    digest,
    find_pictures,
    held_out,
    read_pictures,
    require_apart,
)
from training.custom_f import (
    FACES,
    LABELLED,
    CustomF,
    OfSource,
    load_net,
    read_all,
    standard,
    strong,
    views,
)
from training.dtn import DTN
from training.face_networks import face_discriminator, face_generator
from training.loop import Domains, train_dtn
from training.run import Run, seeded

PRESET = "custom"
MOST_BATCH = {32: 64, 64: 32, 128: 16}  # pictures of s in a step, by side
MOST_STEPS = {32: 4000, 64: 8000, 128: 12_000}
FEWEST_STEPS = 1500
EPOCHS = 20  # of the smaller folder
F_STEPS = 1500  # of a labelled f
VIEWS = 4  # of s, where f was taught on it
UNEVEN = 4.0  # how much more often than evenly a class of s is drawn at most
PREVIEW = 64  # pictures of the grids drawn as it goes


@dataclass(frozen=True)
class Pictures:
    """Both folders, of which the parts held out take no part in any learning."""

    s: Part
    t: Part
    held_s: Part
    held_t: Part
    classes: list[str]

    @property
    def sizes(self) -> dict[str, int]:
        return {
            "s": len(self.s),
            "t": len(self.t),
            "s held out": len(self.held_s),
            "t held out": len(self.held_t),
        }


@dataclass(frozen=True)
class Trained:
    """The networks of a custom run, frozen, and the pictures."""

    f: CustomF
    g: nn.Sequential
    pictures: Pictures

    @property
    def start(self) -> OfSource:
        """What g is applied to."""
        return OfSource(self.f)


def settled(source: Path, target: Path, f: str, side: int, **given: Any) -> CustomConfig:
    """The configuration of a run, with what is not `given` chosen by what the folders hold.

    Raises FileNotFoundError or ValueError where they cannot be learned from.
    """
    require_apart(source, target)
    labelled = f == LABELLED
    s, t = find_pictures(source, labelled), find_pictures(target)
    fit = given.get("fit") or "crop"
    grey = colours(read_pictures(dataclasses.replace(t, files=t.files[::7][:200]), 32, fit).images)
    fewer = min(len(s.files), len(t.files))
    batch = given.get("batch") or min(MOST_BATCH[side], 1 << (fewer // 8).bit_length() - 1)
    if batch > (1 - 0.1) * fewer:
        raise ValueError(f"a batch of {batch} is more than the pictures to learn from")
    steps = min(MOST_STEPS[side], max(FEWEST_STEPS, EPOCHS * fewer // batch))
    chosen: dict[str, Any] = {
        "steps": steps,
        "batch": batch,
        "channels": grey,
        "f_steps": F_STEPS if labelled else 0,
        "s_views": VIEWS if labelled else 0,
    }
    if f not in (LABELLED, FACES) and Path(f).exists():
        f = str(Path(f).resolve())
    chosen |= {name: value for name, value in given.items() if value is not None}
    return CustomConfig(
        source=str(source.resolve()),
        target=str(target.resolve()),
        pictures=digest(s, t),
        f=f,
        side=side,
        **USUAL | chosen,
    )


USUAL: dict[str, Any] = {
    "lr": 5e-4,
    "ema": 0.999,
    "r1": 1.0,
    "r1_every": 4,
    "diff_augment": True,
    "balance": True,
    "lr_decay": True,
}


def custom_config(run: Run) -> CustomConfig:
    """The run's configuration. Raises ValueError where it is of another kind."""
    if not isinstance(run.config, CustomConfig):
        raise ValueError(f"{run.folder} is no custom run")
    return run.config


def gather_pictures(config: CustomConfig) -> Pictures:
    """Both folders read. Raises ValueError where they are not those of the configuration."""
    labelled = config.f == LABELLED
    s = find_pictures(Path(config.source), labelled)
    t = find_pictures(Path(config.target))
    if digest(s, t) != config.pictures:
        raise ValueError(f"{s.path} or {t.path} holds other pictures than at the start of the run")
    both = (read_pictures(folder, config.side, config.fit) for folder in (s, t))
    (learn_s, held_s), (learn_t, held_t) = (held_out(part, config.seed) for part in both)
    if config.channels == 1:
        learn_t, held_t = (Part(grey(part.images)) for part in (learn_t, held_t))
    return Pictures(learn_s, learn_t, held_s, held_t, s.classes)


def grey(images: Tensor) -> Tensor:
    """uint8 [N, 3, S, S] that are grey anyway: [N, 1, S, S]."""
    return images.float().mean(1, keepdim=True).round().byte()


def border(images: Tensor) -> float:
    """The level of [-1, 1] that most of T's border has: what is shifted in at D's door."""
    edges = torch.cat([images[..., 0, :], images[..., -1, :]], -1)
    return float(edges.float().median()) / 127.5 - 1


def class_weights(logits_s: Tensor, logits_t: Tensor) -> Tensor:
    """How often to draw each of s [N, C], so that classes come in the shares that t [M, C] has.

    As f reads them: no label is used. D sees which classes come, and would have g draw the
    surplus of one as another.
    """
    classes = logits_s.shape[1]
    s, t = logits_s.argmax(1), logits_t.argmax(1)
    share_s = s.bincount(minlength=classes).float() / len(s)
    share_t = t.bincount(minlength=classes).float() / len(t)
    ratio = (share_t / share_s.clamp(min=1e-6)).clamp(1 / UNEVEN, UNEVEN)
    return ratio[s]


def custom_dtn(f: CustomF, config: CustomConfig, device: torch.device, blank: float) -> DTN:
    """g and D before their first step."""
    with seeded(config.seed):
        g = face_generator(f.width, config.g_width, config.side, config.channels)
        D = face_discriminator(config.side, config.d_width, config.side, config.channels)
        # Nobody knows whether an ONNX f of somebody's can be recorded.
        dtn = DTN(f, g, D, config, device, blank, captured=False)
    dtn.start = OfSource(f)
    return dtn


def train_custom(run: Run, data: Path, pictures: Pictures | None = None) -> Trained:
    """Train what `run` has not finished yet. `data` holds networks/, where f is of faces.

    Raises FileNotFoundError or ValueError, one line.
    """
    config = custom_config(run)
    pictures = pictures or gather_pictures(config)
    s, t = pictures.s, pictures.t
    f, raw_s, raw_t = standard(run, load_net(run, config, s, data), s.images, t.images)

    def gather() -> Domains:
        fs, ft = (raw_s - f.mean_s) / f.deviation, (raw_t - f.mean_t) / f.deviation
        weights = None
        if config.balance and (logits := class_logits(f, s.images, t.images)) is not None:
            weights = class_weights(*logits).repeat(1 + config.s_views)
        if config.s_views:
            how = dataclasses.replace(strong(config.side), cutout=0.0)
            fs = torch.cat([fs, views(f, s.images, config.s_views, how, config.seed)])
        return Domains(fs, ft, t.images.to(run.device), s_weights=weights)

    dtn = custom_dtn(f, config, run.device, border(t.images))
    preview = pictures.held_s.images[:PREVIEW].to(run.device)
    return Trained(f, train_dtn(run, dtn, gather, preview), pictures)


def class_logits(f: CustomF, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor] | None:
    """f's logits of s and t, where it is a classifier."""
    of_s, of_t = read_all(f, s)[1], read_all(f, t)[1]
    return None if of_s is None or of_t is None else (of_s, of_t)


def load_custom(run: Run, data: Path) -> Trained:
    """The networks of a finished run. Raises ValueError where it is not finished."""
    state = run.load("dtn.pt")
    if state is None or state["step"] < run.config.steps:
        raise ValueError(f"{run.folder} is not finished: run `dtn train custom` again first")
    return train_custom(run, data)
