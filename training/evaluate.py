"""Tables 1, 2 and 3 from finished runs: figures are read from metrics.json, never typed."""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.rows import (
    DANN,
    DTN,
    DTN_PLUS,
    PLAIN_F,
    PLUS,
    REVERSE,
    TABLE1,
    TABLE1_ALPHA,
    TABLE1_PLAIN,
    TABLE1_PLUS,
    TABLE3,
    TABLE3_PLUS,
    UNTRANSFERRED,
    VARIANTS,
    Row,
)


@dataclass(frozen=True)
class Line:
    """A line of a table: which metric of which preset's runs, and the paper's figure."""

    label: str
    preset: str
    metric: str
    paper: float | None = None


@dataclass(frozen=True)
class Figure:
    """What the runs of a line gave: one scale, one protocol, some seeds."""

    values: tuple[float, ...]  # by seed
    seeds: tuple[int, ...]
    steps: int
    batch: int
    split: str
    n: int  # pictures of the split
    protocol: str
    device: str
    date: str  # of the last run

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds; None of a single one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def __str__(self) -> str:
        """`92.10 % ± 0.35`, in points; without the ± of a single run."""
        spread = "" if self.spread is None else f" ± {100 * self.spread:.2f}"
        return f"{100 * self.mean:.2f} %{spread}"


def lines(rows: tuple[Row, ...], metric: str) -> tuple[Line, ...]:
    return tuple(Line(row.label, row.preset, metric, row.paper) for row in rows)


TABLES: dict[str, tuple[Line, ...]] = {
    "table1": (
        *lines((*TABLE1, DTN_PLUS, PLAIN_F), "transfer_accuracy"),
        *lines((UNTRANSFERRED,), "untransferred_accuracy"),
    ),
    "table1_alpha": lines(TABLE1_ALPHA, "transfer_accuracy"),
    "table1_plain": lines(TABLE1_PLAIN, "transfer_accuracy"),
    "table1_plus": lines((DTN_PLUS, *TABLE1_PLUS), "transfer_accuracy"),
    "plus": lines((DTN, *PLUS), "transfer_accuracy"),
    "table2": (
        Line("SA (Fernando et al. 2013)", "", "", 0.5932),
        *lines((DANN,), "adapted_accuracy"),
        Line("f itself, taught on SVHN alone", "digits_paper", "f_accuracy_on_t", 0.7608),
        Line("1-NN among G(train split), DTN", "digits_paper", "nearest_train", 0.8444),
        Line("1-NN among G(test split), DTN", "digits_paper", "nearest_test", 0.7972),
        Line("1-NN among G(train split), DTN+", "digits", "nearest_train"),
        Line("1-NN among G(test split), DTN+", "digits", "nearest_test"),
        Line("the same, of G(t) instead of t, train", "digits", "nearest_train_by_gt"),
        Line("the same, of G(t) instead of t, test", "digits", "nearest_test_by_gt"),
        Line("a classifier taught on G(train split), DTN+", "digits", "taught_train"),
    ),
    "table3": lines(TABLE3, "threes_accuracy"),
    "table3_plus": lines((DTN_PLUS, *TABLE3_PLUS), "threes_accuracy"),
    "variants": lines(VARIANTS, "transfer_accuracy"),
    "reverse": lines((REVERSE,), "transfer_accuracy"),
}


def finished(runs: Path) -> list[dict[str, Any]]:
    """metrics.json of every finished run of digits in `runs`, in the order of their folders."""
    records = (json.loads(path.read_text()) for path in sorted(runs.glob("*/metrics.json")))
    return [record for record in records if {"preset", "steps"} <= record.keys()]


def measured(line: Line, records: list[dict[str, Any]], protocol: str | None) -> list[Figure]:
    """One figure for each protocol and scale that there are runs of, the largest scale first."""
    groups: dict[tuple[str, int, int], dict[int, dict[str, Any]]] = {}
    for record in records:
        wanted = record["preset"] == line.preset and line.metric in record["metrics"]
        if wanted and protocol in (None, record["protocol"]):
            scale = (record["protocol"], record["steps"], record["batch"])
            groups.setdefault(scale, {})[record["seed"]] = record
    figures = []
    for (own, steps, batch), by_seed in sorted(groups.items(), reverse=True):
        seeds = tuple(sorted(by_seed))
        metrics = [by_seed[seed]["metrics"][line.metric] for seed in seeds]
        figures.append(
            Figure(
                tuple(metric["value"] for metric in metrics),
                seeds,
                steps,
                batch,
                metrics[0]["split"],
                metrics[0]["n"],
                own,
                " + ".join(sorted({record["device"] for record in by_seed.values()})),
                max(record["date"] for record in by_seed.values()),
            )
        )
    return figures


def show(name: str, records: list[dict[str, Any]], protocol: str | None = None) -> str:
    """The table `name`, a line each for the paper's figure and ours; the command of what lacks."""
    text = [f"{name:<46} {'paper':>8}  {'here':<18} seeds  steps  measured on"]
    lacking = False
    for line in TABLES[name]:
        paper = "" if line.paper is None else f"{line.paper:.2%}"
        figures = measured(line, records, protocol) if line.preset else []
        if not figures:
            lacking |= bool(line.preset)
            text.append(f"{line.label:<46} {paper:>8}  {'-':<18}")
        for figure in figures:
            text.append(
                f"{line.label:<46} {paper:>8}  {figure!s:<18} {len(figure.seeds):>5}"
                f"  {figure.steps:>5}  {figure.split} ({figure.n:,}), {figure.protocol} protocol"
            )
    if lacking:
        data = "" if protocol is None else f", with the data of the {protocol} protocol in --data"
        text.append(f"What is missing: dtn reproduce {name} --seeds 3{data}")
    return "\n".join(text)
