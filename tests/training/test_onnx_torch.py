"""A whole graph gives onnxruntime's numbers, and travels; what cannot be is refused."""

import copy
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from tests.training.onnx_graphs import (
    SHAPE,
    by_onnxruntime,
    graph,
    one,
    require_equal,
    weights,
    whole,
)
from training.onnx_torch import OnnxModule, read_onnx

MODELS = Path(__file__).parents[2] / "models"


def test_numbers_worked_out_of_shapes_are_folded() -> None:
    """As exporters write x.view(n, c, h * w).mean(2).view(n, c, 1)."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["n"]),
        helper.make_node("Slice", ["shape", "two", "four"], ["hw"]),
        helper.make_node("ReduceProd", ["hw"], ["area"], keepdims=1),
        helper.make_node("Unsqueeze", ["n", "zero_axis"], ["n1"]),
        helper.make_node("Concat", ["n1", "channels", "area"], ["wanted"], axis=0),
        helper.make_node("Reshape", ["x", "wanted"], ["flat"]),
        helper.make_node("ConstantOfShape", ["four"], ["zeros"]),
        helper.make_node("Cast", ["area"], ["area_f"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["flat", "area_f"], ["y"]),
    ]
    constants = {
        "zero": np.array(0), "two": whole(2), "four": whole(4), "zero_axis": whole(0),
        "channels": whole(4),
    }  # fmt: skip
    model = graph(nodes, constants)
    require_equal(model)
    module = OnnxModule(model, (1, *SHAPE), ["y"])
    assert [step.results[0] for step in module.steps] == ["flat", "y"]


def test_a_graph_made_for_one_picture_takes_several() -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "s"], ["a"]),
        helper.make_node("Gemm", ["a", "w"], ["y"]),
    ]
    constants = {"s": whole(1, 120), "w": weights(120, 3)}
    model = graph(nodes, constants, batch=1)
    x = weights(5, *SHAPE)
    (y,) = OnnxModule(model, (1, *SHAPE), ["y"])(torch.from_numpy(x))
    expected = np.concatenate([by_onnxruntime(model, each[None])[0] for each in x])
    np.testing.assert_allclose(y.numpy(), expected, atol=2e-5)


class Mobile(nn.Module):
    """A small net with what common ones have: depthwise, squeeze and excite, attention."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8))
        self.wide = nn.Conv2d(8, 8, 3, 1, 1, groups=8)
        self.squeeze = nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1))
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.hardswish(self.stem(x))
        y = nn.functional.gelu(self.wide(x))
        x = x + y * nn.functional.hardsigmoid(self.squeeze(y.mean((2, 3), keepdim=True)))
        x = nn.functional.avg_pool2d(nn.functional.interpolate(x, scale_factor=2.0), 2, 2)
        tokens = self.norm(x.flatten(2).transpose(1, 2))
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return torch.softmax(self.head(tokens.mean(1)), 1)


def exported(module: nn.Module, path: Path, side: int) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        torch.onnx.export(
            module,
            (torch.zeros(2, 3, side, side),),
            path,
            dynamo=True,
            external_data=False,
            dynamic_shapes=({0: torch.export.Dim("N")},),
            verbose=False,
        )
    return path


def test_a_net_that_torch_exported(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Mobile()
    with torch.no_grad():
        for _ in range(5):
            net(torch.randn(16, 3, 16, 16))  # statistics that are not 0 and 1
    require_equal(read_onnx(exported(net.eval(), tmp_path / "net.onnx", 16)))


@pytest.mark.parametrize(
    ("file", "shape", "names", "worst"),
    [
        ("digits/model.onnx", (32, 32, 3), ["view_1", "tanh"], 1e-4),
        ("digits/model.onnx", (50, 40, 3), ["view_1"], 0.1),  # uint8 in between is rounded
        ("emoji/model.onnx", (152, 152, 3), ["cat_3", "tanh_1"], 2e-3),
        ("emoji/upscale.onnx", (64, 64, 3), None, 2e-3),
    ],
)
def test_the_shipped_graphs(
    file: str, shape: tuple[int, ...], names: list[str] | None, worst: float
) -> None:
    model = read_onnx(MODELS / file)
    names = names or [
        next(n.output[0] for n in reversed(model.graph.node) if n.op_type in ("Conv", "Add"))
    ]
    for name in names:
        model.graph.output.append(helper.make_empty_tensor_value_info(name))
    module = OnnxModule(model, (1, *shape), names)
    coarse = torch.rand(3, 3, 6, 6, generator=torch.Generator().manual_seed(0)) * 255
    smooth = nn.functional.interpolate(coarse, shape[:2], mode="bilinear").permute(0, 2, 3, 1)
    x = smooth.round().requires_grad_()
    ys = module(x)
    expected = by_onnxruntime(model, x.detach().numpy().astype(np.uint8), names)
    for y, other in zip(ys, expected, strict=True):
        assert np.std(other) > 0.1
        np.testing.assert_allclose(y.detach().numpy(), other, atol=worst)
    ys[0].square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 0


def test_the_module_travels_and_is_frozen(tmp_path: Path) -> None:
    module = OnnxModule(graph(one("Conv", "w"), {"w": weights(2, 4, 3, 3)}), (1, *SHAPE), ["y"])
    assert [name for name, _ in module.named_buffers()]
    assert not list(module.parameters())
    x = torch.rand(2, *SHAPE)
    assert torch.equal(copy.deepcopy(module).double().float()(x)[0], module(x)[0])


def test_an_unknown_operator_is_named() -> None:
    model = graph(one("NonZero"))
    with pytest.raises(ValueError, match=r"operator NonZero .* is not supported"):
        OnnxModule(model, (1, *SHAPE), ["y"])


def test_what_comes_after_the_layer_does_not_matter() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("NonZero", ["a"], ["y"]),
    ]
    (y,) = OnnxModule(graph(nodes), (1, *SHAPE), ["a"])(-torch.ones(1, *SHAPE))
    assert not y.any()


def test_a_cast_that_cuts_the_gradient_is_refused() -> None:
    with pytest.raises(ValueError, match="no gradient"):
        OnnxModule(graph(one("Cast", to=TensorProto.INT64)), (1, *SHAPE), ["y"])


def test_an_unknown_layer_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match="no layer 'z'; its last are y"):
        OnnxModule(graph(one("Relu")), (1, *SHAPE), ["z"])


@pytest.mark.parametrize("content", [b"", b"no model", bytes(range(256))])
def test_a_file_that_is_no_model_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "f.onnx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is no ONNX model") as error:
        read_onnx(path)
    assert "\n" not in str(error.value)
