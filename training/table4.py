"""Table 4, Sec. 5.2: can a person be found by their emoji among many photographs?

For each held-out person there are two photographs, x and x'. The emoji of x is compared with
a gallery s' ∪ {x'} by a network that had no part in training, and the rank of x' is noted.
The paper: 118 people of CelebA, s' of 100,000 photographs, the VGG face descriptor. Here: held-out
people of LFW, s' of all that we have, two judges; x' of the other people count among s'.
"""

import json
import time
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from training.face_data import Faces
from training.recognisers import SIDE, Recogniser

EMOJI = 64  # side of G's pictures
DEFINITION = (
    "median and mean rank of x' by cosine among s' and the x' of all people; ties count half; "
    "emoji brought bicubically to 152 px"
)
# Pictures uint8 [N, 152, 152, 3] to emoji uint8 [N, H, W, 3].
Transfer = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Search:
    """Whom to look for and among whom: indices of pictures in one list."""

    probes: list[int]  # x, the first picture of each person
    mates: list[int]  # x', the second
    gallery: list[int]  # every x', and s': all pictures that show none of these people


@dataclass(frozen=True)
class Row:
    """How one kind of probe does before one judge; ranks count from 1."""

    judge: str
    probe: str
    n: int
    gallery: int
    median: float
    mean: float
    rank_1: float  # share of probes
    rank_5: float
    median_share: float  # rank as a share of the gallery
    mean_share: float


@dataclass(frozen=True)
class Table4:
    """The rows, and what they were measured on."""

    definition: str
    people: int
    gallery: int
    gallery_of: dict[str, int]  # by data set
    gallery_in_s: int  # how many of it the DTN saw in training; none in the paper
    rows: list[Row]
    seconds: float


# The paper's Table 4. Nobody drew emoji by hand for our people: the row stands for comparison.
PAPER = (
    Row("VGG face", "paper: manual", 118, 100_001, 16311, 27992.34, 0, 0, 0.16311, 0.2799),
    Row("VGG face", "paper: DTN", 118, 100_001, 16, 535.47, 0.2288, 0.3475, 0.00016, 0.00535),
)


def search(identities: Sequence[str], people: Collection[str]) -> Search:
    """The search for `people` among pictures of `identities` ("": nobody known).

    Third and later pictures of a person are left out. Raises ValueError where a person has
    fewer than two or where there is none.
    """
    pictures: dict[str, list[int]] = {person: [] for person in people}
    others: list[int] = []
    for i, identity in enumerate(identities):
        pictures.get(identity, others).append(i)
    if not pictures or min(map(len, pictures.values())) < 2:
        raise ValueError("Table 4 needs people of two pictures each")
    probes, mates = ([found[k] for found in pictures.values()] for k in (0, 1))
    return Search(probes, mates, mates + others)


def ranks(probes: Tensor, mates: Tensor, gallery: Tensor) -> Tensor:
    """The rank of each probe's mate by cosine: [P, D], [P] indices of gallery, [M, D] to [P].

    All are unit vectors. 1 is the best; a picture that scores the same as the mate counts
    half, as if ties were broken by lot.
    """
    scores = probes @ gallery.T
    return places(scores.gather(1, mates[:, None])[:, 0], scores) - 0.5  # the mate is in gallery


def places(own: Tensor, others: Tensor) -> Tensor:
    """The ranks of scores `own` [P] among those of `others` [P, M], as `ranks` counts them: [P]."""
    above = (others > own[:, None]).sum(1)
    level = (others == own[:, None]).sum(1)
    return 1 + above + level / 2


def row(judge: str, probe: str, found: Tensor, gallery: int) -> Row:
    """The measures of Table 4 over the ranks `found` [P]."""
    median, mean = float(found.double().quantile(0.5)), float(found.double().mean())
    first, fifth = (float((found <= k).double().mean()) for k in (1, 5))
    return Row(
        judge,
        probe,
        len(found),
        gallery,
        median,
        mean,
        first,
        fifth,
        median / gallery,
        mean / gallery,
    )


def enlarge(pictures: Tensor, side: int = SIDE) -> Tensor:
    """uint8 [N, H, W, 3] to uint8 [N, side, side, 3], bicubic; smoothed where it reduces."""
    if pictures.shape[1:3] == (side, side):
        return pictures
    x = pictures.permute(0, 3, 1, 2).float()
    x = F.interpolate(x, (side, side), mode="bicubic", antialias=True)
    return x.round_().clamp_(0, 255).byte().permute(0, 2, 3, 1)


def photo(photos: Tensor) -> Tensor:
    """The ceiling: the photograph x itself in place of its emoji."""
    return photos


def small_photo(photos: Tensor) -> Tensor:
    """The ceiling at the emoji's size: x reduced to 64 px."""
    return enlarge(photos, EMOJI)


def nearest_avatar(avatars: Tensor, nearest: Callable[[Tensor], Tensor]) -> Transfer:
    """The avatar of T, uint8 [T, H, W, 3], that `nearest` names: photos to indices [N].

    With the nearest under f: what looking up T does without any g.
    """
    return lambda photos: avatars[nearest(photos)]


def random_avatar(avatars: Tensor, seed: int = 0) -> Transfer:
    """The floor: an avatar by lot."""

    def draw(photos: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return avatars[torch.randint(len(avatars), (len(photos),), generator=generator)]

    return draw


def embeddings(judge: Recogniser, faces: Faces, cache: Path) -> Tensor:
    """`faces` before `judge`, float32 [N, D] on the CPU, kept in `cache` as JUDGE-FACES.npz.

    What is kept counts only for the same files with the same pixels.
    """
    path = cache / f"{judge.name}-{faces.name}.npz"
    pixels = zlib.crc32(faces.images.contiguous().numpy().data)
    if path.exists():
        with np.load(path) as kept:
            if kept["files"].tolist() == faces.files and kept["pixels"] == pixels:
                return torch.from_numpy(kept["embeddings"])
    chunks = torch.split(faces.images, 256)
    progress = tqdm(chunks, f"{judge.name} reads {faces.name}", leave=False)
    result = torch.cat([judge.embed(chunk).cpu() for chunk in progress])
    cache.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    np.savez(part, files=np.array(faces.files), pixels=pixels, embeddings=result.numpy())
    part.replace(path)
    return result


def gallery_before(
    judge: Recogniser, photos: Sequence[Faces], wanted: Search, cache: Path
) -> Tensor:
    """Embeddings [M, D] of the gallery of `wanted`; the x' [P] come first."""
    return torch.cat([embeddings(judge, faces, cache) for faces in photos])[wanted.gallery]


def table4(
    photos: Sequence[Faces],
    people: Collection[str],
    judges: Sequence[Recogniser],
    cache: Path,
    transfers: Mapping[str, Transfer],
    in_s: Collection[str] = (),
) -> Table4:
    """Table 4 for `people`, who appear in the first of `photos` and nowhere else.

    `transfers` gives the rows by name (`photo`, `small_photo`, ... above, and the DTN);
    `in_s` names the files the DTN was trained on. Raises ValueError as `search` does.
    """
    start = time.perf_counter()
    identities = [name for faces in photos for name in faces.identities]
    files = [name for faces in photos for name in faces.files]
    data_sets = [faces.name for faces in photos for _ in faces.files]
    wanted = search(identities, people)
    seen = set(in_s)
    x = photos[0].images[wanted.probes].permute(0, 2, 3, 1).contiguous()
    drawn = {name: enlarge(transfer(x)) for name, transfer in transfers.items()}
    rows = []
    for judge in judges:
        gallery = gallery_before(judge, photos, wanted, cache)
        mates = torch.arange(len(wanted.mates))
        for name, pictures in drawn.items():
            found = ranks(judge.embed(pictures).cpu(), mates, gallery)
            rows.append(row(judge.name, name, found, len(gallery)))
    return Table4(
        DEFINITION,
        len(wanted.probes),
        len(wanted.gallery),
        {faces.name: [data_sets[i] for i in wanted.gallery].count(faces.name) for faces in photos},
        sum(files[i] in seen for i in wanted.gallery),
        rows,
        round(time.perf_counter() - start, 1),
    )


def write(table: Table4, folder: Path) -> Path:
    """`table` as table4.json in the run's `folder`."""
    path = folder / "table4.json"
    path.write_text(json.dumps(asdict(table), indent=2) + "\n")
    return path


def show(path: Path) -> str:
    """The table in the JSON file `path`, the paper's rows above ours."""
    table: dict[str, Any] = json.loads(path.read_text())
    lines = [
        f"{'judge':<14} {'probe':<24} {'n':>4} {'gallery':>8} {'median':>8} {'(share)':>8}"
        f" {'mean':>9} {'(share)':>8} {'rank-1':>7} {'rank-5':>7}"
    ]
    for line in [asdict(line) for line in PAPER] + table["rows"]:
        lines.append(
            f"{line['judge']:<14} {line['probe']:<24} {line['n']:>4} {line['gallery']:>8,}"
            f" {line['median']:>8,.1f} {line['median_share']:>8.3%}"
            f" {line['mean']:>9,.1f} {line['mean_share']:>8.3%}"
            f" {line['rank_1']:>7.2%} {line['rank_5']:>7.2%}"
        )
    parts = ", ".join(f"{count:,} {name}" for name, count in table["gallery_of"].items())
    lines.append(f"Our gallery: {parts}; {table['gallery_in_s']:,} of it were in s.")
    return "\n".join(lines)
