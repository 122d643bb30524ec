"""Small ONNX graphs for the tests of the importer, and what onnxruntime makes of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from training.onnx_torch import OnnxModule

RANDOM = np.random.default_rng(0)
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


def whole(*values: int) -> np.ndarray:
    return np.array(values, np.int64)
