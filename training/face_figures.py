"""Figures 2b, 4, 6, 7 and 8 (Sec. 5.2, Appendices A to C) of a run of faces; 5 and 9b of others.

Pictures are uint8 [N, H, W, 3]. Whoever is shown in public agreed to it or does not exist;
photographs of others are drawn into the folder of the run alone (`dtn figures --private`).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from training.face_data import CONSENTED, LABELLED, Faces, read_faces, split_by_identity
from training.face_domains import draw_avatars, posters, shrunk
from training.face_evaluate import drawn, emoji
from training.face_networks import SIDE
from training.faces import TrainedFaces, faces_config
from training.figures import grid
from training.resnet29 import FEATURES
from training.run import Run
from training.table4 import enlarge
from training.upscaler import Upscale, area, upscale_by
from training.upscaler_peers import DELIVERED, NAME, bicubic, figure7, published
from training.upscaler_peers import enlarge as enlarge_published

# By what t is in the run.
FIGURES = {"avatars": ("2b", "4", "6", "7", "8"), "posters": ("5",), "photographs": ("9b",)}
GAP = 8  # pixels between groups
CHOSEN = (214, 60, 40)  # the frame of Eq. 8's choice
SMALL, LARGE = 96, 256  # pixels of a picture
PAIRS, LARGE_PAIRS = 48, 8  # of Figures 2b and 4
UNSEEN, UNSEEN_SEED = 48, 2  # avatars of Figure 9b, none of them in s
PEOPLE, PHOTOS = 60, 8  # of Figure 6 at most, and photographs of each
LENGTH = FEATURES**0.5  # of the vectors of Figure 8: that of f(x)'s identity part on average


def rows(parts: Sequence[Tensor], columns: int, side: int) -> Image.Image:
    """`figures.grid` of pictures of any size, drawn at `side`."""
    return grid([enlarge(part, side).permute(0, 3, 1, 2) for part in parts], columns, GAP)


def figure2b(photos: Tensor, drawings: Tensor) -> Image.Image:
    """Photographs in odd columns, G(x) to the right of each."""
    return rows((photos, drawings), columns=6, side=SMALL)


def figure4(photos: Tensor, drawings: Tensor) -> Image.Image:
    """The same, larger, without the emoji that people drew: nobody drew any of ours."""
    return rows((photos, drawings), columns=2, side=LARGE)


def figure5(photos: Tensor, styled: Tensor, drawings: Tensor) -> Image.Image:
    """Photographs, what the filter makes of them, and G(x), which never saw a pair of these."""
    return rows((photos, styled, drawings), columns=4, side=SMALL)


def figure9b(avatars: Tensor, drawings: Tensor) -> Image.Image:
    """Avatars in odd columns, the faces that G draws of them to the right of each."""
    return rows((avatars, drawings), columns=6, side=SMALL)


def figure6(
    people: Sequence[Tensor], chosen: Sequence[int], drawings: Tensor, columns: int = 1
) -> Image.Image:
    """The photographs of each of `people`, then the emoji of the one that Eq. 8 chose.

    `chosen` is the place of that photograph among the person's, which gets a frame; people with
    fewer photographs than others leave places white. `drawings` are [len(people), H, W, 3].
    """
    places = torch.full((len(people), max(map(len, people)), SMALL, SMALL, 3), 255).byte()
    for place, photos, choice in zip(places, people, chosen, strict=True):
        place[: len(photos)] = enlarge(photos, SMALL)
        place[choice] = framed(place[choice])
    return rows([*places.unbind(1), drawings], columns, SMALL)


def framed(picture: Tensor, width: int = 4) -> Tensor:
    """uint8 [H, W, 3] with a frame over its border."""
    inner = ImageOps.crop(Image.fromarray(picture.numpy()), width)
    return torch.from_numpy(np.array(ImageOps.expand(inner, width, CHOSEN)))


def figure8(down: Tensor, up: Tensor) -> Image.Image:
    """g(-e_i) and g(e_i) side by side, i from 1 to 256 row by row; the paper shows g(e_i)."""
    return grid([x.permute(0, 3, 1, 2) for x in (down, up)], columns=16, gap=GAP)


@torch.no_grad()
def basis(trained: TrainedFaces, length: float) -> Tensor:
    """g of vectors of `length` along each axis of the identity part: uint8 [256, 64, 64, 3].

    Zero is the mean of the photographs of s, in the appearance part, too; what f removes of an
    axis is removed here as well.
    """
    axes = length * torch.eye(FEATURES, device=trained.f.mean.device)
    axes = axes - axes @ trained.f.remove @ trained.f.remove.T
    rest = axes.new_zeros(FEATURES, trained.f.width - FEATURES)
    points = torch.split(torch.cat([axes, rest], 1), 64)
    return torch.cat([drawn(trained.g, fx) for fx in points])


def upscaled(small: Tensor, networks: Path, upscale: Upscale) -> dict[str, Tensor]:
    """The columns of Figure 7: 64 px with its pixels seen, and enlarged by each method."""
    columns = {
        "64 px": small.repeat_interleave(DELIVERED // SIDE, 1).repeat_interleave(
            DELIVERED // SIDE, 2
        ),
        "bicubic": bicubic(small, DELIVERED),
    }
    if (networks / f"{NAME}.param").exists():
        columns[NAME] = enlarge_published(published(networks), small)
    return columns | {"ours": area(upscale(small), DELIVERED)}


def shown_faces(data: Path, private: bool) -> Faces:
    """Who stands in the figures: people who agreed to it; `private`: the held-out ones of LFW.

    Neither were in s.
    """
    if private:
        return split_by_identity(read_faces(data / "faces", LABELLED))[1]
    return read_faces(data / "faces", CONSENTED)


def by_person(faces: Faces) -> list[Tensor]:
    """The first PHOTOS photographs of each person, uint8 [n, 152, 152, 3], most first.

    Raises ValueError where there is no person.
    """
    people: dict[str, list[int]] = {}
    for i, name in enumerate(faces.identities):
        if name:
            people.setdefault(name, []).append(i)
    if not people:
        raise ValueError(f"{faces.name} names nobody")
    own = sorted(people.values(), key=len, reverse=True)
    return [faces.images[torch.tensor(i[:PHOTOS])].permute(0, 2, 3, 1) for i in own]


def evenly(n: int, of: int) -> list[int]:
    """At most `n` places among `of`, evenly spread: nothing is picked by its looks."""
    n = min(n, of)
    return [i * of // n for i in range(n)]


def restyled(trained: TrainedFaces, faces: Faces) -> Image.Image:
    """Figure 5 of a run to posters: the first photograph of each of `faces`' people."""
    people = by_person(faces)
    photos = torch.stack([people[i][0] for i in evenly(PAIRS // 2, len(people))])
    styled = shrunk(posters(photos.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
    return figure5(photos, styled, emoji(trained, photos)[0])


def reversed_faces(trained: TrainedFaces, cache: Path) -> Image.Image:
    """Figure 9b of a run to photographs: faces of avatars that were not in s."""
    avatars = draw_avatars(cache, UNSEEN, UNSEEN_SEED)[0].permute(0, 2, 3, 1)
    return figure9b(avatars, emoji(trained, avatars)[0])


def draw(
    trained: TrainedFaces, faces: Faces, networks: Path, upscale: Upscale, wanted: Sequence[str]
) -> Iterator[tuple[str, Image.Image]]:
    """Each of the `wanted` FIGURES of the main task by its number.

    `networks` is where the published upscaler may lie. People are taken in equal steps from the
    order of their files; Figure 2b shows the first photograph of each, Figure 4 the last, and
    Figure 7 the emoji of every other person of Figure 4.
    """
    people = by_person(faces)
    for name in wanted:
        if name in ("2b", "4"):
            count, which = (PAIRS, 0) if name == "2b" else (LARGE_PAIRS, -1)
            photos = torch.stack([people[i][which] for i in evenly(count, len(people))])
            figure = figure2b if name == "2b" else figure4
            yield name, figure(photos, upscale(emoji(trained, photos)[0]))
        elif name == "6":
            several = [photos for photos in people[:PEOPLE] if len(photos) > 1]
            if not several:
                raise ValueError(f"{faces.name} shows nobody twice, as Figure 6 needs it")
            made = [emoji(trained, photos) for photos in several]
            chosen = [int(distances.argmin()) for _, distances in made]
            best = torch.stack([made[i][0][choice] for i, choice in enumerate(chosen)])
            columns = max(1, 12 // (1 + max(map(len, several))))
            yield name, figure6(several, chosen, upscale(best), columns)
        elif name == "7":
            subjects = evenly(LARGE_PAIRS, len(people))[::2]
            photos = torch.stack([people[i][-1] for i in subjects])
            columns7 = upscaled(emoji(trained, photos)[0], networks, upscale)
            yield name, figure7(list(columns7.values()))
        else:
            yield name, figure8(basis(trained, -LENGTH), basis(trained, LENGTH))


def figures_of(
    trained: TrainedFaces,
    run: Run,
    data: Path,
    wanted: Sequence[str],
    private: bool,
    upscaler: Path,
) -> Iterator[tuple[str, Image.Image]]:
    """Each of the `wanted` figures of `run`, whatever its t is; `upscaler` is for emoji alone."""
    config = faces_config(run)
    if config.t == "photographs":
        yield "9b", reversed_faces(trained, run.folder.parent / "cache")
        return
    faces = shown_faces(data, private)
    if config.t == "posters":
        yield "5", restyled(trained, faces)
    else:
        yield from draw(trained, faces, data / "networks", upscale_by(upscaler), wanted)
