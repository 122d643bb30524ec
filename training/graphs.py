"""Networks as ONNX graphs of pictures: what every exported model has in common.

The graphs carry all of the pre- and post-processing: uint8 pictures [N, H, W, 3] of any
size go in, uint8 pictures [N, h, w, C] come out, and the batch size is free. So whoever
has nothing but an ONNX runtime gets the same pixels as the service.
"""

import copy
import hashlib
import itertools
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from training.networks import Net, frozen

OPSET = 20
HALF_FROM = 256  # elements; smaller weights stay float32
SAMPLE = 2, 40, 36  # batch, height and width of the picture that the exporter traces with


def fused(layers: nn.Sequential) -> nn.Sequential:
    """`layers` in eval mode with every batch normalisation folded into the convolution before
    it, a first one of 1x1 inputs as the matrix product that it is, and large weights rounded to
    float16, as the graph stores them."""
    result: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d):
            transpose = isinstance(result[-1], nn.ConvTranspose2d)
            result[-1] = fuse_conv_bn_eval(result[-1], layer, transpose)  # type: ignore[type-var]
        else:
            result.append(copy.deepcopy(layer))
    if isinstance(result[0], nn.Unflatten) and isinstance(result[1], nn.ConvTranspose2d):
        result[:2] = product(result[1])
    return frozen(rounded(nn.Sequential(*result).float()))


def product(layer: nn.ConvTranspose2d) -> list[nn.Module]:
    """The deconvolution of 1x1 inputs as layers of features [N, K]: onnxruntime takes it picture
    by picture, and a matrix product all at once."""
    inputs, outputs, height, width = layer.weight.shape
    linear = nn.Linear(inputs, outputs * height * width)
    linear.weight.data = layer.weight.detach().reshape(inputs, -1).T.contiguous()
    bias = torch.zeros(outputs) if layer.bias is None else layer.bias.detach()
    linear.bias.data = bias.repeat_interleave(height * width)
    return [linear, nn.Unflatten(1, (outputs, height, width))]


def rounded(net: Net) -> Net:
    """`net` with large weights and buffers rounded to float16, as graphs store them; returns it."""
    for tensor in itertools.chain(net.parameters(), net.buffers()):
        if tensor.numel() >= HALF_FROM and tensor.is_floating_point():
            tensor.data = tensor.data.half().float()
    return net


class TransferGraph(nn.Module):
    """G(x) = g(f(x)) with its pre- and post-processing: the graph `model.onnx`.

    `read` takes uint8 [N, H, W, 3] to what f takes, float [N, 3, S, S] in [-1, 1]; `f` has a
    method `features` and its weights as they are stored.
    """

    def __init__(self, read: Callable[[Tensor], Tensor], f: nn.Module, g: nn.Sequential) -> None:
        super().__init__()
        self.read = read
        self.f = f
        self.g = fused(g)
        frozen(self)

    def features(self, x: Tensor) -> Tensor:
        """f(x)."""
        return cast(Tensor, cast(Any, self.f).features(x))

    def features_of_drawn(self, y: Tensor) -> Tensor:
        """f(G(x)), where f reads T in another way than S."""
        return cast(Tensor, getattr(self.f, "features_of_drawn", self.features)(y))

    def compared(self, features: Tensor) -> Tensor:
        """What Eq. 8 compares of f(x) and f(G(x)): all of it, unless f says what."""
        return cast(Any, self.f).compared(features) if hasattr(self.f, "compared") else features

    def draw(self, features: Tensor) -> Tensor:
        """g of features [N, K] as a picture uint8 [N, h, w, C]."""
        y = ((self.g(features) + 1) * 127.5).round().clamp(0, 255)
        return cast(Tensor, y.to(torch.uint8).permute(0, 2, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        """y = G(x): uint8 [N, H, W, 3] to uint8 [N, h, w, C]."""
        return self.draw(self.features(self.read(x)))


class DistanceGraph(TransferGraph):
    """G(x) and Eq. 8's ‖f(x) - f(G(x))‖ of the picture as delivered: `distance.onnx`."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """y uint8 [N, h, w, C] and the distance float32 [N] of uint8 [N, H, W, 3]."""
        fx = self.features(self.read(x))
        y = self.draw(fx)
        again = self.features_of_drawn(y.permute(0, 3, 1, 2).float() / 127.5 - 1)
        return y, (self.compared(fx) - self.compared(again)).square().sum(1).sqrt()


# File, module and outputs of each graph that holds G.
GRAPHS: dict[str, tuple[str, type[TransferGraph], list[str]]] = {
    "transfer": ("model.onnx", TransferGraph, ["y"]),
    "distance": ("distance.onnx", DistanceGraph, ["y", "f_distance"]),
}


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


def write_graph(module: nn.Module, path: Path, outputs: list[str], side: int | None = None) -> None:
    """Export `module` to `path`: input x, any N, any H and W or, where it is given, `side`."""
    dim = torch.export.Dim
    n, height, width = SAMPLE if side is None else (SAMPLE[0], side, side)
    axes = {0: dim("N")} | ({1: dim("H"), 2: dim("W")} if side is None else {})
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        program = torch.onnx.export(
            module,
            (torch.zeros(n, height, width, 3, dtype=torch.uint8),),
            dynamo=True,
            input_names=["x"],
            output_names=outputs,
            dynamic_shapes={"x": axes},
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


def require_parity(path: Path, module: nn.Module, pictures: npt.NDArray[np.uint8]) -> None:
    """Raises ValueError where graph and PyTorch differ by more than one grey level."""
    if (worst := check_parity(path, module, pictures)) > 1:
        raise ValueError(f"{path.name} differs from PyTorch by {worst} grey levels")


def described(path: Path) -> dict[str, Any]:
    """A file's entry in a manifest."""
    data = path.read_bytes()
    return {"file": path.name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
