"""A finished digits run to a model folder: two ONNX graphs, a manifest and a card."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training.card import card
from training.graphs import (
    GRAPHS,
    OPSET,
    described,
    fused,
    require_parity,
    session,
    write_graph,
)
from training.networks import SIDE, DigitNet
from training.run import Run
from training.train import Trained, judged


def read(x: Tensor) -> Tensor:
    """uint8 [N, H, W, 3] to [-1, 1], [N, 3, 32, 32]: shrunk to fit, edges repeated.

    Shrunk before it is made square: a picture of 1 x 60,000 must not become 60,000 squared.
    """
    sides = x.shape[1], x.shape[2]
    longer = torch.sym_max(*sides)  # type: ignore[no-untyped-call]
    height, width = (
        torch.sym_max(1, (SIDE * side + longer // 2) // longer)  # type: ignore[no-untyped-call]
        for side in sides
    )
    x = F.interpolate(x.permute(0, 3, 1, 2), (height, width), mode="bilinear", antialias=True)
    rows = (torch.arange(SIDE) - (SIDE - height) // 2).clamp(0, height - 1)
    columns = (torch.arange(SIDE) - (SIDE - width) // 2).clamp(0, width - 1)
    return x.index_select(2, rows).index_select(3, columns).float() / 127.5 - 1


def stored(f: DigitNet) -> DigitNet:
    """f without its head, as the graphs store it."""
    net = DigitNet(f.standardise)
    net.body = fused(f.body)
    return net


def export(run: Run, trained: Trained, folder: Path, version: str = "1") -> dict[str, Any]:
    """Write models/<name>/ from a finished run; returns the manifest.

    The transfer accuracy is measured again on the
    exported graph, so the manifest speaks of the file beside it. Raises ValueError where
    graph and PyTorch differ by more than one grey level.
    """
    measured = json.loads((run.folder / "metrics.json").read_text())
    folder.mkdir(parents=True, exist_ok=True)
    f, g = trained.f.cpu(), trained.g.cpu()
    pictures = trained.measured.images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    graphs = {}
    for role, (name, kind, outputs) in GRAPHS.items():
        path = folder / name
        module = kind(read, stored(f), g)
        write_graph(module, path, outputs)
        require_parity(path, module, pictures)
        graphs[role] = described(path)
    distance = session(folder / "distance.onnx")
    batches = np.array_split(pictures, max(1, len(pictures) // 250))
    answers = [distance.run(["y", "f_distance"], {"x": batch}) for batch in batches]
    y = torch.from_numpy(np.concatenate([answer[0] for answer in answers])).permute(0, 3, 1, 2)
    split = {"split": trained.measured.name, "n": len(pictures)}
    metrics = measured["metrics"] | {
        "transfer_accuracy": {"value": round(judged(trained, y), 5), **split},
        "f_distance_mean": {
            "value": round(float(np.concatenate([answer[1] for answer in answers]).mean()), 4),
            **split,
        },
    }
    manifest = {
        "schema": 1,
        "name": folder.name.partition("@")[0],
        "version": version,
        "source_domain": "SVHN: a photographed house-number digit, 32x32 RGB",
        "target_domain": "MNIST: a handwritten digit, 32x32 grey",
        "graphs": graphs,
        "input": {"name": "x", "dtype": "uint8", "shape": ["N", "H", "W", 3]},
        "output": {"name": "y", "dtype": "uint8", "shape": ["N", SIDE, SIDE, 1]},
        "distance_output": "f_distance",
        "opset": OPSET,
        "tf32": True,  # off by a grey level at most (benchmarks/gpu/RESULTS.md)
        "training": {
            "preset": run.name,
            "seed": run.config.seed,
            "device": measured["device"],
            "config": json.loads((run.folder / "config.json").read_text()),
        },
        "data": {"protocol": measured["protocol"], "splits": measured["splits"]},
        "metrics": metrics,
        "limits": (
            "One digit, in the middle of the picture and filling most of its height, as in SVHN. "
            "A picture that shows no digit still becomes one."
        ),
        "licence": (
            "Weights: Apache-2.0. Learned from SVHN (non-commercial research use), MNIST, "
            "photographed meter digits (Apache-2.0) and rendered digits (fonts under the OFL)."
        ),
        "created": date.today().isoformat(),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    (folder / "CARD.md").write_text(card(manifest))
    return manifest
