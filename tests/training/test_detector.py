"""The detector's graph against the same steps in plain Python, on a stand-in network."""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from training.detector import ANCHORS, OVERLAP, THRESHOLD, VARIANCES, write_detector

Floats = npt.NDArray[np.float32]
PER_ANCHOR = {"loc": 4, "conf": 2, "landmarks": 10}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random convolutions with the interface of the published network, opset 11 as there."""
    rng = np.random.default_rng(0)
    nodes, weights = [], []
    for output, per_anchor in PER_ANCHOR.items():
        levels = []
        for stride in ANCHORS:
            shape = (2 * per_anchor, 3, stride, stride)
            scale = 0.02 / stride if output == "conf" else 0.005 / stride
            name = f"{output}.{stride}"
            weights.append(numpy_helper.from_array(rng.normal(0, scale, shape).astype("f4"), name))
            nodes += [
                helper.make_node("Conv", ["input", name], [f"{name}.c"], strides=[stride, stride]),
                helper.make_node("Transpose", [f"{name}.c"], [f"{name}.t"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"{name}.t", f"{output}.shape"], [f"{name}.r"]),
            ]
            levels.append(f"{name}.r")
        weights.append(numpy_helper.from_array(np.array([1, -1, per_anchor]), f"{output}.shape"))
        joined = f"{output}.all" if output == "conf" else output
        nodes.append(helper.make_node("Concat", levels, [joined], axis=1))
    nodes.append(helper.make_node("Softmax", ["conf.all"], ["conf"], axis=2))
    x = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, "h", "w"])
    answers = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, f"{name}.n", n])
        for name, n in PER_ANCHOR.items()
    ]
    graph = helper.make_graph(nodes, "stand_in", [x], answers, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    path = tmp_path_factory.mktemp("published") / "network.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def detector(published: Path) -> ort.InferenceSession:
    path = published.with_name("detect.onnx")
    write_detector(published, path)
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"])


def overlap(a: Floats, b: Floats) -> float:
    """Intersection over union of two boxes."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = float(np.prod(np.clip(sides, 0, None)))
    return shared / float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared)


def expected(published: Path, x: npt.NDArray[np.uint8]) -> list[tuple[Floats, float, Floats]]:
    """Box, score and points of each face in x [H, W, 3], anchor after anchor."""
    height, width = (32 * math.ceil(side / 32) for side in x.shape[:2])
    padded = np.zeros((height, width, 3), np.float32)
    padded[: x.shape[0], : x.shape[1]] = x
    bgr = padded[:, :, ::-1] - np.float32([104, 117, 127])
    session = ort.InferenceSession(published, providers=["CPUExecutionProvider"])
    feed = {"input": np.ascontiguousarray(bgr.transpose(2, 0, 1)[np.newaxis])}
    loc, conf, marks = session.run(list(PER_ANCHOR), feed)
    anchors = [
        (np.float32([(j + 0.5) * stride, (i + 0.5) * stride]), side)
        for stride, sides in ANCHORS.items()
        for i in range(height // stride)
        for j in range(width // stride)
        for side in sides
    ]
    assert len(anchors) == loc.shape[1]
    candidates = []
    for (centre, side), offset, (_, score), mark in zip(
        anchors, loc[0], conf[0], marks[0], strict=True
    ):
        if score > THRESHOLD:
            middle = centre + VARIANCES[0] * side * offset[:2]
            half = side * np.exp(VARIANCES[1] * offset[2:]) / 2
            points = centre + VARIANCES[0] * side * mark.reshape(5, 2)
            candidates.append((np.concatenate([middle - half, middle + half]), score, points))
    faces: list[tuple[Floats, float, Floats]] = []
    for candidate in sorted(candidates, key=lambda face: -face[1]):
        if all(overlap(candidate[0], face[0]) <= OVERLAP for face in faces):
            faces.append(candidate)
    return faces


@pytest.mark.parametrize("size", [(96, 64), (70, 101), (33, 32)])
def test_the_graph_finds_what_the_steps_find(
    published: Path, detector: ort.InferenceSession, size: tuple[int, int]
) -> None:
    x = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    faces = expected(published, x)
    boxes, scores, points = detector.run(["boxes", "scores", "points"], {"x": x[np.newaxis]})
    assert len(faces) == len(boxes) > 1
    # The graph's weights are rounded to float16.
    assert np.allclose(boxes, [box for box, _, _ in faces], atol=0.1)
    assert np.allclose(scores, [score for _, score, _ in faces], atol=0.005)
    assert np.allclose(points, [five for _, _, five in faces], atol=0.1)


def test_a_picture_without_faces_has_none(detector: ort.InferenceSession) -> None:
    mean = np.full((1, 32, 64, 3), (127, 117, 104), np.uint8)  # to the network all zeros
    boxes, scores, points = detector.run(["boxes", "scores", "points"], {"x": mean})
    assert (boxes.shape, scores.shape, points.shape) == ((0, 4), (0,), (0, 5, 2))


def test_large_weights_are_stored_as_float16(
    published: Path, detector: ort.InferenceSession
) -> None:
    stored = onnx.load(published.with_name("detect.onnx")).graph.initializer
    large = [weight for weight in stored if math.prod(weight.dims) >= 256]
    assert large
    assert all(weight.data_type == TensorProto.FLOAT16 for weight in large)
