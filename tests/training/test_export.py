"""The model folder: the same pixels for whoever has nothing but onnxruntime."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from service.manifest import Manifest
from training.export import export, read, stored
from training.graphs import DistanceGraph, TransferGraph, check_parity, fused, write_graph
from training.networks import DigitNet, generator
from training.run import Run
from training.train import Trained

RANDOM = np.random.default_rng(0)


def pictures(n: int, height: int = 32, width: int = 32) -> np.ndarray:
    return RANDOM.integers(0, 256, (n, height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(run: Run, trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "digits"
    export(run, trained, folder)
    return folder


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def lively() -> tuple[DigitNet, torch.nn.Sequential]:
    """Networks whose outputs spread over the whole range, with statistics that are not 0 and 1."""
    torch.manual_seed(0)
    f, g = DigitNet().train(), generator(16).train()
    with torch.no_grad():
        for _ in range(20):
            g(f.features(torch.rand(32, 3, 32, 32) * 2 - 1))
        g[-2].weight.mul_(8)  # type: ignore[operator]
    return f.eval(), g.eval()


def test_g_begins_with_a_product_for_all_pictures_at_once(
    lively: tuple[DigitNet, torch.nn.Sequential],
) -> None:
    _, g = lively
    layers = fused(g)
    assert isinstance(layers[0], torch.nn.Linear)
    kinds = [type(layer) for layer in layers]
    assert kinds.count(torch.nn.ConvTranspose2d) == 3  # of four
    features = torch.randn(5, 128)
    with torch.no_grad():
        torch.testing.assert_close(layers(features), g(features), atol=0.02, rtol=0)


@pytest.mark.parametrize(("n", "height", "width"), [(1, 32, 32), (3, 32, 32), (8, 32, 32)])
def test_the_graph_equals_the_untouched_networks(
    lively: tuple[DigitNet, torch.nn.Sequential], tmp_path: Path, n: int, height: int, width: int
) -> None:
    f, g = lively
    write_graph(TransferGraph(read, stored(f), g), tmp_path / "m.onnx", ["y"])
    x = pictures(n, height, width)
    (y,) = session(tmp_path / "m.onnx").run(None, {"x": x})
    with torch.no_grad():
        unit = torch.from_numpy(x).permute(0, 3, 1, 2).float() / 127.5 - 1
        expected = ((g(f.features(unit)) + 1) * 127.5).round().permute(0, 2, 3, 1).numpy()
    assert y.dtype == np.uint8
    assert y.shape == (n, 32, 32, 1)
    assert expected.std() > 20  # a flat picture would prove nothing
    assert np.abs(y - expected).max() <= 1


def test_the_networks_themselves_are_left_alone(
    lively: tuple[DigitNet, torch.nn.Sequential],
) -> None:
    before = [weight.clone() for net in lively for weight in net.parameters()]
    TransferGraph(read, stored(lively[0]), lively[1])
    after = [weight for net in lively for weight in net.parameters()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("size", [(32, 20), (20, 32), (100, 60), (1, 1), (33, 31), (500, 700)])
def test_any_size_goes_in(
    lively: tuple[DigitNet, torch.nn.Sequential], tmp_path: Path, size: tuple[int, int]
) -> None:
    module = TransferGraph(read, stored(lively[0]), lively[1])
    write_graph(module, tmp_path / "m.onnx", ["y"])
    x = np.asarray(Image.fromarray(pictures(1, 8, 8)[0]).resize(size[::-1]))[None]
    (y,) = session(tmp_path / "m.onnx").run(None, {"x": x})
    with torch.no_grad():
        assert np.abs(y.astype(int) - module(torch.from_numpy(x.copy())).numpy()).max() <= 2


def test_the_edge_is_repeated_to_a_square(
    lively: tuple[DigitNet, torch.nn.Sequential], tmp_path: Path
) -> None:
    module = TransferGraph(read, stored(lively[0]), lively[1])
    narrow = pictures(1, 32, 20)
    square = np.pad(narrow, ((0, 0), (0, 0), (6, 6), (0, 0)), mode="edge")
    narrow_y, square_y = (module.read(torch.from_numpy(x)) for x in (narrow, square))
    assert torch.equal(narrow_y, square_y)


def test_the_distance_graph_measures_the_delivered_picture(
    lively: tuple[DigitNet, torch.nn.Sequential], tmp_path: Path
) -> None:
    f, _ = lively
    module = DistanceGraph(read, stored(lively[0]), lively[1])
    write_graph(module, tmp_path / "d.onnx", ["y", "f_distance"])
    assert check_parity(tmp_path / "d.onnx", module, pictures(8)) <= 1
    x = pictures(3)
    y, distance = session(tmp_path / "d.onnx").run(None, {"x": x})
    with torch.no_grad():
        fx, fy = (
            f.features(torch.from_numpy(z).permute(0, 3, 1, 2).float() / 127.5 - 1) for z in (x, y)
        )
    assert distance.shape == (3,)
    np.testing.assert_allclose(distance, (fx - fy).norm(dim=1).numpy(), rtol=2e-2)


def test_the_manifest_is_what_the_service_reads(folder: Path, trained: Trained) -> None:
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
    assert manifest.name == "digits"
    for graph in manifest.graphs.values():
        data = (folder / graph.file).read_bytes()
        assert graph.sha256 == hashlib.sha256(data).hexdigest()
        assert graph.bytes == len(data)
    raw = json.loads((folder / "manifest.json").read_text())
    assert raw["data"]["splits"] == trained.digits.sizes
    assert raw["metrics"]["transfer_accuracy"]["split"] == "svhn_test"
    assert raw["metrics"]["transfer_accuracy"]["n"] == 40
    assert raw["training"]["config"]["preset"] == "digits_smoke"


def test_the_card_tells_the_manifest_s_figures(folder: Path) -> None:
    text = (folder / "CARD.md").read_text()
    raw = json.loads((folder / "manifest.json").read_text())
    assert f"{100 * raw['metrics']['f_accuracy']['value']:.2f} %" in text
    assert raw["graphs"]["transfer"]["sha256"][:16] in text
    assert "SVHN-10k" in text


def test_graphs_name_no_file_of_this_machine(folder: Path) -> None:
    for path in folder.glob("*.onnx"):
        data = path.read_bytes()
        assert b".py" not in data
        assert str(Path.cwd()).encode() not in data
