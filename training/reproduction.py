"""REPRODUCTION.md: the paper's tables beside ours, written from the figures that runs left."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training import table4
from training.evaluate import TABLES, Figure, Line, finished, measured

TEMPLATE = Path(__file__).with_suffix(".md")

TITLES = {
    "table1": "## Table 1: accuracy of the MNIST classifier on transferred pictures",
    "table1_alpha": "## Table 1 where L_CONST weighs little",
    "table1_plain": "## Table 1 where f was taught without augmentation",
    "table1_plus": "## Table 1 on top of DTN+",
    "plus": "## DTN+: each change beyond the paper, alone, then all",
    "table2": "## Table 2: domain adaptation from SVHN to MNIST",
    "table3": "## Table 3 and Figure 3: a digit that was not shown",
    "table3_plus": "## Table 3 on top of DTN+",
    "variants": "## Other distances d and d2 (Sec. 3 and 4)",
    "reverse": "## The reverse direction (appendix D, Figure 9a)",
}
NOTES = {
    "table1": "A judge taught on MNIST's train split reads G(x); right is x's own label.",
    "table1_alpha": "With α = 1, of a mean. The paper's α, and its figures', is 15, of a sum.",
    "table1_plain": "On real pictures as they are, as the paper's; that had 70 times as many.",
    "table1_plus": "What the paper leaves out of its DTN, left out of DTN+. The paper's "
    "figures are those of its own.",
    "plus": "Compare with DTN in the first line.",
    "table2": "Read right of `mnist_test` (t) without one of its labels. DANN is f's network and "
    "recipe with a domain classifier, trained here on the same pictures; SA was not rerun.",
    "table3": "Read right among transferred pictures of a 3. f's 3s may come from all it learns "
    "from: real, photographed meters, rendered; where f is not shown it, from none.",
    "table3_plus": "As above, with DTN+; the paper's figures are those of its own DTN.",
    "variants": "The paper reports no figures: “mostly unchanged”, “no noticeable improvement”.",
    "reverse": "A judge taught on `svhn_train` reads G(x); the paper shows pictures only.",
}


def collect(runs: Path, faces: Path, before: dict[str, Any]) -> dict[str, Any]:
    """What finished runs left: the records of digits, and of the faces' run its Table 4.

    A run that is not here any more, or was made elsewhere, stays as `before` has it.
    """
    records = {which_run(record): record for record in [*before["runs"], *finished(runs)]}
    path = faces / "table4.json"
    return {
        "runs": [records[which] for which in sorted(records)],
        "table4": json.loads(path.read_text()) if path.exists() else before["table4"],
    }


def which_run(record: dict[str, Any]) -> tuple[str, int, str, int, int]:
    """What tells runs apart: two that agree in it are the same run, made twice."""
    preset, seed, protocol = record["preset"], record["seed"], record["protocol"]
    return preset, seed, protocol, record["steps"], record["batch"]


def table_row(line: Line, figure: Figure | None) -> str:
    paper = "" if line.paper is None else f"{100 * line.paper:.2f} %"
    if figure is None:
        return f"| {line.label} | {paper} | | | | | | |"
    seeds = ", ".join(map(str, figure.seeds))
    return (
        f"| {line.label} | {paper} | {figure} | {seeds} | {figure.steps:,} x {figure.batch} "
        f"| `{figure.split}` ({figure.n:,}), {figure.protocol} | {figure.device} | {figure.date} |"
    )


def render(results: dict[str, Any]) -> str:
    """The whole of REPRODUCTION.md from what `collect` found."""
    parts = []
    for name, lines in TABLES.items():
        rows = [
            "| | paper | here | seeds | steps x batch | measured on | hardware | date |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for line in lines:
            figures = measured(line, results["runs"], None) if line.preset else []
            rows += [table_row(line, figure) for figure in figures] or [table_row(line, None)]
        parts.append(f"{TITLES[name]}\n\n{NOTES[name]} `dtn reproduce {name}`\n")
        parts.append("\n".join(rows) + "\n")
    if results["table4"] is not None:
        parts.append(table4_part(results["table4"]))
    return TEMPLATE.read_text().replace("<!-- tables -->\n", "\n".join(parts))


def table4_part(found: dict[str, Any]) -> str:
    """Table 4, the paper's rows first."""
    head = "| judge | probe | people | gallery | median rank | mean rank | rank-1 | rank-5 |"
    rows = [head, "|---|---|---|---|---|---|---|---|"]
    for row in [*map(asdict, table4.PAPER), *found["rows"]]:
        rows.append(
            f"| {row['judge']} | {row['probe']} | {row['n']} | {row['gallery']:,} "
            f"| {row['median']:,.1f} ({100 * row['median_share']:.2f} %) "
            f"| {row['mean']:,.1f} ({100 * row['mean_share']:.2f} %) "
            f"| {100 * row['rank_1']:.2f} % | {100 * row['rank_5']:.2f} % |"
        )
    note = (
        f"{found['people']} people kept out of training; {found['gallery_in_s']:,} pictures of the "
        "gallery were in s. `dtn evaluate table4 --run emoji`"
    )
    title = "## Table 4: whose emoji it is, found among many photographs"
    return f"{title}\n\n{note}\n\n" + "\n".join(rows) + "\n"


START, END = "<!-- results -->\n", "<!-- end of results -->"


def summary(results: dict[str, Any]) -> str:
    """The README's table: a line for each row of Tables 1 to 4, measured on its longest runs."""
    rows = ["| | the paper | here | steps x batch | seeds |", "|---|---|---|---|---|"]
    for name in ("table1", "table2", "table3"):
        for line in TABLES[name]:
            figures = measured(line, results["runs"], None) if line.preset else []
            for figure in sorted(figures, key=lambda found: found.steps * found.batch)[-1:]:
                paper = "" if line.paper is None else f"{100 * line.paper:.2f} %"
                label = f"{name.replace('table', 'Table ')}: {line.label}"
                size, seeds = f"{figure.steps:,} x {figure.batch}", len(figure.seeds)
                rows.append(f"| {label} | {paper} | {figure} | {size} | {seeds} |")
    if results["table4"] is not None:
        published = next(row for row in map(asdict, table4.PAPER) if "DTN" in row["probe"])
        for row in results["table4"]["rows"]:
            if "DTN" in row["probe"]:
                rows.append(
                    f"| Table 4: median rank of the emoji's person, {row['judge']} "
                    f"| {published['median']:,.0f} of {published['gallery']:,} "
                    f"| {row['median']:,.0f} of {row['gallery']:,} | | 1 |"
                )
    return "\n".join(rows) + "\n"


def with_summary(text: str, results: dict[str, Any]) -> str:
    """A README with the summary between its two marks; as it is where it has none."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    return before + start + summary(results) + end + after if end else text


def write_report(runs: Path, faces: Path, out: Path) -> list[Path]:
    """REPRODUCTION.md, the figures beside it, and the table in a README beside both.

    Figures that are there already stay where no run of `runs` has newer ones.
    Raises FileNotFoundError without any figure.
    """
    figures = out.with_suffix(".json")
    before = json.loads(figures.read_text()) if figures.exists() else {"runs": [], "table4": None}
    results = collect(runs, faces, before)
    if not results["runs"] and results["table4"] is None:
        raise FileNotFoundError(f"no finished run in {runs}: run `dtn reproduce table1` first")
    figures.write_text(json.dumps(results, indent=1) + "\n")
    out.write_text(render(results))
    readme = out.with_name("README.md")
    if readme.exists():
        readme.write_text(with_summary(readme.read_text(), results))
    return [out, figures]
