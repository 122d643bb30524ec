"""A faces run (Sec. 5.2) from data to a trained g: photographs to emoji."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from training.avatars import avatars
from training.config import FacesConfig
from training.dtn import DTN, Domains, train_dtn
from training.face_data import LABELLED, STUDIO, Faces, read_faces, split_by_identity
from training.face_features import FaceFeatures, face_features, raw_features
from training.face_networks import SIDE, face_discriminator, face_generator
from training.packages import FACESJS, obtain
from training.resnet29 import FEATURES, load_resnet29
from training.run import Run

WEIGHTS = "dlib_face_recognition_resnet_model_v1.dat"
GROUPS = 64  # of s, to draw it evenly


@dataclass(frozen=True)
class TrainedFaces:
    """The networks of a faces run, frozen and in eval mode."""

    f: FaceFeatures
    g: nn.Sequential


def draw_avatars(cache: Path, n: int) -> tuple[Tensor, list[dict[str, object]]]:
    """T: uint8 [n, 3, 64, 64] and the attributes of each; drawn once, then read from `cache`.

    The artwork is fetched by npm where it is not in `cache` yet.
    """
    pictures, table = cache / f"avatars-{n}.npy", cache / f"avatars-{n}.json"
    if not table.exists():
        cache.mkdir(parents=True, exist_ok=True)
        artwork = obtain(FACESJS, cache)[0].parent
        attributes, (drawn,) = avatars(n, artwork, (SIDE,))
        np.save(pictures, drawn)
        table.write_text(json.dumps(attributes))
    images = torch.from_numpy(np.load(pictures)).permute(0, 3, 1, 2)
    return images.contiguous(), json.loads(table.read_text())


def source(data: Path) -> Faces:
    """s: every photograph but those of held-out people."""
    real, _ = split_by_identity(read_faces(data / "faces", LABELLED))
    parts = [real, *(read_faces(data / "faces", name) for name in STUDIO)]
    return Faces(
        "s",
        [file for part in parts for file in part.files],
        [name for part in parts for name in part.identities],
        torch.cat([part.images for part in parts]),
    )


def cached_features(path: Path, f: FaceFeatures, images: Tensor) -> Tensor:
    """`raw_features`, computed once: [N, K] on f's device, float16 in `path`."""
    if path.exists():
        return torch.from_numpy(np.load(path)).float().to(f.mean.device)
    raw = raw_features(f, images)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, raw.half().cpu().numpy())
    return raw.half().float()


def evening_weights(fs: Tensor, groups: int, seed: int, power: float = 0.5) -> Tensor:
    """Weights [N] of features [N, K] that make rare kinds of faces come more often.

    k-means groups f(s); a group of n pictures is drawn n^(1 - power) times as often as one of a
    single picture. No label is used. T holds women and dark skin as often as men and light skin,
    press photographs do not, and D would make g draw some of the many as the few.
    """
    random = torch.Generator().manual_seed(seed)
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


def faces_dtn(f: FaceFeatures, config: FacesConfig, device: torch.device) -> DTN:
    """g and D of Sec. 5.2 before their first step."""
    torch.manual_seed(config.seed)
    g = face_generator(f.width, config.g_width)
    D = face_discriminator(config.d_side, config.d_width)
    return DTN(f, g, D, config, device, blank=1.0)


def train_faces(run: Run, data: Path) -> TrainedFaces:
    """Train what `run` has not finished yet; all of it is reproducible from its config.

    `data` holds faces/ and networks/. What takes long is kept in the folder `cache` beside the
    run's.
    """
    config = run.config
    if not isinstance(config, FacesConfig):
        raise ValueError(f"{run.folder} is no run of faces")
    cache = run.folder.parent / "cache"
    f = face_features(
        load_resnet29(data / "networks" / WEIGHTS), config.appearance > 0, config.appearance
    ).to(run.device)
    if state := run.load("f.pt"):
        f.remove = state["remove"]
        f.load_state_dict(state)
    else:
        raw_s, raw_t, _ = features_of_domains(f, config, data, cache)
        f.fit(raw_s, raw_t, config.remove)
        run.save("f.pt", f.state_dict())

    def gather() -> Domains:
        raw_s, raw_t, t = features_of_domains(f, config, data, cache)
        fs = f.standardised(raw_s, photograph=True)
        ft = f.standardised(raw_t, photograph=False)
        s_weights = t_weights = None
        if config.balance:
            s_weights = evening_weights(fs, GROUPS, config.seed)
        if config.balance and config.appearance:
            light_s = lightness(f.numbers(raw_s, photograph=True))
            light_t = lightness(f.numbers(raw_t, photograph=False))
            t_weights = matching_weights(light_t, light_s, s_weights)
        return Domains(fs, ft, t.to(run.device), s_weights=s_weights, t_weights=t_weights)

    dtn = faces_dtn(f, config, run.device)
    preview = read_faces(data / "faces", "london").images[:32].to(run.device)
    return TrainedFaces(f, train_dtn(run, dtn, gather, preview))


def load_faces(run: Run, data: Path) -> TrainedFaces:
    """The networks of a finished run. Raises ValueError where it is not finished."""
    state = run.load("dtn.pt")
    if state is None or state["step"] < run.config.steps:
        raise ValueError(f"{run.folder} is not finished: run `dtn train {run.name}` first")
    return train_faces(run, data)


def features_of_domains(
    f: FaceFeatures, config: FacesConfig, data: Path, cache: Path
) -> tuple[Tensor, Tensor, Tensor]:
    """What f reads raw of s, mirrored s too, and of T; and T itself on the CPU."""
    kind = "colours" if config.appearance else "identity"
    t, _ = draw_avatars(cache, config.avatars)
    raw_t = cached_features(cache / f"{kind}-avatars-{config.avatars}.npy", f, t)
    path = cache / f"{kind}-s.npy"
    if path.exists():
        return cached_features(path, f, t), raw_t, t
    s = source(data).images
    return cached_features(path, f, torch.cat([s, s.flip(3)])), raw_t, t
