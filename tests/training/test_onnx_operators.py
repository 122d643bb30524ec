"""Each operator gives onnxruntime's numbers, and gradients come through."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.training.onnx_graphs import graph, one, require_equal, weights, whole
from training.onnx_operators import OPERATORS

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
