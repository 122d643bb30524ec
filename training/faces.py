"""A faces run (Sec. 5.2) from data to a trained g: photographs to emoji, and its two relatives."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from training.config import FacesConfig
from training.dtn import DTN, NO_FINISH, Finish
from training.face_data import CONSENTED, read_faces
from training.face_domains import SOURCES, draw_avatars, face_domains, fit
from training.face_features import PAINT, FaceFeatures, face_features
from training.face_networks import face_discriminator, face_generator
from training.loop import Domains, train_dtn
from training.resnet29 import FEATURES, load_resnet29
from training.run import Run, seeded
from training.upscaler import delivered_by

WEIGHTS = "dlib_face_recognition_resnet_model_v1.dat"
GROUPS = 64  # of s, to draw it evenly


@dataclass(frozen=True)
class TrainedFaces:
    """The networks of a faces run, frozen and in eval mode."""

    f: FaceFeatures
    g: nn.Sequential
    trained_on: str = "CPU"  # the device; older runs do not tell


def evening_weights(fs: Tensor, groups: int, seed: int, power: float = 0.5) -> Tensor:
    """Weights [N] of features [N, K] that make rare kinds of faces come more often.

    k-means groups f(s); a group of n pictures is drawn n^(1 - power) times as often as one of a
    single picture. No label is used. T holds women and dark skin as often as men and light skin,
    press photographs do not, and D would make g draw some of the many as the few.
    """
    random = torch.Generator().manual_seed(seed)
    groups = min(groups, len(fs))
    centres = fs[torch.randperm(len(fs), generator=random)[:groups].to(fs.device)]
    for _ in range(20):
        nearest = torch.cdist(fs, centres).argmin(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, fs)
        sizes = nearest.bincount(minlength=groups).clamp(min=1)
        centres = sums / sizes[:, None]
    return (1 / sizes.float()[nearest]) ** power


def lightness(numbers: Tensor) -> Tensor:
    """Of the skin, as the appearance part of `FaceFeatures.numbers` has it: [N] in [-1, 1]."""
    return numbers[:, FEATURES : FEATURES + 3].mean(1)


def matching_weights(
    t: Tensor, s: Tensor, s_weights: Tensor | None = None, bins: int = 20, most: float = 8.0
) -> Tensor:
    """Weights of t [M] that give it the distribution of s [N], drawn by `s_weights`.

    T is ours: skin tones come evenly in it. Photographs are not so even, and D would have g
    darken every other face.
    """
    edges = torch.linspace(float(s.min()), float(s.max()), bins + 1, device=s.device)[1:-1]
    of_s = torch.bucketize(s, edges).bincount(s_weights, minlength=bins).float()
    place = torch.bucketize(t, edges)
    of_t = place.bincount(minlength=bins).float()
    ratio = (of_s / of_s.sum()) / (of_t / of_t.sum()).clamp(min=1e-4)
    return ratio.clamp(1 / most, most)[place]


def faces_dtn(
    f: FaceFeatures,
    config: FacesConfig,
    device: torch.device,
    finish: Finish = NO_FINISH,
    captured: bool = True,
) -> DTN:
    """g and D of Sec. 5.2 before their first step."""
    blank = 1.0 if config.t == "avatars" else 0.0
    with seeded(config.seed):
        g = face_generator(f.width, config.g_width)
        D = face_discriminator(config.d_side, config.d_width)
        return DTN(f, g, D, config, device, blank, finish=finish, captured=captured)


def finish_of(
    config: FacesConfig, f: FaceFeatures, upscaler: Path | None, device: torch.device
) -> Finish:
    """What the fields of a finish ask for; none without an upscaler.pt."""
    if not config.finish or upscaler is None:
        return NO_FINISH
    stress = torch.ones(f.width, device=device)
    stress[FEATURES : FEATURES + PAINT] = config.stress_colours
    stress[-1] = config.stress_glasses
    return Finish(
        steps=config.finish,
        every=config.finish_every,
        enlarge=delivered_by(upscaler, device),
        alpha=config.finish_alpha,
        red=config.red,
        symmetry=config.symmetry,
        stress=stress,
        caricature=caricature(config.caricature, f.width).to(device),
    )


def caricature(factor: float, width: int) -> Tensor:
    """Factors of f(x) [K] that leave appearance as it is and exaggerate who it is.

    f's zero is the mean face: times 1.5, all that tells a face from it is half as strong again.
    L_CONST is a mean square, so where f(x) leaves a choice g learned to draw the middle.
    """
    factors = torch.ones(width)
    factors[:FEATURES] = factor
    return factors


def exaggerated(f: FaceFeatures, g: nn.Sequential, factor: float) -> TrainedFaces:
    """G whose emoji are caricatures: `factor` goes into g's first layer, in place."""
    if factor != 1:
        factors = caricature(factor, f.width).to(f.mean.device)
        first = next(layer for layer in g if isinstance(layer, nn.ConvTranspose2d))
        first.weight.mul_(factors[:, None, None, None])
    return TrainedFaces(f, g)


def faces_config(run: Run, to_emoji: bool = False) -> FacesConfig:
    """Of a run of faces; with `to_emoji`, of the main task. Raises ValueError where it is not."""
    config = run.config
    if not isinstance(config, FacesConfig):
        raise ValueError(f"{run.folder} is no run of faces")
    if to_emoji and config.t != "avatars":
        raise ValueError(f"{run.folder} draws {config.t}, not emoji")
    return config


def train_faces(run: Run, data: Path, upscaler: Path | None = None) -> TrainedFaces:
    """Train what `run` has not finished yet; all of it is reproducible from its config.

    `data` holds faces/ and networks/, `upscaler` is the upscaler.pt that the field `finish` wants.
    What takes long is kept in the folder `cache` beside the run's.
    """
    config = faces_config(run)
    cache = run.folder.parent / "cache"
    net = load_resnet29(data / "networks" / WEIGHTS)
    f = face_features(net, config.appearance > 0, config.appearance, config.glasses).to(run.device)
    finish = finish_of(config, f, upscaler, run.device)
    if state := run.load("f.pt"):
        if state.keys() != f.state_dict().keys() or len(state["mean"]) != f.width:
            raise ValueError(f"{run.folder / 'f.pt'} is of another version: train the run anew")
        f.remove = state["remove"]
        f.load_state_dict(state)
    else:
        fit(f, config, data, cache)
        run.save("f.pt", f.state_dict())
    of_photographs = SOURCES[config.t] == "photographs"

    def gather() -> Domains:
        if finish.steps != config.finish:
            raise ValueError("the field `finish` wants the upscaler.pt of `dtn upscaler`")
        found = face_domains(f, config, data, cache)
        fs = f.standardised(found.raw_s, of_photographs)
        ft = f.standardised(found.raw_t, photograph=False)  # small, as G(x) is
        s_weights = t_weights = None
        if config.balance:
            s_weights = evening_weights(fs, GROUPS, config.seed)
        if config.balance and config.appearance:
            light_s = lightness(f.numbers(found.raw_s, of_photographs))
            light_t = lightness(f.numbers(found.raw_t, photograph=False))
            t_weights = matching_weights(light_t, light_s, s_weights)
        return Domains(fs, ft, found.t.to(run.device), s_weights=s_weights, t_weights=t_weights)

    dtn = faces_dtn(f, config, run.device, finish)
    if of_photographs:
        preview = read_faces(data / "faces", CONSENTED).images[:32]
    else:
        preview = draw_avatars(cache, config.avatars)[0][:32]
    g = train_dtn(run, dtn, gather, preview.to(run.device))
    return exaggerated(f, g, config.caricature)


def load_faces(run: Run, data: Path) -> TrainedFaces:
    """The networks of a finished run. Raises ValueError where it is not finished."""
    state = run.load("dtn.pt")
    if state is None or state["step"] < run.config.steps:
        raise ValueError(f"{run.folder} is not finished: run `dtn train {run.name}` first")
    trained_on = state.get("trained_on", TrainedFaces.trained_on)
    return replace(train_faces(run, data), trained_on=trained_on)
