"""The paper's tables from finished runs: figures are read from metrics.json, never typed."""

import json
from pathlib import Path
from typing import Any

PAPER_DTN = 0.9066  # Table 1, DTN


def finished(runs: Path) -> list[dict[str, Any]]:
    """metrics.json of every finished run in `runs`, in the order of their folders' names.

    Raises FileNotFoundError, with the command to run, where there is none.
    """
    found = [json.loads(path.read_text()) for path in sorted(runs.glob("*/metrics.json"))]
    if not found:
        raise FileNotFoundError(f"no finished run in {runs}: run `dtn train digits` first")
    return found


def table1(runs: Path) -> str:
    """Table 1's transfer accuracy of each finished run, with its split and what bounds it."""
    lines = [
        f"{'run':<14} {'transfer':>9} {'f':>8} {'f on t':>8} {'judge':>8}  seed  measured on",
        f"{'paper, DTN':<14} {PAPER_DTN:>9.2%} {0.9505:>8.2%} {0.7608:>8.2%} {0.994:>8.2%}"
        "     -  SVHN test (26,032), paper protocol",
    ]
    for run in finished(runs):
        metrics = run["metrics"]
        moved = metrics["transfer_accuracy"]
        lines.append(
            f"{run['preset']:<14} {moved['value']:>9.2%} {metrics['f_accuracy']['value']:>8.2%}"
            f" {metrics['f_accuracy_on_t']['value']:>8.2%}"
            f" {metrics['judge_accuracy']['value']:>8.2%}"
            f" {run['seed']:>5}  {moved['split']} ({moved['n']:,}), {run['protocol']} protocol"
        )
    return "\n".join(lines)
