"""The importer gives onnxruntime's numbers, and gradients come through."""

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from training.onnx_operators import OPERATORS
from training.onnx_torch import OnnxModule, read_onnx

RANDOM = np.random.default_rng(0)
MODELS = Path(__file__).parents[2] / "models"
SHAPE = (4, 6, 5)  # channels, height, width


def weights(*shape: int) -> np.ndarray:
    return RANDOM.normal(0, 0.5, shape).astype(np.float32)


def graph(
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, np.ndarray] | None = None,
    shape: Sequence[int] = SHAPE,
    opset: int = 20,
    batch: int | str = "N",
    kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """x to the last node's output."""
    x = helper.make_tensor_value_info("x", kind, [batch, *shape])
    y = helper.make_empty_tensor_value_info(nodes[-1].output[0])
    initial = [numpy_helper.from_array(v, k) for k, v in (constants or {}).items()]
    made = helper.make_graph(nodes, "test", [x], [y], initial)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def by_onnxruntime(
    model: onnx.ModelProto, x: np.ndarray, names: Sequence[str] | None = None
) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    run = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(run.run(names, {model.graph.input[0].name: x}))


def require_equal(model: onnx.ModelProto, positive: bool = False, gradient: bool = True) -> None:
    """The same numbers on batches of 1, 2 and 5; a gradient that is not zero."""
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim][1:]
    name = model.graph.output[0].name
    module = OnnxModule(model, (1, *shape), [name])
    fixed = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    for n in (fixed,) if fixed else (1, 2, 5):
        x = weights(n, *shape)
        x = np.abs(x) + 0.5 if positive else x
        (expected,) = by_onnxruntime(model, x, [name])
        pictures = torch.from_numpy(x).requires_grad_()
        (y,) = module(pictures)
        assert y.shape == expected.shape
        np.testing.assert_allclose(y.detach().numpy(), expected, atol=2e-5, rtol=2e-5)
        if gradient:
            (y * torch.rand_like(y)).sum().backward()
            assert pictures.grad is not None
            assert pictures.grad.abs().max() > 0


def one(op: str, *more: str, **how: Any) -> list[onnx.NodeProto]:
    return [helper.make_node(op, ["x", *more], ["y"], **how)]


ONE = {
    name: one(name, **how)
    for name, how in {
        "Relu": {}, "LeakyRelu": {"alpha": 0.2}, "Sigmoid": {}, "HardSwish": {},
        "HardSigmoid": {"alpha": 0.3}, "Tanh": {}, "Elu": {}, "Selu": {}, "Celu": {"alpha": 2.0},
        "Softplus": {}, "Softsign": {}, "Erf": {}, "Exp": {}, "Neg": {}, "Abs": {}, "Mish": {},
        "Sin": {}, "Cos": {}, "Identity": {}, "GlobalAveragePool": {}, "GlobalMaxPool": {},
        "Flatten": {}, "Softmax": {"axis": 1}, "LogSoftmax": {"axis": -1},
        "Transpose": {"perm": [0, 2, 3, 1]}, "LpNormalization": {"axis": 1},
        "ReduceMean": {"keepdims": 0}, "LRN": {"size": 3},
    }.items()
}  # fmt: skip
ONE |= {
    "Gelu": one("Gelu"),
    "Gelu tanh": one("Gelu", approximate="tanh"),
    "MaxPool": one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1]),
    "MaxPool ceil": one("MaxPool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    "MaxPool same": one("MaxPool", kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
    "AveragePool": one("AveragePool", kernel_shape=[2, 3], strides=[1, 2], pads=[1, 1, 1, 1]),
    "AveragePool uneven": one("AveragePool", kernel_shape=[3, 3], pads=[0, 1, 1, 0]),
    "AveragePool whole": one(
        "AveragePool", kernel_shape=[3, 3], pads=[0, 1, 1, 0], count_include_pad=1
    ),
    "SpaceToDepth": [
        helper.make_node("Constant", [], ["pads"], value_ints=[0, 0, 0, 0, 0, 0, 0, 1]),
        helper.make_node("Pad", ["x", "pads"], ["a"]),
        helper.make_node("SpaceToDepth", ["a"], ["y"], blocksize=2),
    ],
    "Dropout": one("Dropout"),
    "Mod": [
        helper.make_node("Constant", [], ["w"], value_float=0.3),
        helper.make_node("Mod", ["x", "w"], ["y"], fmod=1),
    ],
    "DepthToSpace": one("DepthToSpace", blocksize=2),
    "DepthToSpace CRD": one("DepthToSpace", blocksize=2, mode="CRD"),
    "Split": [
        helper.make_node("Split", ["x"], ["a", "b"], axis=1, num_outputs=2),
        helper.make_node("Mul", ["a", "b"], ["y"]),
    ],
    "Concat": [
        helper.make_node("Sigmoid", ["x"], ["a"]),
        helper.make_node("Concat", ["a", "x"], ["y"], axis=1),
    ],
}


@pytest.mark.parametrize("nodes", ONE.values(), ids=ONE)
def test_an_operator_of_pictures(nodes: list[onnx.NodeProto]) -> None:
    require_equal(graph(nodes))


@pytest.mark.parametrize("name", ["Log", "Sqrt", "Reciprocal", "ReduceLogSum"])
def test_an_operator_of_positive_numbers(name: str) -> None:
    require_equal(graph(one(name)), positive=True)


@pytest.mark.parametrize("name", ["Floor", "Ceil", "Round", "Sign"])
def test_steps_have_no_slope(name: str) -> None:
    require_equal(graph(one(name)), gradient=False)


def whole(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


WITH = {
    "Conv": (one("Conv", "w", "b", pads=[1, 0, 2, 1], strides=[2, 1]),
             {"w": weights(6, 4, 3, 3), "b": weights(6)}),
    "Conv groups": (one("Conv", "w", group=4, dilations=[2, 1]), {"w": weights(8, 1, 2, 2)}),
    "Conv same": (one("Conv", "w", auto_pad="SAME_LOWER", strides=[2, 2]),
                  {"w": weights(3, 4, 3, 2)}),
    "ConvTranspose": (
        one("ConvTranspose", "w", "b", strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 0]),
        {"w": weights(4, 3, 3, 3), "b": weights(3)}),
    "BatchNormalization": (
        one("BatchNormalization", "s", "b", "m", "v", epsilon=1e-3),
        {"s": weights(4), "b": weights(4), "m": weights(4), "v": np.abs(weights(4)) + 0.1}),
    "InstanceNormalization": (one("InstanceNormalization", "s", "b"),
                              {"s": weights(4), "b": weights(4)}),
    "LayerNormalization": (one("LayerNormalization", "s", "b", axis=-1),
                           {"s": weights(5), "b": weights(5)}),
    "PRelu": (one("PRelu", "w"), {"w": weights(4, 1, 1)}),
    "Clip": (one("Clip", "a", "b"), {"a": np.float32(-0.3), "b": np.float32(0.4)}),
    "Clip above": (one("Clip", "", "b"), {"b": np.float32(0.4)}),
    "Add": (one("Add", "w"), {"w": weights(4, 1, 1)}),
    "Sub": (one("Sub", "w"), {"w": weights(5)}),
    "Mul": (one("Mul", "w"), {"w": weights(6, 5)}),
    "Div": (one("Div", "w"), {"w": np.abs(weights(4, 1, 1)) + 0.1}),
    "Pow": (one("Pow", "w"), {"w": np.float32(2)}),
    "Max": (one("Max", "w"), {"w": weights(5)}),
    "Min": (one("Min", "w"), {"w": weights(5)}),
    "Sum": (one("Sum", "w", "x"), {"w": weights(5)}),
    "Mean": (one("Mean", "w", "x"), {"w": weights(5)}),
    "MatMul": (one("MatMul", "w"), {"w": weights(5, 7)}),
    "Where": ([helper.make_node("Greater", ["x", "w"], ["c"]),
               helper.make_node("Where", ["c", "x", "w"], ["y"])], {"w": weights(5)}),
    "Reshape": (one("Reshape", "w"), {"w": whole(0, -1, 5)}),
    "Squeeze": ([helper.make_node("GlobalAveragePool", ["x"], ["a"]),
                 helper.make_node("Squeeze", ["a", "w"], ["y"])], {"w": whole(2, 3)}),
    "Unsqueeze": (one("Unsqueeze", "w"), {"w": whole(1, -1)}),
    "Slice": (one("Slice", "a", "b", "c", "d"),
              {"a": whole(1, -1), "b": whole(4, -99), "c": whole(2, 3), "d": whole(2, -2)}),
    "Split sizes": ([helper.make_node("Split", ["x", "w"], ["a", "y"], axis=1)],
                    {"w": whole(1, 3)}),
    "Pad": (one("Pad", "w", "v"), {"w": whole(0, 1, 2, 0, 0, 0, 1, 3), "v": np.float32(0.7)}),
    "Pad reflect": (one("Pad", "w", mode="reflect"), {"w": whole(0, 0, 2, 0, 0, 0, 1, 3)}),
    "Pad edge": (one("Pad", "w", mode="edge"), {"w": whole(0, 0, 2, 0, 0, 0, 1, 3)}),
    "Pad axes": (one("Pad", "w", "", "a"), {"w": whole(1, 2), "a": whole(-1)}),
    "Tile": (one("Tile", "w"), {"w": whole(1, 2, 1, 3)}),
    "Gather": (one("Gather", "w", axis=1), {"w": np.array([[2, -1], [0, 0]])}),
    "Range": ([helper.make_node("Size", ["w"], ["n"]),
               helper.make_node("Range", ["zero", "n", "one"], ["r"]),
               helper.make_node("Gather", ["x", "r"], ["y"], axis=1)],
              {"w": weights(3), "zero": np.array(0), "one": np.array(1)}),
    "Expand": ([helper.make_node("ReduceMean", ["x", "a"], ["m"]),
                helper.make_node("Expand", ["m", "w"], ["y"])],
               {"a": whole(1), "w": whole(1, 3, 1, 1)}),
    **{f"Reduce{name}": (one(f"Reduce{name}", "a", keepdims=0), {"a": whole(2, -1)})
       for name in ("Max", "Min", "Sum", "L1", "L2", "SumSquare", "LogSumExp", "Prod")},
    "Gemm": ([helper.make_node("Flatten", ["x"], ["a"]),
              helper.make_node("Gemm", ["a", "w", "b"], ["y"], transB=1, alpha=0.5, beta=2.0)],
             {"w": weights(3, 120), "b": weights(3)}),
    "Einsum": (one("Einsum", "w", equation="bchw,ck->bkhw"), {"w": weights(4, 2)}),
}  # fmt: skip


@pytest.mark.parametrize(("nodes", "constants"), WITH.values(), ids=WITH)
def test_an_operator_with_constants(
    nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]
) -> None:
    require_equal(graph(nodes, constants))


RESIZES: list[dict[str, Any]] = [
    {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    {"mode": "nearest"},
    {"mode": "nearest", "nearest_mode": "ceil"},
    {"mode": "linear"},
    {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"},
    {"mode": "linear", "coordinate_transformation_mode": "asymmetric"},
    {"mode": "linear", "antialias": 1},
    {"mode": "cubic"},
    {"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1},
]


@pytest.mark.parametrize("how", RESIZES, ids=str)
@pytest.mark.parametrize("size", [(12, 10), (3, 2), (9, 11)])
def test_resize(how: dict[str, Any], size: tuple[int, int]) -> None:
    nodes = [helper.make_node("Resize", ["x", "", "", "s"], ["y"], **how)]
    require_equal(resized(nodes, size))


def resized(nodes: list[onnx.NodeProto], size: tuple[int, int]) -> onnx.ModelProto:
    """To `size`, with the batch taken from the picture's own shape."""
    before = [
        helper.make_node("Shape", ["x"], ["nc"], end=2),
        helper.make_node("Concat", ["nc", "size"], ["s"], axis=0),
    ]
    return graph([*before, *nodes], {"size": whole(*size)})


def test_resize_by_scales_of_an_older_opset() -> None:
    scales = {"s": np.array([1, 1, 2, 1.5], np.float32)}
    require_equal(graph(one("Resize", "s", mode="linear"), scales, opset=10))


def test_upsample_of_an_older_opset() -> None:
    scales = {"s": np.array([1, 1, 2, 3], np.float32)}
    require_equal(graph(one("Upsample", "s", mode="nearest"), scales, opset=9))


@pytest.mark.parametrize(("opset", "n"), [(20, 2), (21, 4)])
def test_group_normalisation(opset: int, n: int) -> None:
    nodes = one("GroupNormalization", "s", "b", num_groups=2)
    require_equal(graph(nodes, {"s": weights(n), "b": weights(n)}, opset=opset))


@pytest.mark.parametrize("name", ["Less", "LessOrEqual", "GreaterOrEqual", "Equal"])
def test_comparisons(name: str) -> None:
    nodes = [
        helper.make_node(name, ["x", "w"], ["a"]),
        helper.make_node("Not", ["a"], ["b"]),
        helper.make_node("Less", ["x", "zero"], ["c"]),
        helper.make_node("Or", ["b", "c"], ["d"]),
        helper.make_node("And", ["d", "b"], ["e"]),
        helper.make_node("Where", ["e", "x", "zero"], ["y"]),
    ]
    constants = {"w": weights(5), "zero": np.zeros(5, np.float32)}
    require_equal(graph(nodes, constants), gradient=name != "Equal")


def test_softmax_of_an_older_opset_is_over_all_that_follows() -> None:
    require_equal(graph(one("Softmax", axis=1), opset=11))


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


def test_every_operator_is_tried_here() -> None:
    tried = {node.op_type for nodes in ONE.values() for node in nodes}
    tried |= {node.op_type for nodes, _ in WITH.values() for node in nodes}
    tried |= {"Less", "LessOrEqual", "GreaterOrEqual", "Equal", "Not", "Or", "And", "Resize"}
    tried |= {
        "Log",
        "Sqrt",
        "Reciprocal",
        "ReduceLogSum",
        "Floor",
        "Ceil",
        "Round",
        "Sign",
        "Upsample",
    }
    tried |= {"GroupNormalization", "Shape", "ConstantOfShape", "Cast"}
    assert OPERATORS.keys() - tried == set()
