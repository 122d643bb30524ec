"""CARD.md of a model folder, written from its manifest and nothing else."""

from typing import Any

ROWS = {
    "transfer_accuracy": "transfer accuracy: the judge reads G(x) as x's label (Table 1)",
    "f_accuracy": "f on the same pictures",
    "f_accuracy_on_t": "f on t, whose labels it never saw",
    "judge_accuracy": "the judge on its own test set",
    "f_distance_mean": "mean ‖f(x) - f(G(x))‖",
}


def _figure(name: str, metric: dict[str, Any]) -> str:
    value = metric["value"]
    shown = f"{100 * value:.2f} %" if name.endswith(("accuracy", "accuracy_on_t")) else f"{value}"
    return f"| {ROWS.get(name, name)} | {shown} | `{metric['split']}` ({metric['n']:,}) |"


def card(manifest: dict[str, Any]) -> str:
    """Markdown for people: what the model does, how well, on what data, and its limits."""
    training, data = manifest["training"], manifest["data"]
    splits = ", ".join(f"`{name}` {size:,}" for name, size in data["splits"].items())
    rows = "\n".join(_figure(name, metric) for name, metric in manifest["metrics"].items())
    graphs = "\n".join(
        f"| `{graph['file']}` | {role} | {graph['bytes']:,} | `{graph['sha256'][:16]}…` |"
        for role, graph in manifest["graphs"].items()
    )
    return f"""# {manifest["name"]}@{manifest["version"]}

{manifest["source_domain"]} → {manifest["target_domain"]}.

A Domain Transfer Network (Taigman, Polyak and Wolf 2016), G = g∘f: f is a digit classifier
that stays frozen, g was learned without any label.

| figure | value | split (pictures) |
|---|---|---|
{rows}

Protocol: **{data["protocol"]}** ({splits}). Preset `{training["preset"]}`, seed
{training["seed"]}, trained on {training["device"]}, exported {manifest["created"]}. The
transfer accuracy is that of the exported graph.

| graph | gives | bytes | sha256 |
|---|---|---|---|
{graphs}

Input `x`: uint8 [N, H, W, 3], any size; the graph repeats the edge to a square and shrinks to
32x32. Output `y`: uint8 [N, 32, 32, 1].

Limits: {manifest["limits"]}

Licence: {manifest["licence"]}
"""
