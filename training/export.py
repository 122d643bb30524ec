"""A finished run to a model folder: two ONNX graphs, a manifest and a card.

The graphs carry all of the pre- and post-processing: uint8 pictures [N, H, W, 3] of any
size go in, uint8 pictures [N, 32, 32, 1] come out, and the batch size is free. So whoever
has nothing but an ONNX runtime gets the same pixels as the service.
"""

import copy
import hashlib
import json
import logging
import warnings
from datetime import date
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from training.card import card
from training.networks import SIDE, DigitNet, Net, frozen
from training.run import Run
from training.train import Trained, judged

OPSET = 20
HALF_FROM = 256  # elements; smaller weights stay float32


def fused(layers: nn.Sequential) -> nn.Sequential:
    """`layers` in eval mode with every batch normalisation folded into the convolution before
    it, and large weights rounded to float16, as the graph stores them."""
    result: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d):
            transpose = isinstance(result[-1], nn.ConvTranspose2d)
            result[-1] = fuse_conv_bn_eval(result[-1], layer, transpose)  # type: ignore[type-var]
        else:
            result.append(copy.deepcopy(layer))
    return frozen(rounded(nn.Sequential(*result).float()))


def rounded(net: Net) -> Net:
    """`net` with large weights rounded to float16, as graphs store them; returns it."""
    for weight in net.parameters():
        if weight.numel() >= HALF_FROM:
            weight.data = weight.data.half().float()
    return net


def described(path: Path) -> dict[str, Any]:
    """A file's entry in a manifest."""
    data = path.read_bytes()
    return {"file": path.name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


class TransferGraph(nn.Module):
    """G(x) = g(f(x)) with its pre- and post-processing: the graph `model.onnx`."""

    def __init__(self, f: DigitNet, g: nn.Sequential) -> None:
        super().__init__()
        self.f = DigitNet(f.standardise)
        self.f.body = fused(f.body)
        self.g = fused(g)
        frozen(self)

    def read(self, x: Tensor) -> Tensor:
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

    def forward(self, x: Tensor) -> Tensor:
        """y = G(x): uint8 [N, H, W, 3] to uint8 [N, 32, 32, 1]."""
        return self.draw(self.f.features(self.read(x)))

    def draw(self, features: Tensor) -> Tensor:
        """g of features [N, 128] as a picture uint8 [N, 32, 32, 1]."""
        y = ((self.g(features) + 1) * 127.5).round().clamp(0, 255)
        return cast(Tensor, y.to(torch.uint8).permute(0, 2, 3, 1))


class DistanceGraph(TransferGraph):
    """G(x) and Eq. 8's ‖f(x) - f(G(x))‖ of the picture as delivered: `distance.onnx`."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """y uint8 [N, 32, 32, 1] and the distance float32 [N] of uint8 [N, H, W, 3]."""
        fx = self.f.features(self.read(x))
        y = self.draw(fx)
        again = self.f.features(y.permute(0, 3, 1, 2).float() / 127.5 - 1)
        return y, (fx - again).square().sum(1).sqrt()


def store_half(model: onnx.ModelProto) -> None:
    """Store large float32 weights as float16, each with a Cast that is folded at load time."""
    casts = []
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if weight.data_type != TensorProto.FLOAT or values.size < HALF_FROM:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    for node in reversed(casts):
        model.graph.node.insert(0, node)


def write_graph(module: nn.Module, path: Path, outputs: list[str]) -> None:
    """Export `module` to `path`: input x, dynamic N, H and W."""
    dim = torch.export.Dim
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        program = torch.onnx.export(
            module,
            (torch.zeros(2, SIDE + 8, SIDE + 4, 3, dtype=torch.uint8),),
            dynamo=True,
            input_names=["x"],
            output_names=outputs,
            dynamic_shapes={"x": {0: dim("N"), 1: dim("H"), 2: dim("W")}},
            opset_version=OPSET,
            verbose=False,
        )
    model: onnx.ModelProto = cast(Any, program).model_proto
    store_half(model)
    for node in model.graph.node:  # the exporter's notes name files of this machine
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


def session(path: Path) -> onnxruntime.InferenceSession:
    """The graph in onnxruntime on the CPU."""
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def check_parity(path: Path, module: nn.Module, pictures: npt.NDArray[np.uint8]) -> int:
    """Largest difference in grey levels between graph and module on batches of 1, 3 and 8."""
    run = session(path)
    worst = 0
    for n in (1, 3, 8):
        (graph,) = run.run(["y"], {"x": pictures[:n]})
        with torch.no_grad():
            answer = module(torch.from_numpy(pictures[:n]))
        torch_y = (answer[0] if isinstance(answer, tuple) else answer).numpy()
        worst = max(worst, int(np.abs(graph.astype(int) - torch_y).max()))
    return worst


def export(run: Run, trained: Trained, folder: Path) -> dict[str, Any]:
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
    for role, kind, outputs in (
        ("transfer", TransferGraph, ["y"]),
        ("distance", DistanceGraph, ["y", "f_distance"]),
    ):
        path = folder / {"transfer": "model.onnx", "distance": "distance.onnx"}[role]
        module = kind(f, g)
        write_graph(module, path, outputs)
        if (worst := check_parity(path, module, pictures)) > 1:
            raise ValueError(f"{path.name} differs from PyTorch by {worst} grey levels")
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
        "name": folder.name,
        "version": "1",
        "source_domain": "SVHN: a photographed house-number digit, 32x32 RGB",
        "target_domain": "MNIST: a handwritten digit, 32x32 grey",
        "graphs": graphs,
        "input": {"name": "x", "dtype": "uint8", "shape": ["N", "H", "W", 3]},
        "output": {"name": "y", "dtype": "uint8", "shape": ["N", SIDE, SIDE, 1]},
        "distance_output": "f_distance",
        "opset": OPSET,
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
