"""T of the photo -> emoji task: avatars composed from the artwork of facesjs 5.0.3 (Apache-2.0).

The parts come from the pinned npm package (`training.packages`), none of them is in this
repository. Composition follows the package's own drawing code; which parts are used, their
colours, their odds and the crop are ours: friendly expressions only, few kinds of what f cannot
see, and the eyes exactly where the aligned photographs have them.
"""

import io
import json
import multiprocessing
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt
from PIL import Image
from resvg import render, usvg
from svgelements import SVG
from tqdm import tqdm

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]

# Eyes are drawn at (140, 310) and (260, 310). In an aligned picture their midpoint is at
# (0.50, 0.48) of the side and their distance 0.27 of it: x, y and side of that square.
EYE_DISTANCE, EYE_X, EYE_Y = 0.27, 0.50, 0.48
SIDE = 120 / EYE_DISTANCE
VIEW = (200 - EYE_X * SIDE, 310 - EYE_Y * SIDE, SIDE)
BACKGROUND = "#ffffff"
SHIRT = {"primary": "#5b8fb9", "secondary": "#39618a", "accent": "#f2f2f2"}
FRAME = "#333"
LENS = ("rgba(150,150,175,.5)", "rgba(205,215,235,.3)")  # the artwork's tint, and ours

DESIGN = 4  # of T; raise it where avatars come to look different: what is cached is drawn anew
SKIN: tuple[Colour, ...] = (
    (250, 226, 212), (244, 208, 184), (234, 190, 158), (220, 170, 134), (198, 146, 108),
    (172, 118, 84), (140, 90, 62), (108, 68, 48), (80, 50, 38), (60, 38, 30),
)  # fmt: skip
LIPS: tuple[Colour, ...] = ((206, 62, 84), (176, 50, 62), (132, 38, 48))
# Browns are as red as in photographs (red over green 1.3, as f reads s), or g draws them auburn;
# fair hair is as dark and as pale as there, too, or g draws what is between blond and grey.
HAIR: dict[str, Colour] = {
    "black": (27, 22, 18),
    "dark brown": (56, 41, 29),
    "brown": (86, 65, 46),
    "light brown": (128, 99, 71),
    "auburn": (110, 62, 40),
    "red": (170, 98, 60),
    "dark blond": (160, 130, 92),
    "blond": (200, 172, 126),
    "light blond": (228, 211, 174),
    "grey": (146, 146, 146),
    "white": (224, 222, 218),
}
# Odds of the hair colours above for light skin (up to a third of the scale) and for the rest.
HAIR_LIGHT = (14, 17, 15, 11, 5, 5, 10, 10, 6, 5, 4)
HAIR_DARK = (60, 24, 4, 1, 0, 0, 0, 0, 0, 7, 4)

MEN = {
    "eye": ("eye2", "eye4", "eye6", "eye8", "eye10", "eye13"),
    "eyebrow": ("eyebrow1", "eyebrow6", "eyebrow8", "eyebrow14"),
    "head": ("head1", "head4", "head5", "head7", "head9", "head11", "head12", "head13", "head17"),
    "mouth": ("smile", "smile3", "smile-closed"),
    "hair": (
        "short", "short2", "short3", "crop", "parted", "middle-part", "messy", "messy-short",
        "hair", "spike2", "spike4", "faux-hawk", "shaggy1", "curly", "curly3", "afro2",
    ),
    "nose": ("nose1", "nose5", "nose11", "small"),
    "back": ("none",) * 12 + ("longHair",),
}  # fmt: skip
# Half of the women wear their hair short or up, as in s; where few did, g drew loose strands.
WOMEN = {
    "eye": ("female4", "female8", "female9", "female10"),
    "eyebrow": ("female2", "female5", "female7"),
    "head": ("female1", "female3", "head2", "head13", "head14"),
    "mouth": ("smile", "smile3", "smile-closed"),
    "hair": (
        "female1", "female5", "female6", "female7", "female9", "female10", "female11", "female11",
        "female11", "shaggy1", "curly3", "afro2",
    ),
    "nose": ("nose7", "nose8", "nose10"),
    "back": ("none",) * 4 + ("female2", "female3", "female4", "female5"),
}  # fmt: skip
BALD = ("bald", "short-bald", "short-bald", "short-fade")
BEARDS = ("beard1", "beard2", "beard4", "fullgoatee", "fullgoatee2", "goatee1-stache", "mustache1")
GLASSES = ("glasses1-primary", "glasses2-black")
WRINKLES = ("forehead2", "forehead3", "forehead4")

# Layer, where its centre goes (None: where it was drawn), does it widen with the head.
LAYERS: tuple[tuple[str, tuple[tuple[int, int], ...], bool], ...] = (
    ("hairBg", (), True),
    ("body", (), False),
    ("jersey", (), False),
    ("ear", ((55, 325), (345, 325)), True),
    ("head", (), True),
    ("eyeLine", (), False),
    ("smileLine", ((150, 435), (250, 435)), False),
    ("miscLine", (), False),
    ("facialHair", (), True),
    ("eye", ((140, 310), (260, 310)), False),
    ("eyebrow", ((140, 270), (260, 270)), False),
    ("mouth", ((200, 440),), False),
    ("nose", ((200, 370),), False),
    ("hair", (), True),
    ("glasses", (), True),
)


@dataclass(frozen=True)
class Avatar:
    """Every choice of one avatar; numbers are between 0 and 1 where not said otherwise."""

    woman: bool
    tone: float  # of the skin, light to dark
    skin: Colour
    hair_name: str
    hair_colour: Colour
    age: float
    fatness: float
    hair: str
    back: str
    head: str
    beard: str
    stubble: float
    glasses: str
    eye: str
    eye_angle: int  # degrees
    eyebrow: str
    eyebrow_angle: int
    nose: str
    nose_size: float
    mouth: str
    lips: Colour  # of a woman
    ear_size: float
    wrinkles: str
    eye_line: str
    smile_line: str
    flip: bool  # of the hair


def _between(colours: tuple[Colour, ...], place: float) -> Colour:
    """The colour at `place`, 0 to 1, of an even scale."""
    at = place * (len(colours) - 1)
    low = min(int(at), len(colours) - 2)
    pairs = zip(colours[low], colours[low + 1], strict=True)
    return tuple(round(a + (b - a) * (at - low)) for a, b in pairs)  # type: ignore[return-value]


def sample(random: Random) -> Avatar:
    """An avatar in a plausible combination; genders and ages come evenly, skin
    tones nearly so, a little more often light, as in s."""
    pick, chance = random.choice, random.random
    woman = chance() < 0.5
    own = WOMEN if woman else MEN
    tone = chance() ** 1.4
    age = chance()
    odds = list(HAIR_LIGHT if tone < 0.34 else HAIR_DARK)
    odds[-2:] = [weight * 4 if age > 0.7 else 0 for weight in odds[-2:]]  # grey and white
    hair_name = random.choices(list(HAIR), odds)[0]
    shade = random.uniform(0.85, 1.12)
    bald = not woman and chance() < 0.08 + 0.27 * age
    bearded = not woman and chance() < 0.4
    hair = pick(BALD if bald else own["hair"])
    red, green, blue = (min(255, round(value * shade)) for value in HAIR[hair_name])
    return Avatar(
        woman=woman,
        tone=tone,
        skin=_between(SKIN, tone),
        hair_name=hair_name,
        hair_colour=(red, green, blue),
        age=age,
        fatness=random.uniform(0, 0.6 if woman else 1),
        hair=hair,
        back="none" if bald or hair in ("afro2", "curly3") else pick(own["back"]),
        head=pick(own["head"]),
        beard=pick(BEARDS) if bearded else "none",
        stubble=random.uniform(0.05, 0.2) if not woman and not bearded and chance() < 0.3 else 0.0,
        glasses=pick(GLASSES) if chance() < 0.1 + 0.2 * age else "none",
        eye=pick(own["eye"]),
        eye_angle=random.randint(-5, 5),
        eyebrow=pick(own["eyebrow"]),
        eyebrow_angle=random.randint(-8, 4),
        nose=pick(own["nose"]),
        nose_size=random.uniform(0.55, 0.9) if woman else random.uniform(0.6, 1.2),
        mouth=pick(own["mouth"]),
        lips=_between(LIPS, tone),
        ear_size=random.uniform(0.5, 0.9 if woman else 1.2),
        wrinkles=pick(WRINKLES) if age > 0.75 and not woman else "none",
        eye_line=pick(("line1", "line3", "line4")) if age > 0.6 else "none",
        smile_line=pick(("line1", "line4")) if age > 0.5 else "none",
        flip=chance() < 0.5,
    )


class Artwork:
    """The parts of facesjs as SVG fragments, and the box that each fills, without strokes."""

    def __init__(self, folder: Path) -> None:
        """`folder` holds the package's svgs.js. Raises FileNotFoundError where it does not."""
        path = folder / "svgs.js"
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: run `dtn data --packages`")
        text = path.read_text("utf-8")
        self.parts: dict[str, dict[str, str]] = json.loads(
            text[text.index("{") : text.rindex("}") + 1]
        )
        self.box = cache(self._box)

    def _box(self, layer: str, part: str) -> Box:
        fragment = re.sub(r"\$\[\w+\]", "#000", self.parts[layer][part])
        document = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="400" height="600">{fragment}</svg>'
        )
        box = SVG.parse(io.StringIO(document)).bbox(with_stroke=False)
        x0, y0, x1, y1 = (float(value) for value in box)
        return x0, y0, x1, y1


def _rgb(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _layers(avatar: Avatar) -> dict[str, tuple[str, float, float, bool]]:
    """Layer to part, size, angle in degrees, mirrored or not."""
    plain = (1.0, 0.0, False)
    body = 0.85 if avatar.woman else 1.0
    return {
        "hairBg": (avatar.back, *plain),
        "body": ("body", body, 0.0, False),
        "jersey": ("jersey", body, 0.0, False),
        "ear": ("ear1", avatar.ear_size, 0.0, False),
        "head": (avatar.head, *plain),
        "eyeLine": (avatar.eye_line, *plain),
        "smileLine": (avatar.smile_line, 0.8 + 0.6 * avatar.age, 0.0, False),
        "miscLine": (avatar.wrinkles, *plain),
        "facialHair": (avatar.beard, *plain),
        "eye": (avatar.eye, 1.0, avatar.eye_angle, False),
        "eyebrow": (avatar.eyebrow, 1.0, avatar.eyebrow_angle, False),
        "mouth": (avatar.mouth, *plain),
        "nose": (avatar.nose, avatar.nose_size, 0.0, False),
        "hair": (avatar.hair, 1.0, 0.0, avatar.flip),
        "glasses": (avatar.glasses, *plain),
    }


def _about(centre: tuple[float, float], across: float, down: float) -> str:
    """An SVG transform that scales about `centre`."""
    x, y = centre
    return f"translate({x:.3f} {y:.3f}) scale({across:.4f} {down:.4f}) translate({-x:.3f} {-y:.3f})"


def _thin(fragment: str, scale: float) -> str:
    """Strokes so wide that after scaling they look as they were drawn."""
    return re.sub(
        r'stroke-width(="|:)([\d.]+)',
        lambda found: f"stroke-width{found[1]}{float(found[2]) / scale:.3f}",
        fragment,
    )


def compose(avatar: Avatar, artwork: Artwork, side: int) -> str:
    """The avatar as an SVG document, `side` pixels square, cropped as photographs are."""
    x, y, extent = VIEW
    colours = SHIRT | {
        "skinColor": _rgb(avatar.skin),
        "hairColor": _rgb(avatar.hair_colour),
        "faceShave": f"rgba(0,0,0,{avatar.stubble:.2f})",
        "headShave": "rgba(0,0,0,0)",
    }
    drawn = []
    chosen = _layers(avatar)
    for layer, places, widens in LAYERS:
        part, size, angle, mirrored = chosen[layer]
        fragment = artwork.parts[layer].get(part)
        if not fragment:  # "none", and a bald head's hair
            continue
        x0, y0, x1, y1 = artwork.box(layer, part)
        centre = (x0 + x1) / 2, (y0 + y1) / 2
        width = 0.8 + 0.2 * avatar.fatness if widens and not places else 1.0
        for i, place in enumerate(places or (None,)):
            second = i == 1  # the right eye is the left one mirrored
            across = -size if mirrored or second else size
            steps = []
            if place is not None:
                inwards = (1 - avatar.fatness) * 31 * (1 - 2 * i) if widens else 0.0
                steps.append(
                    f"translate({place[0] + inwards - centre[0]:.3f} {place[1] - centre[1]:.3f})"
                )
            if angle:
                steps.append(
                    f"rotate({-angle if second else angle} {centre[0]:.3f} {centre[1]:.3f})"
                )
            down = 1.0 if layer in ("body", "jersey") else size
            if (across, down, width) != (1, 1, 1):
                steps.append(_about(centre, across * width, down))
            if layer == "mouth" and avatar.woman:
                fragment = fragment.replace("stroke:#000", f"stroke:{_rgb(avatar.lips)}")
            if layer == "glasses":
                fragment = fragment.replace("$[primary]", FRAME).replace(*LENS)
            scaled = _thin(fragment, (abs(across) * width + down) / 2)
            drawn.append(f'<g transform="{" ".join(steps)}">{scaled}</g>')
    body = "".join(drawn)
    for name, value in colours.items():
        body = body.replace(f"$[{name}]", value)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{side}" height="{side}" '
        f'viewBox="{x:.3f} {y:.3f} {extent:.3f} {extent:.3f}">'
        f'<rect x="{x:.3f}" y="{y:.3f}" width="100%" height="100%" fill="{BACKGROUND}"/>'
        f"{body}</svg>"
    )


def rasterise(document: str) -> npt.NDArray[np.uint8]:
    """An SVG document in pixels: uint8 [side, side, 3]."""
    tree = usvg.Tree.from_str(document, usvg.Options.default())
    png = render(tree, (1, 0, 0, 0, 1, 0))
    with Image.open(io.BytesIO(bytes(png))) as picture:
        return np.asarray(picture.convert("RGB"))


def draw(seed: int, folder: Path, sides: tuple[int, ...]) -> tuple[Avatar, list[bytes]]:
    """The avatar of a seed and its pixels at each of `sides`."""
    avatar = sample(Random(seed))  # noqa: S311
    artwork = _artwork(folder)
    return avatar, [rasterise(compose(avatar, artwork, side)).tobytes() for side in sides]


_artwork = cache(Artwork)


def avatars(
    n: int,
    folder: Path,
    sides: tuple[int, ...] = (64,),
    seed: int = 0,
    processes: int | None = None,
) -> tuple[list[dict[str, object]], list[npt.NDArray[np.uint8]]]:
    """`n` avatars: their attributes, and for each side uint8 [n, side, side, 3].

    `folder` holds the package's artwork. The same seed gives the same avatars, whatever the
    number of processes; by default one a core.
    """
    attributes: list[dict[str, object]] = []
    pictures = [np.empty((n, side, side, 3), np.uint8) for side in sides]
    seeds = range(seed * 10_000_019, seed * 10_000_019 + n)
    with multiprocessing.get_context("spawn").Pool(
        processes or len(os.sched_getaffinity(0))
    ) as pool:
        drawn: Iterator[tuple[Avatar, list[bytes]]] = pool.imap(
            partial(draw, folder=folder, sides=sides), seeds, 64
        )
        for i, (avatar, images) in enumerate(tqdm(drawn, "drawing avatars", n, unit="avatar")):
            attributes.append(asdict(avatar))
            for all_of_side, side, image in zip(pictures, sides, images, strict=True):
                all_of_side[i] = np.frombuffer(image, np.uint8).reshape(side, side, 3)
    return attributes, pictures
