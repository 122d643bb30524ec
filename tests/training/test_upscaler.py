"""The upscaler: what it learns from, what its graph answers, and what it is compared with."""

import copy
import dataclasses
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from PIL import Image, ImageDraw
from torch import Tensor

from training import upscaler_peers
from training.degradation import Degradation
from training.networks import to_unit
from training.upscaler import (
    Delivered,
    Training,
    UpscaleGraph,
    Upscaler,
    UpscalerConfig,
    area,
    delivered_by,
    drawn_pairs,
    export_upscaler,
    psnr,
    train_upscaler,
    upscale,
    upscaler_loss,
)
from training.upscaler_peers import (
    HALF_TAG,
    NAME,
    SIDES,
    bicubic,
    compared,
    degraded,
    enlarge,
    figure7,
    published,
)

TINY = UpscalerConfig(steps=6, batch=2, width=8, dilations=(1, 2), expand=16, warmup=2)


def discs(n: int) -> tuple[Tensor, Tensor]:
    """Outlined discs, uint8 [n, 64, 64, 3] and [n, 512, 512, 3]."""
    random = np.random.default_rng(0)
    large = []
    for _ in range(n):
        image = Image.new("RGB", (512, 512), "white")
        x, y = random.integers(100, 400, 2).tolist()
        colour = tuple(random.integers(0, 256, 3).tolist())
        ImageDraw.Draw(image).circle((x, y), 90, colour, "black", 12)
        large.append(np.asarray(image))
    truth = torch.from_numpy(np.stack(large))
    return area(truth, 64), truth


@pytest.fixture(scope="module")
def pairs() -> tuple[Tensor, Tensor]:
    return discs(8)


@pytest.fixture(scope="module")
def lively() -> Upscaler:
    """A network that adds something to the nearest enlargement."""
    torch.manual_seed(0)
    net = Upscaler(TINY).eval()
    with torch.no_grad():
        net.body[-1].weight.normal_(0, 0.2)  # type: ignore[operator]
    return net


def nearest(pictures: Tensor) -> Tensor:
    return pictures.repeat_interleave(8, 1).repeat_interleave(8, 2)


def test_before_training_it_is_the_nearest_enlargement() -> None:
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    y = Upscaler(TINY)(x)
    assert torch.equal(y.permute(0, 2, 3, 1), nearest(x.permute(0, 2, 3, 1)))


def test_the_graph_s_pixels_lie_where_the_network_s_do(lively: Upscaler) -> None:
    x = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        y = lively(to_unit(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
    expected = ((y + 1) * 127.5).round().clamp(0, 255)
    assert (upscale(lively, x).float() - expected).abs().max() <= 1
    assert (expected - nearest(x)).abs().mean() > 5  # the network itself would prove nothing


def test_what_is_delivered_is_the_mean_of_the_graph_s_pixels_and_has_a_slope(
    lively: Upscaler,
) -> None:
    x = torch.randint(64, 192, (2, 64, 64, 3), dtype=torch.uint8)
    picture = to_unit(x.permute(0, 3, 1, 2)).requires_grad_()
    y = Delivered(copy.deepcopy(lively))(picture)
    assert y.shape == (2, 3, 128, 128)
    drawn = upscale(lively, x)
    unclipped = area((drawn > 0).logical_and(drawn < 255).byte() * 255, 128) == 255
    away = (((y + 1) * 127.5).permute(0, 2, 3, 1) - area(drawn, 128).float()).abs()
    assert away[unclipped].max() <= 1.1
    assert unclipped.float().mean() > 0.1
    (slope,) = torch.autograd.grad(y[0, :, 64, 64].sum(), picture)
    assert slope[0].abs().sum() > 0 and slope[1].abs().sum() == 0


def test_what_delivers_is_a_finished_upscaler(pairs: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "upscaler.pt"
    with pytest.raises(FileNotFoundError, match="run `dtn upscaler`"):
        delivered_by(path, torch.device("cpu"))
    net = train_upscaler(*pairs, tmp_path, TINY)
    own = delivered_by(path, torch.device("cpu"))
    assert not any(weight.requires_grad for weight in own.parameters())
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(own(x), Delivered(net)(x))
    Training(TINY).save(path, TINY.steps - 1)
    with pytest.raises(ValueError, match="is not finished"):
        delivered_by(path, torch.device("cpu"))
    state = torch.load(path, weights_only=True)
    torch.save(state | {"config": state["config"] | {"crop": 48}}, path)
    with pytest.raises(ValueError, match="of another version"):
        delivered_by(path, torch.device("cpu"))


@pytest.fixture(scope="module")
def exported(lively: Upscaler, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "upscale.onnx"
    export_upscaler(lively, path)
    return path


@pytest.mark.parametrize("n", [1, 3, 8])
def test_the_exported_graph_equals_the_module(lively: Upscaler, exported: Path, n: int) -> None:
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(n).integers(0, 256, (n, 64, 64, 3), dtype=np.uint8)
    (y,) = session.run(["y"], {"x": x})
    assert session.get_inputs()[0].shape == ["N", 64, 64, 3]
    assert session.get_outputs()[0].shape == ["N", 512, 512, 3]
    assert (y.shape, y.dtype) == ((n, 512, 512, 3), np.uint8)
    expected = UpscaleGraph(lively)(torch.from_numpy(x)).numpy()
    assert np.abs(y.astype(int) - expected).max() <= 1
    assert {0, 255} <= set(np.unique(y))  # clipped, not wrapped around


def test_the_graph_names_no_file_of_this_machine(exported: Path) -> None:
    assert b".py" not in exported.read_bytes()


def test_exporting_leaves_the_network_alone(lively: Upscaler) -> None:
    before = [weight.clone() for weight in lively.parameters()]
    UpscaleGraph(lively)
    assert all(torch.equal(a, b) for a, b in zip(before, lively.parameters(), strict=True))
    assert all(weight.requires_grad for weight in lively.parameters())


def test_pairs_show_the_same_avatar_at_both_sizes(pairs: tuple[Tensor, Tensor]) -> None:
    x, truth = drawn_pairs(*pairs, 5, torch.Generator().manual_seed(3))
    assert x.shape == (5, 3, 64, 64)
    assert truth.shape == (5, 3, 512, 512)
    shrunk = torch.nn.functional.avg_pool2d(truth, 8)
    assert (x - shrunk).abs().max() < 1 / 127  # rounding to bytes
    assert x.std() > 0.1
    assert len({picture.mean().item() for picture in x}) > 2


def test_what_is_drawn_depends_on_the_position(lively: Upscaler) -> None:
    x = torch.full((1, 64, 64, 3), 200, dtype=torch.uint8)
    y = upscale(lively, x)
    assert (y[:, 100:108, 100:108] != y[:, 400:408, 100:108]).any()
    assert (y[:, 100:108, 100:108] != y[:, 100:108, 400:408]).any()


def test_what_is_drawn_depends_on_the_mirror_image(lively: Upscaler) -> None:
    x = torch.full((1, 64, 64, 3), 200, dtype=torch.uint8)
    dotted = x.clone()
    dotted[:, 20, 10] = 0
    changed = (upscale(lively, x) != upscale(lively, dotted)).any(3)[0]
    reach = 8 * (2 + 1 + 2 + 1)  # of the convolutions on either side
    assert changed[160:168, 80:88].any()
    assert changed[160:168, 8 * 53 : 8 * 54].any()
    assert not changed[:, 88 + reach : 8 * 53 - reach].any()
    assert not changed[168 + reach :].any()


def test_the_loss_by_hand() -> None:
    y, truth = torch.zeros(1, 1, 2, 2), torch.tensor([[[[3.0, -3.0], [3.0, 1.0]]]])
    # ε = 4: at full size three of 5 and one of √17; the mean of the square is 1, √17 again.
    expected = (3 * 5 + 17**0.5) / 4 + 17**0.5
    assert upscaler_loss(y, truth, 4).item() == pytest.approx(expected)


def test_psnr_by_hand() -> None:
    truth = torch.zeros(2, 2, 2, 3, dtype=torch.uint8)
    pictures = truth.clone()
    pictures[0] += 255  # 0 dB
    pictures[1, 0, 0, 0] = 51  # 51² / 12, 255 / 51 = 5: 10 log10(25 · 12) = 24.7712 dB
    assert psnr(pictures, truth) == pytest.approx(24.7712 / 2, abs=1e-4)
    assert psnr(truth, truth) == float("inf")


def test_area_is_the_mean_of_squares() -> None:
    pictures = torch.arange(16, dtype=torch.uint8).view(1, 4, 4, 1)
    assert area(pictures, 2).flatten().tolist() == [2, 4, 10, 12]  # of 2.5, 4.5, 10.5, 12.5


def test_it_learns(pairs: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    torch.set_num_threads(1)
    config = dataclasses.replace(TINY, steps=300, lr=2e-3, degradation=Degradation(clean=1))
    net = train_upscaler(*pairs, tmp_path, config)
    small, large = pairs
    assert psnr(upscale(net, small), large) > psnr(nearest(small), large) + 1
    assert not any(weight.requires_grad for weight in net.parameters())
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(50, 301, 50))
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_an_interrupted_training_equals_an_uninterrupted_one(
    pairs: tuple[Tensor, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_upscaler(*pairs, tmp_path / "whole", TINY)
    monkeypatch.setattr("training.upscaler.SAVE_EVERY", 2)
    real_step, done = Training.step, []

    def step_until_the_power_goes(self: Training, *args: Any) -> float:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(args[-1])
        return real_step(self, *args)

    monkeypatch.setattr(Training, "step", step_until_the_power_goes)
    with pytest.raises(KeyboardInterrupt):
        train_upscaler(*pairs, tmp_path / "broken", TINY)
    monkeypatch.setattr(Training, "step", real_step)
    resumed = train_upscaler(*pairs, tmp_path / "broken", TINY)
    theirs = resumed.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in whole.state_dict().items())


def test_a_folder_of_another_configuration_is_refused(
    pairs: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    train_upscaler(*pairs, tmp_path, dataclasses.replace(TINY, steps=1))
    with pytest.raises(ValueError, match="another configuration"):
        train_upscaler(*pairs, tmp_path, TINY)


def write_ncnn(folder: Path, tag: int = HALF_TAG, extra: bytes = b"") -> tuple[Tensor, Tensor]:
    """A network of one convolution, x2, as ncnn keeps it; returns its weight and bias."""
    random = np.random.default_rng(0)
    weight = random.normal(0, 0.1, (12, 3, 3, 3)).astype(np.float16)
    bias, slopes = (random.normal(0, 0.1, 12).astype(np.float32) for _ in range(2))
    (folder / f"{NAME}.param").write_text(
        "7767517\n5 6\n"
        "Input data 0 1 data\n"
        "Convolution Conv_0 1 1 data 1 0=12 1=3 4=1 5=1 6=324\n"
        "PReLU PRelu_1 1 1 1 2 0=12\n"
        "PixelShuffle DepthToSpace_2 1 1 2 3 0=2\n"
    )
    weights = weight.astype(np.float32) if tag == 0 else weight
    data = struct.pack("<I", tag) + weights.tobytes() + bias.tobytes() + slopes.tobytes()
    (folder / f"{NAME}.bin").write_bytes(data + extra)
    return torch.from_numpy(weight.astype(np.float32)), torch.from_numpy(bias)


@pytest.mark.parametrize("tag", [0, HALF_TAG])
def test_ncnn_s_files_are_read(tmp_path: Path, tag: int) -> None:
    weight, bias = write_ncnn(tmp_path, tag)
    net = published(tmp_path)
    convolution, slopes = net.body
    assert torch.equal(convolution.weight, weight)  # type: ignore[arg-type]
    assert torch.equal(convolution.bias, bias)  # type: ignore[arg-type]
    assert slopes.weight.shape == (12,)  # type: ignore[union-attr]
    assert net.scale == 2
    assert enlarge(net, torch.zeros(3, 5, 4, 3, dtype=torch.uint8)).shape == (3, 10, 8, 3)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write_ncnn(tmp_path, extra=b"1234")
    with pytest.raises(ValueError, match="more than"):
        published(tmp_path)
    write_ncnn(tmp_path, tag=7)
    with pytest.raises(ValueError, match="0x7"):
        published(tmp_path)
    write_ncnn(tmp_path)
    path = tmp_path / f"{NAME}.bin"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match="too early"):
        published(tmp_path)


def test_every_method_is_compared_on_clean_and_degraded_inputs(
    lively: Upscaler, pairs: tuple[Tensor, Tensor]
) -> None:
    small, large = pairs[0][:2], pairs[1][:2]
    figures = compared(lively, None, small, large, Degradation())
    assert set(figures) == {"clean", "degraded"}
    truth = area(large, 256)
    assert figures["clean"]["bicubic"] == round(psnr(bicubic(small, 256), truth), 2)
    assert figures["clean"]["ours"] == round(psnr(area(upscale(lively, small), 256), truth), 2)
    assert figures["degraded"]["bicubic"] < figures["clean"]["bicubic"]
    assert torch.equal(degraded(small, Degradation()), degraded(small, Degradation()))


def test_figure_7_has_a_row_for_each_subject() -> None:
    columns = [torch.full((2, 4, 4, 3), value, dtype=torch.uint8) for value in (0, 100, 200)]
    columns[2][1] = 250
    sheet = figure7(columns)
    assert sheet.size == (12, 8)
    assert [sheet.getpixel((x, 7)) for x in (0, 5, 11)] == [(v, v, v) for v in (0, 100, 250)]


def test_the_command_leaves_graph_figures_and_figure_7(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn(n: int, folder: Path, sides: tuple[int, ...], seed: int) -> tuple[None, Any]:
        assert sides == SIDES
        return None, [pictures.numpy() for pictures in discs(n)]

    monkeypatch.setattr(upscaler_peers, "avatars", drawn)
    monkeypatch.setattr(upscaler_peers, "TRAIN_AVATARS", 3)
    monkeypatch.setattr(upscaler_peers, "TEST_AVATARS", 8)
    monkeypatch.setattr(upscaler_peers, "milliseconds", lambda path: 1.0)
    write_ncnn(tmp_path)
    out = tmp_path / "out"
    arguments = ["--artwork", str(tmp_path), "--out", str(out), "--steps", "1"]
    result = CliRunner().invoke(upscaler_peers.upscaler, arguments)
    assert result.exit_code == 0, result.output
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["bytes"] == (out / "upscale.onnx").stat().st_size
    assert metrics["parity"] <= 1
    assert metrics["avatars"] == {"train": 3, "test": 8}
    with Image.open(out / "figure7.png") as sheet:
        assert sheet.size == (3 * 256, 6 * 256)


def test_missing_networks_are_one_line(tmp_path: Path) -> None:
    arguments = ["--artwork", str(tmp_path), "--networks", str(tmp_path / "none")]
    result = CliRunner().invoke(upscaler_peers.upscaler, arguments)
    assert result.exit_code == 2
    assert "none" in result.output
