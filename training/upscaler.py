"""The upscaler of the emoji (Sec. 5.2, Appendix B, Figure 7): 64x64 to 512x512, behind g.

The paper took the network of Dong et al. (2016), trained on photographs. T is vector art here,
so exact pairs cost nothing: every avatar is drawn at 64 px and at 512 px, and a small
sub-pixel network (ESPCN, Shi et al. 2016) learns the one from the other. In use it is given
what g draws, softer and noisier than a rasterised avatar: so most of its inputs are degraded
(degradation.py), their targets never. Beside a pixel it is told where in the picture that lies
(CoordConv, Liu et al. 2018): a dark dot in the middle of the face is a nose, on the cheek it is
none. And what its mirror image is: faces in T are symmetric, so that of two eyes or halves of a jaw
the one that is well drawn tells how the other should be.

Pictures are float tensors in [-1, 1], [B, 3, H, W], unless said otherwise.
"""

import copy
import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from training.degradation import Degradation, degrade
from training.graphs import fused, write_graph
from training.networks import frozen, placed, to_unit
from training.places import positions
from training.run import autocast

SIDE, SCALE = 64, 8  # pixels of g's pictures, and how many times larger they become
Upscale = Callable[[Tensor], Tensor]  # uint8 [N, 64, 64, 3] to uint8 [N, 512, 512, 3]
LIMIT = 1.02  # of what `Delivered` answers
LOG_EVERY = 50  # steps
SAVE_EVERY = 500


@dataclass(frozen=True)
class UpscalerConfig:
    """How the upscaler is built and trained."""

    steps: int = 4000
    batch: int = 6
    lr: float = 2e-3
    warmup: int = 100  # steps; after them a cosine to zero
    width: int = 64
    dilations: tuple[int, ...] = (1, 2, 1, 4, 1, 2, 1)  # of the blocks
    expand: int = 128  # channels before the 192 sub-pixels
    epsilon: float = 0.01  # of the Charbonnier loss: about one grey level
    degradation: Degradation = field(default_factory=Degradation)  # of its inputs
    seed: int = 1
    bf16: bool = True  # autocast


class Block(nn.Module):
    """ReLU(x + convolution(x)), which onnxruntime does in one pass."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.convolution(x))


class Upscaler(nn.Module):
    """A picture eight times as large: what to add to its nearest enlargement.

    All convolutions see the small picture and its mirror image, and the last one answers with 64
    sub-pixels a colour. Before training it is the nearest enlargement itself.
    """

    def __init__(self, config: UpscalerConfig) -> None:
        super().__init__()
        width, expand = config.width, config.expand
        last = nn.Conv2d(expand, 3 * SCALE**2, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(cast(Tensor, last.bias))
        self.body = nn.Sequential(
            nn.Conv2d(3 + 3 + 2, width, 5, padding=2),  # colours, the mirror image's, position
            nn.ReLU(),
            *(Block(width, dilation) for dilation in config.dilations),
            nn.Conv2d(width, expand, 3, padding=1),
            nn.ReLU(),
            last,
        )
        self.positions = nn.Buffer(positions(SIDE).unsqueeze(0), persistent=False)

    def subpixels(self, x: Tensor) -> Tensor:
        """[B, 3, 64, 64] to [B, 3, 8 * 8, 64, 64]: the pixels that each pixel becomes."""
        n = len(x)
        added: Tensor = self.body(told(x, self.positions)).view(n, 3, SCALE**2, SIDE, SIDE)
        return added + x.unsqueeze(2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, 64, 64] to [B, 3, 512, 512]; in [-1, 1] only about."""
        return F.pixel_shuffle(self.subpixels(x).flatten(1, 2), SCALE)


def told(x: Tensor, where: Tensor) -> Tensor:
    """What the convolutions see of [B, 3, 64, 64]: [B, 8, 64, 64], its mirror image and `where`,
    the positions [1, 2, 64, 64], beside it."""
    # By a sum, which needs no copy of `where` for each picture.
    both = torch.cat([x, x.flip(3)], 1)
    return F.pad(both, (0, 0, 0, 0, 0, 2)) + F.pad(where, (0, 0, 0, 0, 6, 0))


def upscaler_loss(y: Tensor, truth: Tensor, epsilon: float) -> Tensor:
    """Charbonnier's sqrt(d² + ε²) of the pictures as drawn and of their halves, mean-reduced.

    The halves are the 256 px that are delivered by default. Like L1 it asks for the median,
    which leaves an outline sharp where squares would ask for the mean.
    """
    difference = y - truth
    terms = (difference, F.avg_pool2d(difference, 2))
    return torch.stack([(d.square() + epsilon**2).sqrt().mean() for d in terms]).sum()


def drawn_pairs(
    small: Tensor, large: Tensor, batch: int, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Some avatars of uint8 [n, 64, 64, 3] and [n, 512, 512, 3]: [batch, 3, 64, 64] and
    [batch, 3, 512, 512]."""
    index = torch.randint(len(small), (batch,), generator=random)
    x, truth = (to_unit(pictures[index].permute(0, 3, 1, 2)) for pictures in (small, large))
    return x, truth


class Training:
    """The network, its optimiser and its randomness; one call of `step` is one update."""

    def __init__(self, config: UpscalerConfig) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.net = placed(Upscaler(config), torch.device("cpu"))
        self.optimizer = torch.optim.Adam(self.net.parameters(), config.lr)
        self.random = torch.Generator().manual_seed(config.seed)

    def step(self, small: Tensor, large: Tensor, step: int) -> float:
        """One update on some pairs of `small` and `large`; returns the loss."""
        config = self.config
        rate = min(1.0, (step + 1) / config.warmup)
        rate *= 0.5 + 0.5 * math.cos(math.pi * step / config.steps)
        self.optimizer.param_groups[0]["lr"] = config.lr * rate
        x, truth = drawn_pairs(small, large, config.batch, self.random)
        x = degrade(x, self.net.positions, config.degradation, self.random)
        with autocast(x.device, config.bf16):
            y = self.net(x)
        loss = upscaler_loss(y.float(), truth, config.epsilon)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.item()

    def save(self, path: Path, step: int) -> None:
        """Everything an exact resume needs, written whole or not at all."""
        part = path.with_suffix(".part")
        state = {
            "config": dataclasses.asdict(self.config),
            "step": step,
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": self.random.get_state(),
        }
        torch.save(state, part)
        part.replace(path)

    def restore(self, path: Path) -> int:
        """Take up what `save` wrote; returns its step, 0 where there is nothing.

        Raises ValueError where it belongs to another configuration.
        """
        if not path.exists():
            return 0
        state: dict[str, Any] = torch.load(path, weights_only=True)
        if state["config"] != dataclasses.asdict(self.config):
            raise ValueError(f"{path} is of another configuration: use another --out")
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.random.set_state(state["random"])
        return int(state["step"])


def train_upscaler(small: Tensor, large: Tensor, folder: Path, config: UpscalerConfig) -> Upscaler:
    """Learn uint8 [n, 512, 512, 3] from uint8 [n, 64, 64, 3]; returns the network, frozen.

    Keeps upscaler.pt and log.jsonl in `folder` and goes on where an earlier start stopped.
    Raises ValueError where the folder holds a training of another configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    training = Training(config)
    start = training.restore(folder / "upscaler.pt")
    progress = tqdm(range(start, config.steps), "upscaler", config.steps, initial=start)
    total = 0.0
    for step in progress:
        total += training.step(small, large, step)
        if (step + 1) % LOG_EVERY == 0:
            line = {"step": step + 1, "loss": round(total / LOG_EVERY, 5)}
            with (folder / "log.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            progress.set_postfix(line)
            total = 0.0
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == config.steps:
            training.save(folder / "upscaler.pt", step + 1)
    return frozen(training.net)


class UpscaleGraph(nn.Module):
    """The network between uint8 pictures, rounding and clipping included."""

    def __init__(self, net: Upscaler) -> None:
        super().__init__()
        body = copy.deepcopy(net.body)
        last = cast(nn.Conv2d, body[-1])
        # The last layer answers colour by colour; here place by place, as pictures are stored.
        last.weight = nn.Parameter(by_place(last.weight))
        last.bias = nn.Parameter(by_place(cast(Tensor, last.bias)))
        self.body = fused(body)
        self.positions = nn.Buffer(positions(SIDE).unsqueeze(0))
        frozen(self)

    def forward(self, x: Tensor) -> Tensor:
        """y, uint8 [N, 512, 512, 3], of x, uint8 [N, 64, 64, 3].

        The pixels are put in their places last, as single bytes: those of a row of sub-pixels
        together, then the rows, which are wide.
        """
        n, height, width, _ = x.shape
        picture = x.permute(0, 3, 1, 2).float() / 127.5 - 1
        added: Tensor = self.body(told(picture, self.positions))
        y = added.view(n, SCALE**2, 3, height, width) + picture.unsqueeze(1)
        y = ((y + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        y = y.view(n, SCALE, SCALE * 3, height * width).transpose(2, 3).contiguous()
        y = y.view(n, SCALE, height, width * SCALE * 3).transpose(1, 2)
        return y.reshape(n, SCALE * height, SCALE * width, 3)


def by_place(values: Tensor) -> Tensor:
    """Of 3 x 64 sub-pixels [192, ...] to 64 x 3."""
    return values.view(3, SCALE**2, *values.shape[1:]).transpose(0, 1).flatten(0, 1)


class Delivered(nn.Module):
    """Pictures [B, 3, 64, 64] as the service delivers them, at 128 px: for what lets gradients
    through. Frozen."""

    def __init__(self, net: Upscaler) -> None:
        super().__init__()
        self.net = net
        frozen(self)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, 128, 128], clipped a little past black and white, to leave a slope."""
        n, channels, height, width = x.shape
        half = SCALE // 2
        y = self.net.subpixels(x).float()
        y = y.view(n, channels, 2, half, 2, half, height, width).mean((3, 5))
        return F.pixel_shuffle(y.view(n, channels * 4, height, width), 2).clamp(-LIMIT, LIMIT)


def delivered_by(path: Path, device: torch.device) -> Delivered:
    """By the upscaler.pt that `dtn upscaler` left. Raises FileNotFoundError, ValueError."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run `dtn upscaler` or name another --upscaler")
    state = torch.load(path, map_location="cpu", weights_only=True)
    values = state["config"]
    try:
        config = UpscalerConfig(**values | {"degradation": Degradation(**values["degradation"])})
    except TypeError as error:
        raise ValueError(f"{path} is of another version: use another --out") from error
    if state["step"] < config.steps:
        raise ValueError(f"{path} is not finished: run `dtn upscaler` again")
    net = Upscaler(config)
    net.load_state_dict(state["net"])
    return placed(Delivered(net), device)


@torch.no_grad()
def upscale(net: Upscaler, pictures: Tensor) -> Tensor:
    """uint8 [N, 64, 64, 3] to uint8 [N, 512, 512, 3]."""
    graph = UpscaleGraph(net)
    return torch.cat([graph(chunk) for chunk in torch.split(pictures, 16)])


def export_upscaler(net: Upscaler, path: Path) -> None:
    """Write the graph: x uint8 [N, 64, 64, 3] to y uint8 [N, 512, 512, 3], weights in float16."""
    write_graph(UpscaleGraph(net), path, ["y"], SIDE)


def upscale_by(path: Path) -> Upscale:
    """The graph that `dtn upscaler` wrote. Raises FileNotFoundError."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run `dtn upscaler` or name another --upscaler")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def upscale(pictures: Tensor) -> Tensor:
        parts = [session.run(["y"], {"x": x.numpy()})[0] for x in torch.split(pictures, 8)]
        return torch.from_numpy(np.concatenate(parts))

    return upscale


def area(pictures: Tensor, side: int) -> Tensor:
    """uint8 [N, S, S, 3] reduced to uint8 [N, side, side, 3]; each pixel is the exact mean of
    its square, so `side` divides S."""
    mean = F.avg_pool2d(pictures.permute(0, 3, 1, 2).float(), pictures.shape[1] // side)
    return mean.round().byte().permute(0, 2, 3, 1)


def psnr(pictures: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of uint8 [N, ...]: the mean over the N pictures, infinite
    where one of them equals its truth."""
    square = (pictures.float() - truth.float()).square().flatten(1).mean(1)
    return float((10 * torch.log10(255**2 / square)).mean())
