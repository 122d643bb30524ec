"""S and T of a faces run: which pictures they hold, and what f reads of them.

Photographs become avatars (the main task, Sec. 5.2), avatars photographs (the reverse direction,
Figure 9b), or photographs posters of themselves (style transfer, Figure 5).
"""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from tqdm import tqdm

from training.augment import jittered
from training.avatars import DESIGN, avatars
from training.config import Augment, FacesConfig
from training.face_data import LABELLED, STUDIO, Faces, read_faces, split_by_identity
from training.face_features import FaceFeatures, raw_features
from training.face_networks import SIDE
from training.glasses import teach_glasses
from training.packages import FACESJS, obtain

# What is s, by what is t.
SOURCES = {"avatars": "photographs", "posters": "photographs", "photographs": "avatars"}
# Of a poster, from shade to light: its inks, and the grey level up to which each goes.
INKS = ((24, 40, 72), (200, 62, 70), (240, 160, 72), (252, 240, 214))
UP_TO = (62, 118, 176, 256)
SMOOTH = 5  # pixels of 152, the side of the median filter before
CLIPPED = 2  # per cent of a picture that may lie beyond black and beyond white

# How copies of s differ: no finder of eyes is exact, and no two cameras are alike.
VIEWS = Augment(rotate=5, shear=0.02, scale=1.06, stretch=0.02, shift=4, elastic=0, noise=0.06)
VIEWED = 152  # pixels of the side that VIEWS.shift is for


@dataclass(frozen=True)
class FaceDomains:
    """Raw numbers of f for s [N, n] and t [M, n], and t itself, uint8 [M, 3, 64, 64]."""

    raw_s: Tensor
    raw_t: Tensor
    t: Tensor


def draw_avatars(cache: Path, n: int, seed: int = 0) -> tuple[Tensor, list[dict[str, object]]]:
    """Avatars: uint8 [n, 3, 64, 64] and the attributes of each; drawn once, then in `cache`.

    The artwork is fetched by npm where it is not in `cache` yet. T is drawn with seed 0.
    """
    name = f"avatars{DESIGN}-{n}" if seed == 0 else f"avatars{DESIGN}-{n}-{seed}"
    pictures, table = cache / f"{name}.npy", cache / f"{name}.json"
    if not table.exists():
        cache.mkdir(parents=True, exist_ok=True)
        artwork = obtain(FACESJS, cache)[0].parent
        attributes, (drawn,) = avatars(n, artwork, (SIDE,), seed)
        np.save(pictures, drawn)
        table.write_text(json.dumps(attributes))
    images = torch.from_numpy(np.load(pictures)).permute(0, 3, 1, 2)
    return images.contiguous(), json.loads(table.read_text())


def source(data: Path) -> Faces:
    """Every photograph but those of held-out people."""
    real, _ = split_by_identity(read_faces(data / "faces", LABELLED))
    parts = [real, *(read_faces(data / "faces", name) for name in STUDIO)]
    return Faces(
        "s",
        [file for part in parts for file in part.files],
        [name for part in parts for name in part.identities],
        torch.cat([part.images for part in parts]),
    )


def shrunk(photographs: Tensor) -> Tensor:
    """uint8 [N, 3, 152, 152] to [N, 3, 64, 64], by area."""
    parts = torch.split(photographs, 1000)
    small = [F.interpolate(x.float(), (SIDE, SIDE), mode="area").round().byte() for x in parts]
    return torch.cat(small)


def posters(photographs: Tensor) -> Tensor:
    """Photographs restyled by a fixed filter, as if printed in four inks: uint8 [N, 3, S, S].

    The paper had a network restyle them after a single picture (Johnson et al. 2016).
    """
    levels = np.searchsorted(UP_TO, np.arange(256), side="right")
    inks = torch.tensor(INKS, dtype=torch.uint8)[torch.from_numpy(levels)]
    printed = torch.empty_like(photographs)
    for i, photograph in enumerate(tqdm(photographs, "printing posters", leave=False)):
        picture = Image.fromarray(photograph.permute(1, 2, 0).numpy()).convert("L")
        flat = ImageOps.autocontrast(picture, CLIPPED).filter(ImageFilter.MedianFilter(SMOOTH))
        printed[i] = inks[torch.from_numpy(np.array(flat)).long()].permute(2, 0, 1)
    return printed


def face_pictures(kind: str, config: FacesConfig, data: Path, cache: Path) -> Tensor:
    """uint8 [N, 3, S, S]: "photographs" and their mirror images are of 152 px, "avatars",
    "posters" and "small photographs" of 64; these are drawn once, then in `cache`."""
    if kind == "avatars":
        return draw_avatars(cache, config.avatars)[0]
    path = cache / f"{kind.replace(' ', '-')}.npy"
    if path.exists():
        return torch.from_numpy(np.load(path))
    photographs = source(data).images
    if kind == "photographs":
        return torch.cat([photographs, photographs.flip(3)])
    small = shrunk(posters(photographs) if kind == "posters" else photographs)
    cache.mkdir(parents=True, exist_ok=True)
    np.save(path, small.numpy())
    return small


def read(
    kind: str, f: FaceFeatures, config: FacesConfig, data: Path, cache: Path, view: int = 0
) -> Tensor:
    """Raw numbers [N, n] of f for `face_pictures`, computed once, float16 in `cache`; of their
    jittered copies where `view`, the number of such a copy, is not 0."""
    name = f"avatars{DESIGN}-{config.avatars}" if kind == "avatars" else kind.replace(" ", "-")
    name += f"-view{view}" if view else ""
    path = cache / f"{what_is_read(f)}-{name}.npy"
    device = f.mean.device
    if path.exists():
        return torch.from_numpy(np.load(path)).float().to(device)
    pictures = face_pictures(kind, config, data, cache)
    how = replace(VIEWS, shift=VIEWS.shift * pictures.shape[-1] / VIEWED)
    random = torch.Generator(device).manual_seed(view)
    alter = (lambda x: jittered(x, how, random).clamp(-1, 1)) if view else None
    raw = raw_features(f, pictures, alter=alter)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, raw.half().cpu().numpy())
    return raw.half().float()


def what_is_read(f: FaceFeatures) -> str:
    """A word for the raw numbers of f, which differ with its windows and reading of glasses."""
    if f.colours is None:
        return "identity"
    read = [f.colours.windows]
    if f.glasses is not None:
        read.extend(f.glasses.state_dict().values())
    digest = hashlib.sha256(b"".join(value.cpu().numpy().tobytes() for value in read))
    return f"{'colours' if f.glasses is None else 'glasses'}-{digest.hexdigest()[:8]}"


def teach(f: FaceFeatures, config: FacesConfig, data: Path, cache: Path) -> None:
    """Let `f` learn to see spectacles, where it is to; what was learned is kept in `cache`."""
    if f.glasses is None:
        return
    path = cache / f"glasses-{config.seed}.pt"
    if not path.exists():
        avatars, attributes = draw_avatars(cache, config.avatars)
        worn = torch.tensor([each["glasses"] != "none" for each in attributes])
        device = f.mean.device
        net = teach_glasses(source(data).images, avatars, worn, config.seed, device)
        torch.save({name: value.cpu() for name, value in net.state_dict().items()}, path)
    f.glasses.load_state_dict(torch.load(path, weights_only=True))


def fit(f: FaceFeatures, config: FacesConfig, data: Path, cache: Path) -> None:
    """Let `f` learn what to expect of faces, and which directions tell drawings from photographs.

    For the reverse direction it is the f of the main task.
    """
    teach(f, config, data, cache)
    drawings = "posters" if config.t == "posters" else "avatars"
    photographs, drawn = (read(kind, f, config, data, cache) for kind in ("photographs", drawings))
    f.fit(photographs, drawn, config.remove)


def face_domains(f: FaceFeatures, config: FacesConfig, data: Path, cache: Path) -> FaceDomains:
    """What f reads of s and t, and t on the CPU."""
    s, t = SOURCES[config.t], "small photographs" if config.t == "photographs" else config.t
    copies = range(1 + config.s_views)
    return FaceDomains(
        torch.cat([read(s, f, config, data, cache, view) for view in copies]),
        read(t, f, config, data, cache),
        face_pictures(t, config, data, cache),
    )
