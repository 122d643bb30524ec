"""The rows of the paper's tables: each a preset, as what it changes in another."""

from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Row:
    """A row: its preset, how the table names it, the paper's figure where it has one."""

    preset: str
    label: str
    paper: float | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    base: str = "digits_paper"  # the preset that it changes


DTN = Row("digits_paper", "DTN", 0.9066)
DTN_PLUS = Row("digits", "DTN+: all of these")

TABLE1 = (
    Row(
        "table1_baseline",
        "Baseline method (Sec. 3)",
        0.1371,
        {"adversary": "binary", "from_pixels": True, "beta": 0.0},
    ),
    DTN,
    Row("table1_no_tid", "DTN w/o L_TID", 0.8840, {"beta": 0.0}),
    Row("table1_no_const", "DTN w/o L_CONST", 0.7455, {"alpha": 0.0}),
    Row("table1_no_f", "DTN, G does not contain f", 0.3690, {"from_pixels": True}),
    Row("table1_no_gan", "DTN w/o L_D and L_GANG", 0.3470, {"adversary": "none"}),
    Row("table1_gan_only", "DTN w/o L_CONST and L_TID", 0.0528, {"alpha": 0.0, "beta": 0.0}),
)
# An f that learned as the paper's did, from what can be had; its preset is in config.py.
PLAIN_F = Row("plain_f", "DTN, f taught without augmentation")
# Is it a hard taught f that lets rows without it, and without the rest, stand so high?
TABLE1_PLAIN = (
    replace(PLAIN_F, label=DTN.label, paper=DTN.paper),
    *(
        replace(row, preset=row.preset.replace("table1", "plain"), base=PLAIN_F.preset)
        for row in TABLE1
        if row.changes
    ),
)
UNTRANSFERRED = Row("digits_paper", "Original SVHN picture", 0.4006)


def at_alpha_1(row: Row) -> Row:
    """The same row with an L_CONST that weighs little."""
    name = "alpha1_dtn" if row is DTN else row.preset.replace("table1", "alpha1")
    return replace(row, preset=name, changes=row.changes | {"alpha": 1.0})


# The paper gives one alpha for all of its digits, its baseline perhaps included.
TABLE1_ALPHA = tuple(at_alpha_1(row) for row in TABLE1 if "alpha" not in row.changes)

# Beyond the paper, each alone on top of DTN, then all.
PLUS = (
    Row("plus_ema", "DTN, g averaged", changes={"ema": 0.999}),
    Row("plus_r1", "DTN, R1 on t", changes={"r1": 1.0, "r1_every": 4}),
    Row("plus_diff_augment", "DTN, DiffAugment", changes={"diff_augment": True}),
    Row("plus_views", "DTN, augmented views of s", changes={"s_views": 4}),
    Row("plus_balance", "DTN, s drawn evenly by what f reads", changes={"balance": True}),
    Row(
        "plus_logits",
        "DTN, L_CONST mostly in f's logits",
        changes={"const_logits": 0.7},
    ),
    Row("plus_lr_decay", "DTN, learning rate to 0", changes={"lr_decay": True}),
    DTN_PLUS,
)

TABLE3 = (
    Row("digits_paper", "DTN", 0.9467),
    Row("table3_s", "3 was not shown in s", 0.9333, {"omit": "s"}),
    Row("table3_t", "3 was not shown in t", 0.4013, {"omit": "t"}),
    Row("table3_st", "3 was not shown in s or t", 0.6002, {"omit": "st"}),
    Row("table3_stf", "3 was not shown in s, t, or to f", 0.0452, {"omit": "stf"}),
)

# Sec. 3 and 4 name these and say that they hardly matter.
VARIANTS = (
    Row("digits_paper", "d and d2: mean squared error"),
    Row("d_cosine", "d: cosine distance", changes={"d": "cosine"}),
    Row("d_hinge", "d: hinge", changes={"d": "hinge"}),
    Row("d_triplet", "d: triplet", changes={"d": "triplet"}),
    Row("d2_gan", "d2: a second GAN", changes={"d2": "gan", "beta": 1.0}),
)


def of_dtn_plus(row: Row, table: str) -> Row:
    """The same change in DTN+. A G from pixels has no views of f(s), and nothing to even out."""
    own = {"s_views": 0, "balance": False} if "from_pixels" in row.changes else {}
    name = row.preset.replace(table, DTN_PLUS.preset)
    return replace(row, preset=name, changes=row.changes | own, base=DTN_PLUS.preset)


# The paper's ablations of a DTN that also trains well when it is small.
TABLE1_PLUS = tuple(of_dtn_plus(row, "table1") for row in TABLE1 if row.changes)
TABLE3_PLUS = tuple(of_dtn_plus(row, "table3") for row in TABLE3 if row.changes)

REVERSE = Row("reverse", "MNIST to SVHN (appendix D)", changes={"reverse": True})
DANN = Row("dann", "DANN (Ganin et al. 2016)", 0.7385)

CHANGED = tuple(
    row
    for row in (
        *TABLE1,
        *TABLE1_ALPHA,
        *TABLE1_PLAIN,
        *PLUS,
        *TABLE3,
        *VARIANTS,
        REVERSE,
        *TABLE1_PLUS,
        *TABLE3_PLUS,
    )
    if row.changes
)
