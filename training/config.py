"""Every choice of a training run: frozen dataclasses, and the presets by name."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from training.rows import CHANGED


@dataclass(frozen=True)
class Augment:
    """How far `augment.augment` may go with a labelled picture."""

    rotate: float = 12.0  # degrees either way
    shear: float = 0.2
    scale: float = 1.25  # zoom between 1 / scale and scale
    stretch: float = 0.15  # log of the change of width to height
    shift: float = 3.0  # pixels either way
    elastic: float = 0.4  # pixels, standard deviation of a smooth bend
    thicken: float = 0.1  # chance of thicker or thinner strokes
    neighbours: float = 0.3  # chance of a neighbouring digit at a side
    neighbour_width: float = 8.0  # pixels at most
    blur: float = 1.0  # share of the blurred picture at most
    invert: float = 0.5  # chance of a negative
    color: float = 1.5  # saturation at most
    contrast: float = 0.5  # between this and its inverse
    tint: float = 0.15  # per channel, gain and offset
    brightness: float = 0.3
    cutout: float = 0.3  # chance of a blank square
    cutout_side: float = 10.0  # pixels
    noise: float = 0.12  # standard deviation at most


@dataclass(frozen=True)
class ClassifierConfig:
    """How f or the judge is trained."""

    steps: int
    real: int = 128  # pictures of a batch from the labelled split
    meter: int = 0  # from photographed meter digits
    rendered: int = 0  # from rendered house numbers
    rendered_pictures: int = 40_000  # how many different ones
    pen: float = 0.0  # share of the rendered drawn with a pen: better on t, worse for the DTN
    lr: float = 3e-3
    warmup: int = 300  # steps
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    ema: float = 0.999  # 0: the last weights themselves
    augment: Augment | None = None
    standardise: bool = True  # each picture to mean 0, deviation 1


@dataclass(frozen=True, kw_only=True)
class DTNConfig:
    """How g and D are trained, Sec. 4; the same for digits and faces."""

    steps: int
    batch: int = 128  # of s, and as many of t
    lr: float = 2e-4
    beta1: float = 0.5
    alpha: float = 15.0  # weight of L_CONST
    beta: float = 15.0  # weight of L_TID
    gamma: float = 0.0  # weight of L_TV
    d: Literal["mse", "cosine", "hinge", "triplet"] = "mse"  # the distance of Eq. 5
    d2: Literal["mse", "gan"] = "mse"  # the distance of Eq. 6; gan: a second D learns it
    adversary: Literal["ternary", "binary", "none"] = "ternary"  # Eq. 3-4, Eq. 1, or no D
    common_batch: bool = False  # D sees G(s), G(t) and t as one batch, with common statistics
    from_pixels: bool = False  # G starts from pictures instead of f(x)
    g_width: int = 64
    d_width: int = 32
    seed: int = 0
    # Beyond the paper, one field each; 0 or False switches it off.
    ema: float = 0.0  # of g's weights, which are then evaluated and exported
    r1: float = 0.0  # weight of the gradient penalty on real t (Mescheder et al. 2018)
    r1_every: int = 8  # steps
    spectral_norm: bool = False  # in place of batch normalisation in D
    diff_augment: bool = False  # D's inputs shifted and cut (Zhao et al. 2020)
    s_views: int = 0  # augmented (faces: jittered) copies of s beside s itself
    const_jitter: bool = False  # f of G(x) shifted, turned and grainy in L_CONST
    const_logits: float = 0.0  # share of L_CONST between logits of f's classifier, not features
    balance: bool = False  # draw s evenly, as f reads it, and t to match it where it can
    tid_first: int = 0  # steps at the start in which g learns L_TID alone
    lr_decay: bool = False  # cosine to zero
    bf16: bool = True  # autocast


@dataclass(frozen=True, kw_only=True)
class DigitsConfig(DTNConfig):
    """A run between SVHN and MNIST, Sec. 5.1."""

    f: ClassifierConfig
    judge: ClassifierConfig
    holdout: int = 0  # labelled pictures at the end of svhn_train kept for choosing
    omit: str = ""  # where the digit 3 is left out, Table 3: letters of "s", "t" and "f"
    reverse: bool = False  # from MNIST to SVHN, appendix D


@dataclass(frozen=True, kw_only=True)
class FacesConfig(DTNConfig):
    """A run from photographs of faces to emoji, Sec. 5.2, or back, or to posters."""

    # What T holds; s is avatars where it is photographs (Figure 9b), else photographs.
    t: Literal["avatars", "photographs", "posters"] = "avatars"
    avatars: int = 32_000  # how many different ones there are
    d_side: int = 64  # pixels of D's input; the paper has 152
    # Of f, beyond the paper's plain representation.
    appearance: float = 0.0  # weight of the colours of hair and skin beside the identity
    glasses: bool = False  # f reads spectacles, too, of a network taught for that
    remove: int = 0  # directions of f that only tell drawings from photographs
    caricature: float = 1.0  # a factor of who it is, in what a finished g is given
    finish: int = 0  # steps at the end in which f sees G(s) enlarged, as it is delivered
    finish_every: int = 1  # in every so many of them; in the others it sees G(s) itself
    # In all of them:
    finish_alpha: float | None = None  # in place of alpha
    red: float = 0.0  # weight of how far G(s) is from what is delivered of it
    symmetry: float = 0.0  # weight of how far faces in G(s) are from their mirror images
    stress_glasses: float = 1.0  # a factor of f's reading of spectacles in L_CONST
    stress_colours: float = 1.0  # and of skin and hair

    def __post_init__(self) -> None:
        if self.finish and self.t != "avatars":
            raise ValueError(f"only emoji are enlarged: no finish of {self.t}")
        if self.finish and self.finish >= self.steps:
            raise ValueError(
                f"of {self.steps} steps the last {self.finish} cannot be the finish: "
                "choose --finish, too"
            )
        if self.stress_glasses != 1 and not self.glasses:
            raise ValueError("stress_glasses wants an f that reads glasses")
        if self.stress_colours != 1 and not self.appearance:
            raise ValueError("stress_colours wants an f that reads colours")
        if self.caricature <= 0:
            raise ValueError(f"a caricature of {self.caricature} shows nobody: at least above 0")


@dataclass(frozen=True, kw_only=True)
class CustomConfig(DTNConfig):
    """A run between two folders of pictures; most of it is found in them, by `custom.settled`."""

    source: str  # folder of s
    target: str  # folder of t
    pictures: str  # digest of what they hold
    f: str  # "labelled", "faces", an ONNX file, or the folder of a run of digits
    side: int = 32  # pixels of G(x), and of s and t as they are learned from
    channels: int = 3  # of t: 1 where it is grey
    fit: Literal["crop", "pad"] = "crop"  # how pictures become square
    f_steps: int = 0  # of an f that is taught on labels
    # Of an ONNX f: the value to take, how its pictures are, and their side. None: see onnx_f.py.
    layer: str | None = None
    f_range: str | None = None
    f_side: int | None = None


F_DIGITS = ClassifierConfig(steps=4500, real=64, meter=16, rendered=48, augment=Augment())
JUDGE = ClassifierConfig(
    steps=2500,
    augment=Augment(thicken=0, neighbours=0, invert=0, tint=0, brightness=0.1, cutout=0.2),
)

# The emoji without a finish.
EMOJI_PLAIN = FacesConfig(
    steps=13_000,
    batch=16,
    lr=4e-4,
    alpha=8.0,
    beta=30.0,
    gamma=0.05,
    d_width=48,
    ema=0.999,
    r1=1.0,
    r1_every=8,
    diff_augment=True,
    s_views=1,
    const_jitter=True,
    balance=True,
    tid_first=1000,
    lr_decay=True,
    appearance=2.0,
    glasses=True,
    remove=2,
)

EMOJI = dataclasses.replace(
    EMOJI_PLAIN,
    steps=17_000,
    finish=4000,
    finish_every=2,
    finish_alpha=6.0,
    red=100.0,
    symmetry=20.0,
    stress_glasses=2.0,
    stress_colours=1.5,
    caricature=1.75,
)

EMOJI_FIRST = dataclasses.replace(
    EMOJI_PLAIN, alpha=1.0, s_views=0, const_jitter=False, glasses=False
)

# Of G(x) inside L_CONST.
JITTER = Augment(rotate=4, shear=0.03, scale=1.06, stretch=0.03, shift=2, elastic=0, noise=0.05)
VIEWS = Augment(neighbours=0, cutout=0)  # of s inside the DTN

PRESETS: dict[str, DigitsConfig | FacesConfig] = {
    "digits": DigitsConfig(
        f=F_DIGITS,
        judge=JUDGE,
        steps=800,
        batch=64,
        lr=5e-4,
        ema=0.999,
        r1=1.0,
        r1_every=4,
        diff_augment=True,
        s_views=4,
        balance=True,
        const_logits=0.7,
        lr_decay=True,
    ),
    # G and D have nothing that the paper does not have. f is given to a DTN: ours learns as hard
    # as it can, to be about as accurate as the paper's, which had 70 times the labels.
    # D is narrow and sees its three kinds as one batch, or it wins at once (LOG.md).
    "digits_paper": DigitsConfig(f=F_DIGITS, judge=JUDGE, steps=6000, d_width=8, common_batch=True),
    # The same on an f that learned from the real pictures as they are.
    "plain_f": DigitsConfig(
        f=ClassifierConfig(steps=4000, ema=0, standardise=False),
        judge=JUDGE,
        steps=6000,
        d_width=8,
        common_batch=True,
    ),
    # Minutes on two CPU cores: every part runs, no figure means anything.
    "digits_smoke": DigitsConfig(
        f=ClassifierConfig(
            steps=60, real=32, rendered=32, rendered_pictures=500, augment=Augment()
        ),
        judge=ClassifierConfig(steps=60, real=64),
        steps=60,
        batch=32,
        g_width=16,
        d_width=16,
        ema=0.9,
        r1=1.0,
        diff_augment=True,
        s_views=1,
        balance=True,
    ),
    "emoji": EMOJI,
    # Figures 9b and 5: the recipe that the emoji had at first, between other domains.
    "faces_reverse": dataclasses.replace(EMOJI_FIRST, t="photographs", steps=6000),
    "faces_style": dataclasses.replace(EMOJI_FIRST, t="posters", appearance=0.0, steps=4000),
    # As in Sec. 5.2, with f, s and t that can be had.
    "faces_paper": FacesConfig(
        steps=20_000, batch=32, alpha=100.0, beta=1.0, gamma=0.05, d_side=152
    ),
    "faces_smoke": FacesConfig(
        steps=20,
        batch=8,
        avatars=200,
        g_width=16,
        d_width=16,
        ema=0.9,
        balance=True,
        diff_augment=True,
        tid_first=5,
        appearance=2.0,
        remove=2,
    ),
}


PRESETS |= {row.preset: dataclasses.replace(PRESETS[row.base], **row.changes) for row in CHANGED}
# Table 2's peer: f's recipe, with t to tell from s.
PRESETS["dann"] = DigitsConfig(f=F_DIGITS, judge=JUDGE, steps=F_DIGITS.steps, batch=64)


def of_digits(config: DTNConfig) -> DigitsConfig:
    """`config`, known to be of digits. Raises ValueError where it is not."""
    if not isinstance(config, DigitsConfig):
        raise ValueError("this is no run of digits")
    return config


def from_dict(values: dict[str, Any]) -> DigitsConfig | FacesConfig | CustomConfig:
    """The configuration that `dataclasses.asdict` gave; raises TypeError on unknown fields."""
    if "target" in values:
        return CustomConfig(**values)
    if "judge" not in values:
        return FacesConfig(**values)
    parts = {}
    for name in ("f", "judge"):
        part = dict(values[name])
        how = part.pop("augment")
        parts[name] = ClassifierConfig(**part, augment=None if how is None else Augment(**how))
    return DigitsConfig(**values | parts)


def preset(name: str, **changes: Any) -> DigitsConfig | FacesConfig:
    """The preset `name` with some fields changed; None leaves a field as it is.

    Raises ValueError with one clear line for an unknown preset or field.
    """
    if name not in PRESETS:
        raise ValueError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    wanted = {key: value for key, value in changes.items() if value is not None}
    known = {field.name for field in dataclasses.fields(PRESETS[name])}
    if unknown := wanted.keys() - known:
        raise ValueError(f"no field {', '.join(sorted(unknown))} in the preset {name!r}")
    return dataclasses.replace(PRESETS[name], **wanted)
