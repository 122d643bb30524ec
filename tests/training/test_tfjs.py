from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.training.tfjs_model import Values, convolution, fused, integers, node, write
from training.tfjs import GraphModel, read, repair_prelu

X = node("x", "Placeholder")


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def model(folder: Path, nodes: list[dict[str, object]], constants: Values) -> GraphModel:
    return GraphModel(read(write(folder / "model.json", [X, *nodes], constants)), "y")


@pytest.mark.parametrize(("size", "stride"), [(6, 1), (6, 2), (5, 2)])
def test_a_convolution_pads_as_tensorflow_does(tmp_path: Path, size: int, stride: int) -> None:
    kernel = random(3, 3, 2, 4)  # [H, W, I, O]
    nodes = [node("y", "Conv2D", "x", "kernel", **convolution("SAME", stride))]
    x = torch.from_numpy(random(1, size, size, 2))
    y = model(tmp_path, nodes, {"kernel": kernel})(x)
    spare = 1 if (size, stride) == (6, 2) else 2  # pixels of padding, the odd one at the end
    padded = F.pad(x.permute(0, 3, 1, 2), (spare // 2, 1, spare // 2, 1))
    expected = F.conv2d(padded, torch.from_numpy(kernel.transpose(3, 2, 0, 1)), stride=stride)
    torch.testing.assert_close(y, expected.permute(0, 2, 3, 1))


def test_a_depthwise_convolution_keeps_its_channels_apart(tmp_path: Path) -> None:
    kernel = np.float32([10, 20]).reshape(1, 1, 2, 1)  # [H, W, C, 1]
    bias = np.float32([1, -50])
    op = "FusedDepthwiseConv2dNative"
    nodes = [node("y", op, "x", "kernel", "bias", **convolution("VALID", 1, "BiasAdd", "Relu"))]
    y = model(tmp_path, nodes, {"kernel": kernel, "bias": bias})(torch.tensor([[[[1.0, 2.0]]]]))
    assert y.flatten().tolist() == [11, 0]  # 10 * 1 + 1; relu(20 * 2 - 50)


def test_channels_pads_means_and_products_by_hand(tmp_path: Path) -> None:
    nodes = [
        node("less", "Sub", "x", "one"),
        node("padded", "Pad", "less", "paddings"),
        node("low", "Minimum", "padded", "four"),
        node("mean", "Mean", "low", "axes", keep_dims={"b": True}),
        node("flat", "Squeeze", "mean", squeeze_dims=integers(1, 2)),
        node("row", "Reshape", "flat", "shape"),
        node("y", "MatMul", "row", "matrix"),
    ]
    constants = {
        "one": np.float32([1, 2]),  # a number for each channel
        "paddings": np.int32([[0, 0], [0, 1], [0, 0], [0, 0]]),
        "four": np.array(4, np.float32),
        "axes": np.int32([1, 2]),
        "shape": np.int32([-1, 2]),
        "matrix": np.float32([[1, 10], [100, 1000]]),
    }
    x = torch.tensor([[[[3.0, 8.0]]]])  # less: 2, 6; a row of zeros; min: 2, 4; mean: 1, 2
    assert model(tmp_path, nodes, constants)(x).tolist() == [[201, 2010]]


def test_a_fused_matrix_product_and_a_sigmoid_by_hand(tmp_path: Path) -> None:
    nodes = [
        node("hidden", "_FusedMatMul", "x", "matrix", "bias", fused_ops=fused("BiasAdd", "Relu")),
        node("y", "Sigmoid", "hidden"),
    ]
    constants = {"matrix": np.float32([[1, 10], [-1, 1]]), "bias": np.float32([0, -9])}
    y = model(tmp_path, nodes, constants)(torch.tensor([[1.0, 2.0]]))  # -1, 3 and after ReLU 0, 3
    torch.testing.assert_close(y, torch.tensor([[0.5, 0.952574]]))


def prelu(x: str, y: str) -> list[dict[str, object]]:
    """relu(x) + a * (x - |x|), as TensorFlow writes a PReLU."""
    return [
        node(f"{y}/relu", "Relu", x),
        node(f"{y}/abs", "Abs", x),
        node(f"{y}/sub", "Sub", x, f"{y}/abs"),
        node(f"{y}/mul", "Mul", f"{y}/sub", f"{y}/a"),
        node(y, "Add", f"{y}/relu", f"{y}/mul"),
    ]


def test_repairs_both_faults_of_a_prelu(tmp_path: Path) -> None:
    depthwise = convolution("VALID", 1, "BiasAdd", "Relu")
    second = [part for part in prelu("depth", "y") if part["op"] != "Relu"]
    second[-1]["input"] = ["depth", "y/mul"]  # the convolution has the relu in it
    op = "FusedDepthwiseConv2dNative"
    nodes = [*prelu("x", "p"), node("depth", op, "p", "kernel", "bias", **depthwise), *second]
    constants = {
        "p/a": np.float32([-0.25]),  # the slope was 0.5
        "y/a": np.float32([-0.1]),  # the slope was 0.2
        "kernel": np.ones((1, 1, 1, 1), np.float32),
        "bias": np.float32([1]),
    }
    graph = read(write(tmp_path / "model.json", [X, *nodes], constants))
    x = torch.tensor([3.0, -1.0, -4.0]).reshape(3, 1, 1, 1)
    broken = GraphModel(graph, "y")(x).flatten()
    mended = GraphModel(repair_prelu(graph), "y")(x).flatten()
    assert broken.tolist() == [4, 1.5, 3]
    torch.testing.assert_close(mended, torch.tensor([4, 0.5, 0.2 * (1 - 0.5 * 4)]))


def test_there_must_be_something_to_repair(tmp_path: Path) -> None:
    graph = read(write(tmp_path / "model.json", [X, node("y", "Relu", "x")], {}))
    with pytest.raises(ValueError, match="no PReLU"):
        repair_prelu(graph)


def test_gradients_reach_the_input_and_no_weight(tmp_path: Path) -> None:
    nodes = [node("y", "Conv2D", "x", "kernel", **convolution())]
    net = model(tmp_path, nodes, {"kernel": random(3, 3, 2, 4)})
    x = torch.rand(1, 4, 4, 2, requires_grad=True)
    net(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().min() > 0
    assert not list(net.parameters())
    assert not any(buffer.requires_grad for buffer in net.buffers())


def test_reads_weights_of_half_precision(tmp_path: Path) -> None:
    nodes = [X, node("y", "Add", "x", "c")]
    path = write(tmp_path / "model.json", nodes, {"c": np.float32([0.1, 2])}, half=True)
    constant = read(path).constants["c"]
    assert constant.dtype == np.float32
    assert constant.tolist() == [np.float16(0.1), 2]


def test_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="operation Softmax of y is not known"):
        model(tmp_path, [node("y", "Softmax", "x")], {})
    with pytest.raises(ValueError, match="no node 'y'"):
        model(tmp_path, [], {})
    weights = {"kernel": random(1, 1, 1, 1), "bias": random(1)}
    attributes = convolution("SAME", 1, "BiasAdd", "Elu")
    net = model(tmp_path, [node("y", "_FusedConv2D", "x", "kernel", "bias", **attributes)], weights)
    with pytest.raises(ValueError, match="fused operation Elu"):
        net(torch.zeros(1, 1, 1, 1))
    net = model(tmp_path, [node("y", "Conv2D", "x", "kernel", **convolution("EXPLICIT"))], weights)
    with pytest.raises(ValueError, match="padding EXPLICIT"):
        net(torch.zeros(1, 1, 1, 1))


@pytest.mark.parametrize("body", ["no json", "{}", "[]", '{"modelTopology": {"node": [{}]}}'])
def test_refuses_other_files(tmp_path: Path, body: str) -> None:
    (tmp_path / "model.json").write_text(body)
    with pytest.raises(ValueError, match="not a TensorFlow"):
        read(tmp_path / "model.json")


def test_refuses_a_file_of_weights_that_is_too_short(tmp_path: Path) -> None:
    path = write(tmp_path / "model.json", [X], {"c": random(8)})
    path.with_suffix(".bin").write_bytes(b"1234")
    with pytest.raises(ValueError, match="buffer"):
        read(path)
