"""S of the photo -> emoji task: aligned photographs of faces, split by identity.

A folder holds zips of 152x152 WebP pictures (eyes level, their midpoint at (0.50, 0.48) of the
side, their distance 0.27 of it) with a CSV beside each that names file and identity.
"""

import csv
import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

SIDE = 152
LABELLED = "lfw"  # real people under their names; the others are nobody's faces, or consented
STUDIO = ("generated", "fake")
CONSENTED = "london"
HELD_OUT = 4  # one identity in four is kept out of s


@dataclass(frozen=True)
class Faces:
    """Aligned photographs uint8 [N, 3, 152, 152] and whom each shows ("" where nobody)."""

    name: str
    files: list[str]
    identities: list[str]
    images: Tensor

    def __len__(self) -> int:
        return len(self.files)

    def where(self, kept: list[bool], name: str) -> "Faces":
        """The pictures for which `kept` is true."""
        index = [i for i, keep in enumerate(kept) if keep]
        return Faces(
            name,
            [self.files[i] for i in index],
            [self.identities[i] for i in index],
            self.images[torch.tensor(index, dtype=torch.long)],
        )


def read_faces(folder: Path, name: str) -> Faces:
    """The data set `name`_152.zip of `folder`. Raises FileNotFoundError, ValueError."""
    archive, table = folder / f"{name}_152.zip", folder / f"{name}_152.csv"
    for path in (archive, table):
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: put the aligned faces there")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    images = torch.empty(len(rows), 3, SIDE, SIDE, dtype=torch.uint8)
    with zipfile.ZipFile(archive) as pictures:
        for i, row in enumerate(tqdm(rows, f"reading {name}", unit="face", leave=False)):
            with Image.open(io.BytesIO(pictures.read(row["file"]))) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            if pixels.shape != (SIDE, SIDE, 3):
                raise ValueError(f"{row['file']} in {archive} is not {SIDE}x{SIDE}")
            images[i] = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    return Faces(name, [row["file"] for row in rows], [row["identity"] for row in rows], images)


def is_held_out(identity: str, count: int) -> bool:
    """Whether a person of `count` pictures is kept out of s: one in four of those with two."""
    digest = int(hashlib.sha256(identity.encode()).hexdigest(), 16)
    return bool(identity) and count >= 2 and digest % HELD_OUT == 0


def split_by_identity(faces: Faces) -> tuple[Faces, Faces]:
    """s and the held-out people: nobody is in both."""
    counts = {name: faces.identities.count(name) for name in set(faces.identities)}
    out = [is_held_out(name, counts[name]) for name in faces.identities]
    return (
        faces.where([not value for value in out], f"{faces.name}_train"),
        faces.where(out, f"{faces.name}_held_out"),
    )
