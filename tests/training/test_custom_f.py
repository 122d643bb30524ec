"""f of a custom run: what an ONNX graph tells of itself, and how f is standardised."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from onnx import TensorProto, helper

from tests.training.custom_folders import write_folders
from tests.training.small import write_resnet29
from tests.training.test_onnx_torch import graph, weights
from training import cli
from training.custom_f import CustomF, Exported, FaceF
from training.graphs import DistanceGraph, check_parity, write_graph
from training.networks import frozen
from training.onnx_f import OnnxF, guessed_range, parts, range_of

LAST = {"h": weights(8, 3, 3, 3), "w": weights(8, 5), "b": weights(5)}


def node(op: str, inputs: str, output: str, **how: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), [output], **how)


BODY = [
    node("Conv", "x h", "conv", strides=[2, 2]),
    node("Relu", "conv", "relu"),
    node("GlobalAveragePool", "relu", "pool"),
    node("Flatten", "pool", "flat"),
]
ENDS = {
    "gemm": ([node("Gemm", "flat w b", "logits")], "flat", "logits"),
    "softmax": ([node("Gemm", "flat w b", "logits"), node("Softmax", "logits", "y")],
                "flat", "logits"),
    "matmul and add": ([node("MatMul", "flat w", "a"), node("Add", "b a", "y")], "flat", "y"),
    "dropout": ([node("Dropout", "flat", "d"), node("Gemm", "d w b", "y")], "d", "y"),
    "embedding": ([node("Gemm", "flat w b", "a"), node("LpNormalization", "a", "y", axis=1)],
                  "y", None),
    "pooled": ([node("Identity", "flat", "y")], "y", None),
}  # fmt: skip


def classifier(end: str = "gemm", **how: Any) -> onnx.ModelProto:
    return graph([*BODY, *ENDS[end][0]], LAST, **{"shape": (3, 16, 16), **how})


@pytest.mark.parametrize("end", ENDS)
def test_f_is_what_goes_into_the_last_layer_of_a_classifier(end: str) -> None:
    _, features, logits = ENDS[end]
    assert parts(classifier(end)) == (features, logits)


def save(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "f.onnx"
    output = model.graph.output[0]
    if not output.HasField("type"):  # of a file it has to be known; a free number of axes is not
        (typed,) = onnx.shape_inference.infer_shapes(model).graph.output
        output.CopyFrom(typed)
    onnx.save(model, path)
    return path


def test_f_and_logits_are_those_of_onnxruntime(tmp_path: Path) -> None:
    """From pictures in [-1, 1] at another size, by hand."""
    path = save(classifier("softmax"), tmp_path)
    f = OnnxF(path, 32, f_range="0.5/0.25")
    assert f.chosen == {
        "layer": "flat", "classifier": True, "layout": "NCHW", "channels": 3, "side": 16,
        "range": "0.5/0.25",
    }  # fmt: skip
    x = torch.rand(4, 3, 16, 16) * 2 - 1
    features, logits = f(x)
    model = onnx.load(path)
    model.graph.output.extend(
        helper.make_empty_tensor_value_info(name) for name in ("flat", "logits")
    )
    run = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = run.run(["flat", "logits"], {"x": (((x + 1) / 2 - 0.5) / 0.25).numpy()})
    np.testing.assert_allclose(features.numpy(), expected[0], atol=1e-5)
    assert logits is not None
    np.testing.assert_allclose(logits.numpy(), expected[1], atol=1e-5)
    larger = torch.rand(2, 3, 48, 48)
    shrunk = torch.nn.functional.interpolate(larger, (16, 16), mode="bilinear", antialias=True)
    torch.testing.assert_close(f(larger)[0], f(shrunk)[0])


def test_a_layer_with_height_and_width_is_averaged(tmp_path: Path) -> None:
    f = OnnxF(save(classifier(), tmp_path), 32, layer="relu")
    x = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(f(x)[0], OnnxF(tmp_path / "f.onnx", 32, layer="flat")(x)[0])


@pytest.mark.parametrize(
    ("shape", "layout", "channels", "side"),
    [((3, 24, 24), "NCHW", 3, 24), ((24, 24, 3), "NHWC", 3, 24), ((1, 28, 28), "NCHW", 1, 28)],
)
def test_layout_and_size_are_those_of_the_input(
    shape: tuple[int, ...], layout: str, channels: int, side: int, tmp_path: Path
) -> None:
    f = OnnxF(save(graph([node("Flatten", "x", "y")], shape=shape), tmp_path), 32)
    assert (f.chosen["layout"], f.channels, f.side) == (layout, channels, side)
    features, logits = f(torch.rand(2, 3, 32, 32))
    assert features.shape == (2, channels * side * side)
    assert logits is None


def test_a_free_side_is_that_of_the_run_or_as_given(tmp_path: Path) -> None:
    model = classifier()
    for axis in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        axis.dim_param = "S"
    path = save(model, tmp_path)
    assert OnnxF(path, 64).side == 64
    assert OnnxF(path, 64, f_side=24).side == 24


def hinted(*nodes: onnx.NodeProto, **constants: Any) -> onnx.ModelProto:
    values = {name: np.array(value, np.float32) for name, value in constants.items()}
    return graph([*nodes, node("Relu", "a", "y")], values, shape=(3, 8, 8))


RANGES = {
    "imagenet": (hinted(node("Identity", "x", "a")), "imagenet"),
    "bytes": (hinted(node("Div", "x c", "a"), c=255.0), "0..255"),
    "mean of bytes": (hinted(node("Sub", "x c", "a"), c=[[[123.7]]]), "0..255"),
    "mean of shares": (hinted(node("Sub", "x c", "a"), c=[[[0.485]]]), "0..1"),
    "scale": (hinted(node("Mul", "x c", "a"), c=1 / 127.5), "0..255"),
    "grey": (graph([node("Relu", "x", "y")], shape=(1, 8, 8)), "0..1"),
    "uint8": (
        graph(
            [node("Cast", "x", "y", to=TensorProto.FLOAT)],
            shape=(8, 8, 3),
            kind=TensorProto.UINT8,
        ),
        "0..255",
    ),
}


@pytest.mark.parametrize(("model", "expected"), RANGES.values(), ids=RANGES)
def test_the_range_is_guessed_from_the_first_nodes(model: onnx.ModelProto, expected: str) -> None:
    axes = model.graph.input[0].type.tensor_type.shape.dim
    channels = 1 if axes[1].dim_value == 1 else 3
    assert guessed_range(model, channels) == expected


@pytest.mark.parametrize("text", ["", "half", "1", "1/0", "1/2/3", "nan/1", "1,2/1", "0.5/x"])
def test_a_range_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no range"):
        range_of(text)


@pytest.mark.parametrize(
    ("nodes", "shape", "says"),
    [
        ([node("Relu", "x", "y")], (5, 8, 8), "no axis is of 1 or 3 channels"),
        ([node("Relu", "x", "y")], (3, 8), "not the 4 of pictures"),
        ([node("Relu", "x", "y")], (3, 8, 9), "takes pictures of"),
        ([node("NonZero", "x", "y")], (3, 8, 8), "NonZero"),
    ],
)
def test_a_graph_that_is_no_f_is_refused(
    nodes: list[onnx.NodeProto], shape: tuple[int, ...], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=says):
        OnnxF(save(graph(nodes, shape=shape), tmp_path), 32)


def test_standardised_over_s_with_a_mean_of_each_domain() -> None:
    f = CustomF(torch.nn.Identity(), 2)
    random = torch.Generator().manual_seed(0)
    s = torch.randn(500, 2, generator=random) * torch.tensor([3.0, 0.5]) + 7
    t = s[:300] + torch.tensor([10.0, 0.0])
    f.fit(s, t)
    f.net = Given()
    torch.testing.assert_close(f.of_source(s).mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(f.of_source(s).std(0), torch.ones(2))
    torch.testing.assert_close(f.features(t).mean(0), torch.zeros(2), atol=1e-5, rtol=0)


class Given(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        return x, None


def test_a_number_that_hardly_changes_is_not_blown_up() -> None:
    f = CustomF(Given(), 3)
    s = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    s[:, 2] = 0
    f.fit(s, s)
    assert float(f.deviation[2]) == pytest.approx(0.1 * float(s.std(0).mean()))


def test_the_exported_distance_takes_g_of_x_for_a_picture_of_t(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = frozen(OnnxF(save(classifier(), tmp_path), 16, f_range="-1..1"))
    f = frozen(CustomF(net, 8))
    f.mean_s, f.mean_t = torch.rand(8), torch.rand(8)
    g = torch.nn.Sequential(
        torch.nn.Unflatten(1, (8, 1, 1)), torch.nn.ConvTranspose2d(8, 3, 16), torch.nn.Tanh()
    ).eval()

    def read(x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 3, 1, 2).float() / 127.5 - 1

    module = DistanceGraph(read, Exported(f), g)
    path = tmp_path / "distance.onnx"
    write_graph(module, path, ["y", "f_distance"])
    x = np.random.default_rng(0).integers(0, 256, (8, 40, 36, 3), dtype=np.uint8)
    assert check_parity(path, module, x) <= 1
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    y, distance = session.run(None, {"x": x})
    expected = f.of_source(read(torch.from_numpy(x))) - f.features(read(torch.from_numpy(y)))
    np.testing.assert_allclose(distance, expected.norm(dim=1).numpy(), rtol=2e-2)


def test_the_face_network_takes_grey_and_any_size(tmp_path: Path) -> None:
    f = FaceF(write_resnet29(tmp_path / "dlib.dat"))
    features, logits = f(torch.rand(2, 1, 32, 32) * 2 - 1)
    assert features.shape == (2, 256)
    assert logits is None


def test_a_custom_run_with_an_onnx_f(tmp_path: Path) -> None:
    source, target = write_folders(tmp_path)
    f = save(classifier("softmax"), tmp_path)
    arguments = [
        "custom", "--source", source, "--target", target, "--f", f, "--f-range", "0..1",
        "--out", tmp_path / "run", "--export", tmp_path / "models" / "mine", "--steps", "2",
        "--batch", "4", "--device", "cpu",
    ]  # fmt: skip
    result = CliRunner().invoke(cli.train, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    assert "layer flat, classifier True" in result.output
    card = (tmp_path / "models" / "mine" / "CARD.md").read_text()
    assert "f.onnx" in card
    assert "| f reads G(x) as the class it reads x as |" in card
    again = CliRunner().invoke(cli.train, [*map(str, arguments), "--layer", "nothing"])
    assert again.exit_code == 2
    assert "no layer 'nothing'; its last are" in again.output
    wrong = [*map(str, arguments[:5]), "--f", "labelled", "--layer", "flat"]
    refused = CliRunner().invoke(cli.train, wrong)
    assert refused.exit_code == 2
    assert "of an ONNX f" in refused.output
