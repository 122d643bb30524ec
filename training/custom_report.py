"""report.html of a custom run: one file with its pictures, curves, figures and settings."""

import base64
import dataclasses
import html
import io
import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from training.config import CustomConfig
from training.custom_metrics import ROWS, Drawn, shown
from training.figures import grid
from training.run import Run

PAIRS, COLUMNS, LOOKUPS = 48, 6, 8
WIDTH, HEIGHT, LEFT, BOTTOM = 320, 140, 44, 18  # of a chart, pixels
CURVES = {
    "const": "L_CONST, Eq. 5",
    "tid": "L_TID, Eq. 6",
    "gang": "L_GANG, Eq. 4",
    "d": "L_D, Eq. 3",
}
STYLE = """
:root { color-scheme: light dark; --ink: #1c1c22; --paper: #fff; --line: #d4d4dc; --curve: #2952cc }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8ee; --paper: #17171c; --line: #3c3c48; --curve: #8fb0ff }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 960px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.15rem; margin-top: 2rem }
img { max-width: 100%; height: auto; image-rendering: pixelated; border: 1px solid var(--line) }
table { border-collapse: collapse } td, th { text-align: left; padding: .2rem .8rem .2rem 0;
  border-bottom: 1px solid var(--line); vertical-align: top }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
figure { margin: 1rem 0 } figcaption { font-size: .9rem }
svg { max-width: 100%; height: auto; display: block } svg text { fill: var(--ink); font-size: 11px }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 1rem }
code { overflow-wrap: anywhere }
"""


def picture(image: Image.Image, text: str, caption: str) -> str:
    """An image inside the page, small pictures enlarged without smoothing."""
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    data = base64.b64encode(file.getvalue()).decode()
    scale = max(1, 900 // image.width)
    return (
        f'<figure><img alt="{html.escape(text)}" width="{scale * image.width}"'
        f' height="{scale * image.height}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def evenly(x: Tensor, n: int) -> Tensor:
    """n of the pictures, from all over."""
    return x[torch.linspace(0, len(x) - 1, min(n, len(x))).long()]


def curve(name: str, steps: list[int], values: list[float]) -> str:
    """One loss over steps as inline SVG."""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    last = max(steps)
    points = " ".join(
        f"{LEFT + (WIDTH - LEFT - 8) * step / last:.1f},"
        f"{8 + (HEIGHT - BOTTOM - 16) * (1 - (value - low) / span):.1f}"
        for step, value in zip(steps, values, strict=True)
    )
    base = HEIGHT - BOTTOM
    return (
        f'<figure><svg role="img" viewBox="0 0 {WIDTH} {HEIGHT}" aria-label="{CURVES[name]} from'
        f' {values[0]:.3g} to {values[-1]:.3g}">'
        f'<path d="M{LEFT} 4V{base}H{WIDTH}" fill="none" stroke="var(--line)"/>'
        f'<polyline points="{points}" fill="none" stroke="var(--curve)" stroke-width="1.5"/>'
        f'<text x="2" y="14">{high:.3g}</text><text x="2" y="{base}">{low:.3g}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT - 4}" text-anchor="end">step {last:,}</text></svg>'
        f"<figcaption>{CURVES[name]}</figcaption></figure>"
    )


def curves(log: Path) -> str:
    """Every loss of the run's log; a step that was trained twice counts as it came out last."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    by_step = {line["step"]: line for line in lines if line["network"] == "dtn"}
    charts = []
    for name in CURVES:
        points = [(step, by_step[step][name]) for step in sorted(by_step) if name in by_step[step]]
        if points:
            steps, values = zip(*points, strict=True)
            charts.append(curve(name, list(steps), list(values)))
    return "\n".join(charts)


def table(rows: list[tuple[str, ...]]) -> str:
    """Rows of text; the second cell is a number."""
    lines = (
        "<tr>"
        + "".join(
            f'<td class="number">{cell}</td>' if i == 1 else f"<td>{cell}</td>"
            for i, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return f"<table>{''.join(lines)}</table>"


def settings(config: CustomConfig, chosen: dict[str, Any]) -> str:
    """Every choice of the run, and what was found out about an ONNX f."""
    values = dataclasses.asdict(config) | {f"f: {name}": value for name, value in chosen.items()}
    for name in ("source", "target", "f"):  # where they lie is nobody else's business
        values[name] = Path(values[name]).name
    rows = (
        f"<tr><td><code>{html.escape(name)}</code></td><td><code>{html.escape(str(value))}"
        "</code></td></tr>"
        for name, value in values.items()
        if value is not None
    )
    return f"<table>{''.join(rows)}</table>"


def write_report(
    run: Run, config: CustomConfig, record: dict[str, Any], drawn: Drawn, chosen: dict[str, Any]
) -> Path:
    """Write run/report.html; `record` is metrics.json. Returns its path."""
    source, target = (html.escape(Path(each).name) for each in (config.source, config.target))
    figures = table(
        [
            (ROWS[name], shown(name, metric["value"]), f"{metric['split']} ({metric['n']:,})")
            for name, metric in record["metrics"].items()
        ]
    )
    pairs = grid((evenly(drawn.s, PAIRS), evenly(drawn.gs, PAIRS)), COLUMNS, 4)
    identity = grid((evenly(drawn.t, 24), evenly(drawn.gt, 24)), COLUMNS, 4)
    looked = grid(
        tuple(evenly(x, LOOKUPS) for x in (drawn.s, drawn.gs, drawn.lookup, drawn.copied)), 2, 4
    )
    sizes = ", ".join(f"{name}: {size:,}" for name, size in record["splits"].items())
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{source} to {target}</title><style>{STYLE}</style></head><body>
<h1>{source} → {target}</h1>
<p>A Domain Transfer Network, G = g∘f, seed {record["seed"]}, {record["steps"]:,} steps of
{record["batch"]}, trained on {html.escape(record["device"])}, {record["date"]}. Pictures: {sizes}.
All that is shown and measured here took no part in training.</p>
<h2>Source and G(source)</h2>
{picture(pairs, "pictures of the source, each beside G of it", "x to the left of G(x).")}
<h2>Target and G(target)</h2>
{
        picture(
            identity,
            "pictures of the target, each beside G of it",
            "G should leave them as they are.",
        )
    }
<h2>Does it copy?</h2>
{
        picture(
            looked,
            "source, G, the nearest of the target by f, the nearest of the target to G",
            "In groups of four: x; G(x); the picture of t nearest to x by f, a lookup without G;"
            " the picture of t nearest to G(x) in pixels. G(x) that equals the last is a copy.",
        )
    }
<h2>Figures</h2>
{figures}
<h2>Losses</h2>
<div class="charts">{curves(run.folder / "log.jsonl")}</div>
<h2>Settings</h2>
{settings(config, chosen)}
</body></html>
"""
    path = run.folder / "report.html"
    path.write_text(page)
    return path
