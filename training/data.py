"""SVHN and MNIST as uint8 tensors that live on the device.

A folder holds either the prepared `*.npz` files (`images`, `labels`) or the data sets'
original files (`extra_32x32.mat`, `t10k-images-idx3-ubyte.gz`, ...; `dtn data` fetches
them). Which files are there decides the protocol that every figure carries.
"""

import gzip
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.io import loadmat
from torch import Tensor

from training.networks import SIDE

Arrays = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]


@dataclass(frozen=True)
class Split:
    """Pictures uint8 [N, C, 32, 32] and digits int64 [N], on one device."""

    name: str
    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, start: int, stop: int | None, name: str) -> "Split":
        """A contiguous cut: the digits of one house number stay together."""
        return Split(name, self.images[start:stop], self.labels[start:stop])

    def without(self, digit: int) -> "Split":
        """All but the pictures of `digit` (Table 3)."""
        kept = self.labels != digit
        return Split(f"{self.name} without {digit}", self.images[kept], self.labels[kept])

    def only(self, digit: int) -> "Split":
        """The pictures of `digit`."""
        kept = self.labels == digit
        return Split(f"{self.name}, {digit} only", self.images[kept], self.labels[kept])


@dataclass(frozen=True)
class Digits:
    """The splits of Sec. 5.1 under the name of their protocol."""

    protocol: str
    svhn_train: Split  # labelled, for f; unlabelled, the set s
    svhn_test: Split  # the figures of Table 1; nothing learns from it
    mnist_train: Split  # for the judge only
    mnist_test: Split  # unlabelled, the set t
    meter: Split | None  # photographed meter digits, for f only

    @property
    def sizes(self) -> dict[str, int]:
        splits = (self.svhn_train, self.svhn_test, self.mnist_train, self.mnist_test, self.meter)
        return {split.name: len(split) for split in splits if split is not None}


def read_npz(path: Path) -> Arrays:
    """`images` [N, H, W(, 3)] and `labels` [N], both uint8."""
    with path.open("rb") as stream, np.load(stream) as file:
        return file["images"], file["labels"]


def read_mat(path: Path) -> Arrays:
    """An SVHN format-2 file: pictures to [N, 32, 32, 3]; label 10 means the digit 0."""
    file = loadmat(path)
    labels = file["y"].reshape(-1) % 10
    return np.ascontiguousarray(file["X"].transpose(3, 0, 1, 2)), labels.astype(np.uint8)


def read_idx(images: Path, labels: Path) -> Arrays:
    """A pair of MNIST IDX gzip files: [N, 28, 28] and [N]."""
    with gzip.open(images) as file:
        header = np.frombuffer(file.read(16), ">u4")
        pictures = np.frombuffer(file.read(), np.uint8).reshape(header[1:])
    with gzip.open(labels) as file:
        digits = np.frombuffer(file.read(), np.uint8, offset=8)
    if header[0] != 0x803 or len(pictures) != len(digits):
        raise ValueError("not a pair of IDX files")
    return pictures, digits


def to_split(name: str, arrays: Arrays, device: str | torch.device = "cpu") -> Split:
    """Pictures to [N, C, 32, 32]: MNIST's 28 px are scaled up, narrow ones padded by their edge."""
    images, labels = arrays
    pictures = torch.tensor(images)
    pictures = pictures[:, None] if pictures.ndim == 3 else pictures.permute(0, 3, 1, 2)
    height, width = pictures.shape[2:]
    if height == width != SIDE:
        chunks = [
            F.interpolate(chunk.float(), (SIDE, SIDE), mode="bilinear").round().byte()
            for chunk in torch.split(pictures, 5000)
        ]
        pictures = torch.cat(chunks)
    elif width < SIDE:
        spare = SIDE - width
        pictures = F.pad(
            pictures.float(), (spare // 2, spare - spare // 2, 0, 0), mode="replicate"
        ).byte()
    return Split(name, pictures.contiguous().to(device), torch.tensor(labels).long().to(device))


def _read(root: Path, stem: str, original: tuple[str, ...]) -> Arrays | None:
    """The split as npz where there is one, else from its original files, else None."""
    try:
        if (root / f"{stem}.npz").is_file():
            return read_npz(root / f"{stem}.npz")
        if all((root / name).is_file() for name in original):
            paths = [root / name for name in original]
            return read_mat(paths[0]) if len(paths) == 1 else read_idx(*paths)
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{stem} in {root} cannot be read: {error}") from error
    return None


def load_digits(root: Path, device: str | torch.device = "cpu") -> Digits:
    """All splits of `root` on `device`.

    Protocols: `paper` (extra_32x32.mat to learn from, test_32x32.mat to measure), `SVHN-train`
    (the same with train_32x32.mat), `SVHN-10k` (the npz files). Raises FileNotFoundError with
    one clear line that says what is missing.
    """
    if (root / "svhn_train.npz").is_file():
        protocol, source = "SVHN-10k", "svhn_train"
    elif (root / "extra_32x32.mat").is_file():
        protocol, source = "paper", "extra_32x32"
    else:
        protocol, source = "SVHN-train", "train_32x32"
    found = {
        "svhn_train": _read(root, "svhn_train", (f"{source}.mat",)),
        "svhn_test": _read(root, "svhn_test", ("test_32x32.mat",)),
        "mnist_train": _read(
            root, "mnist_train", ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
        ),
        "mnist_test": _read(
            root, "mnist_test", ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
        ),
    }
    missing = [name for name, arrays in found.items() if arrays is None]
    if missing:
        raise FileNotFoundError(
            f"{', '.join(missing)} not found in {root}: "
            "run `dtn data`, or put the npz or the original files there"
        )
    splits = {
        name: to_split(name, arrays, device) for name, arrays in found.items() if arrays is not None
    }
    meter = _read(root, "meter_digits", ("meter_digits.mat",))
    return Digits(
        protocol, meter=None if meter is None else to_split("meter_digits", meter, device), **splits
    )
