"""A finished custom run to a model folder, which `dtn serve` serves as it is."""

import json
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from training.config import CustomConfig
from training.custom import Trained, custom_config
from training.custom_data import square
from training.custom_f import FACES, LABELLED, Exported
from training.custom_metrics import ROWS, shown
from training.graphs import GRAPHS, OPSET, described, require_parity, write_graph
from training.run import Run

PATHS = ("source", "target")  # of the configuration: nobody else's business
LIMITS = (
    "Pictures like those of the source folder; any other picture becomes one of the target, too. "
    "What f does not see of a picture is lost."
)
LICENCE = (
    "Whoever trained this model says what may be done with it; weights were learned from the two "
    "folders, and f is as its own licence says."
)


def read(x: Tensor, side: int, fit: str) -> Tensor:
    """uint8 [N, H, W, 3] to [-1, 1], [N, 3, side, side]: as the training's pictures were read."""
    return square(x.permute(0, 3, 1, 2), side, fit).float() / 127.5 - 1


def require_own(folder: Path) -> None:
    """Raises ValueError where `folder` holds something else than a custom model."""
    path = folder / "manifest.json"
    if not folder.exists() or not any(folder.iterdir()):
        return
    try:
        preset = json.loads(path.read_text())["training"]["preset"]
    except (OSError, ValueError, KeyError, TypeError):
        preset = None
    if preset != "custom":
        raise ValueError(f"{folder} holds something else: name another model by --export")


def f_named(config: CustomConfig) -> str:
    """f for people, without its folder."""
    if config.f == LABELLED:
        return "a digit network's layers, taught on the labels of the source folder"
    if config.f == FACES:
        return "dlib's face recognition ResNet-29"
    return f"{Path(config.f).name}{f', layer {config.layer}' if config.layer else ''}"


def export_custom(run: Run, trained: Trained, folder: Path, version: str = "1") -> dict[str, Any]:
    """Write models/<name>/ from a finished and measured run; returns the manifest.

    Raises ValueError where graph and PyTorch differ by more than one grey level, or where the
    folder holds another kind of model.
    """
    config = custom_config(run)
    require_own(folder)
    measured = json.loads((run.folder / "metrics.json").read_text())
    folder.mkdir(parents=True, exist_ok=True)
    pictures = trained.pictures.held_s.images[:8].permute(0, 2, 3, 1).contiguous().cpu().numpy()
    pictures = np.resize(pictures, (8, *pictures.shape[1:]))
    reading = partial(read, side=config.side, fit=config.fit)
    graphs = {}
    for role, (name, kind, outputs) in GRAPHS.items():
        module = kind(reading, Exported(trained.f), trained.g.cpu())
        write_graph(module, folder / name, outputs)
        require_parity(folder / name, module, pictures)
        graphs[role] = described(folder / name)
    own = json.loads((run.folder / "config.json").read_text())
    manifest = {
        "schema": 1,
        "name": folder.resolve().name.partition("@")[0],
        "version": version,
        "source_domain": f"{Path(config.source).name}: pictures of a folder",
        "target_domain": f"{Path(config.target).name}: pictures of a folder",
        "graphs": graphs,
        "input": {"name": "x", "dtype": "uint8", "shape": ["N", "H", "W", 3]},
        "output": {
            "name": "y",
            "dtype": "uint8",
            "shape": ["N", config.side, config.side, config.channels],
        },
        "distance_output": "f_distance",
        "opset": OPSET,
        "training": {
            "preset": run.name,
            "seed": config.seed,
            "device": measured["device"],
            "f": f_named(config),
            "config": {k: Path(v).name if k in (*PATHS, "f") else v for k, v in own.items()},
        },
        "data": {"protocol": measured["protocol"], "splits": measured["splits"]},
        "metrics": measured["metrics"],
        "limits": LIMITS,
        "licence": LICENCE,
        "created": date.today().isoformat(),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    (folder / "CARD.md").write_text(custom_card(manifest, config))
    return manifest


def custom_card(manifest: dict[str, Any], config: CustomConfig) -> str:
    """CARD.md, from the manifest."""
    training = manifest["training"]
    figures = "\n".join(
        f"| {ROWS[name]} | {shown(name, metric['value'])} | {metric['split']} ({metric['n']:,}) |"
        for name, metric in manifest["metrics"].items()
    )
    files = "\n".join(
        f"| `{file['file']}` | {role} | {file['bytes']:,} | `{file['sha256'][:16]}…` |"
        for role, file in manifest["graphs"].items()
    )
    splits = ", ".join(f"{name} {size:,}" for name, size in manifest["data"]["splits"].items())
    how = "its middle is cut out" if config.fit == "crop" else "its edge is repeated to a square"
    height, width, channels = manifest["output"]["shape"][1:]
    return f"""# {manifest["name"]}@{manifest["version"]}

{manifest["source_domain"]} → {manifest["target_domain"]}.

A Domain Transfer Network (Taigman, Polyak and Wolf 2016), G = g∘f. f is {training["f"]} and stays
frozen; g was learned without a pair and without a label.

| figure | value | pictures |
|---|---|---|
{figures}

{manifest["data"]["protocol"]}: {splits}. Seed {training["seed"]}, trained on
{training["device"]}, exported {manifest["created"]}.

| file | gives | bytes | sha256 |
|---|---|---|---|
{files}

Input `x`: uint8 [N, H, W, 3], any size; {how}. Output `y`: uint8 [N, {height}, {width},
{channels}].

Limits: {manifest["limits"]}

Licence: {manifest["licence"]}
"""
