"""Two folders of pictures as tensors: what is learned from, and what is kept to measure on."""

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

SUFFIXES = frozenset([".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"])
FEWEST = 64  # pictures of a folder
MOST_BYTES = 8 << 30  # of a folder's pictures in memory
MOST_PIXELS = 100_000_000  # of one picture
SMALLEST = 8  # pixels of a side
HELD_OUT, MOST_HELD_OUT = 0.1, 1000  # share of a folder, and pictures
GREY = 4.0  # grey levels that channels may lie apart, on average


@dataclass(frozen=True)
class Part:
    """Pictures uint8 [N, 3, S, S]; their classes int64 [N] where they are labelled."""

    images: Tensor
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def at(self, index: Tensor) -> "Part":
        return Part(self.images[index], None if self.labels is None else self.labels[index])


@dataclass(frozen=True)
class Folder:
    """Pictures of a folder: the files in a fixed order, and the names of its classes, if any."""

    path: Path
    files: list[Path]
    classes: list[str]

    @property
    def labels(self) -> Tensor | None:
        """Of each file, by its subfolder."""
        if not self.classes:
            return None
        number = {name: i for i, name in enumerate(self.classes)}
        return torch.tensor([number[f.relative_to(self.path).parts[0]] for f in self.files])


def find_pictures(path: Path, labelled: bool = False) -> Folder:
    """The pictures below `path`, in its subfolders too; with `labelled`, one of these per class.

    Raises FileNotFoundError or ValueError with one clear line.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"no folder {path}")
    files = sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in SUFFIXES
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
    if len(files) < FEWEST:
        what = f"only {len(files)} pictures" if files else "no picture"
        raise ValueError(f"{path} has {what}: {FEWEST} are wanted, some hundreds are good")
    if not labelled:
        return Folder(path, files, [])
    files = [file for file in files if file.parent != path]
    classes = sorted({file.relative_to(path).parts[0] for file in files})
    if len(classes) < 2:
        raise ValueError(f"{path} has {len(classes)} subfolders of pictures: f wants one per class")
    folder = Folder(path, files, classes)
    counts = folder.labels.bincount()  # type: ignore[union-attr]
    if int(counts.min()) < 5:
        name = classes[int(counts.argmin())]
        raise ValueError(f"the class {path / name} has {int(counts.min())} pictures: 5 are wanted")
    return folder


def require_apart(source: Path, target: Path) -> None:
    """Raises ValueError where one folder is, or lies in, the other."""
    s, t = source.resolve(), target.resolve()
    if s == t or s in t.parents or t in s.parents:
        raise ValueError(f"{source} and {target} must be two folders, none inside the other")


def digest(*folders: Folder) -> str:
    """Of names and sizes of all files: changes where a picture comes, goes or is another."""
    total = hashlib.sha256()
    for folder in folders:
        for file in folder.files:
            total.update(f"{file.relative_to(folder.path)} {file.stat().st_size}\n".encode())
        total.update(b"\0")
    return total.hexdigest()[:16]


def square(x: Tensor, side: int, fit: str) -> Tensor:
    """uint8 [N, 3, H, W] to [N, 3, side, side]: `crop` takes the middle, `pad` repeats the edge.

    The same lines make the exported graph's pictures. Cut or shrunk before it is made square: a
    picture of 1 x 60,000 must not become 60,000 squared.
    """
    height, width = x.shape[2:]
    if fit == "crop":
        least = torch.sym_min(height, width)  # type: ignore[no-untyped-call]
        rows = torch.arange(least, device=x.device) + (height - least) // 2
        columns = torch.arange(least, device=x.device) + (width - least) // 2
        x = x.index_select(2, rows).index_select(3, columns)
        return F.interpolate(x, (side, side), mode="bilinear", antialias=True)
    longer = torch.sym_max(height, width)  # type: ignore[no-untyped-call]
    height, width = (
        torch.sym_max(1, (side * each + longer // 2) // longer)  # type: ignore[no-untyped-call]
        for each in (height, width)
    )
    x = F.interpolate(x, (height, width), mode="bilinear", antialias=True)
    places = torch.arange(side, device=x.device)
    rows = (places - (side - height) // 2).clamp(0, height - 1)
    columns = (places - (side - width) // 2).clamp(0, width - 1)
    return x.index_select(2, rows).index_select(3, columns)


def decode(file: Path) -> Tensor:
    """A picture upright, transparency laid over white: uint8 [1, 3, H, W]. Raises OSError."""
    with Image.open(file) as image:
        if image.width * image.height > MOST_PIXELS:
            raise OSError(f"more than {MOST_PIXELS // 1_000_000} million pixels")
        if min(image.size) < SMALLEST:
            raise OSError(f"{image.width}x{image.height}, less than {SMALLEST} pixels")
        image.draft("RGB", (512, 512))
        upright = ImageOps.exif_transpose(image)
        if upright.has_transparency_data:
            layer = upright.convert("RGBA")
            upright = Image.new("RGB", layer.size, "white")
            upright.paste(layer, mask=layer)
        pixels = np.array(upright.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


def read_pictures(folder: Folder, side: int, fit: str) -> Part:
    """Every picture at `side` pixels. Raises ValueError where one cannot be read, naming it."""
    size = 3 * side * side * len(folder.files)
    if size > MOST_BYTES:
        raise ValueError(f"{folder.path} needs {size >> 30} GB at {side} pixels: take a part of it")
    images = torch.empty(len(folder.files), 3, side, side, dtype=torch.uint8)
    bad: list[tuple[Path, str]] = []
    for i, file in enumerate(tqdm(folder.files, f"reading {folder.path.name}", leave=False)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of broken metadata
                images[i] = square(decode(file), side, fit)[0]
        except Exception as error:  # decoders fail on broken files with whatever comes
            bad.append((file, str(error).splitlines()[0] if str(error) else "broken"))
    if bad:
        file, why = bad[0]
        raise ValueError(
            f"{len(bad)} of {len(folder.files)} pictures cannot be used, the first is {file}: {why}"
        )
    return Part(images, folder.labels)


def colours(images: Tensor) -> int:
    """1 where pictures [N, 3, S, S] are grey, else 3."""
    some = images[:: max(1, len(images) // 500)].float()
    apart = (some.amax(1) - some.amin(1)).mean((1, 2))
    return 1 if float(apart.quantile(0.98)) < GREY else 3


def held_out(part: Part, seed: int) -> tuple[Part, Part]:
    """What to learn from, and what to measure on."""
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed))
    kept = min(MOST_HELD_OUT, round(HELD_OUT * len(part)))
    return part.at(order[kept:]), part.at(order[:kept])
