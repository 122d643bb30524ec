"""A run's folder: its resolved configuration, its log, its checkpoints; all resumable."""

import dataclasses
import importlib
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.config import DTNConfig, from_dict

_seeding = threading.Lock()  # torch's generator is every thread's


class Run:
    """`folder` with config.json, log.jsonl, `*.pt` and pictures.

    A second start in the same folder goes on where the first stopped. Raises ValueError
    where the folder holds a run of another configuration.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        config: DTNConfig,
        device: str = "cpu",
        tensorboard: bool = False,
        quiet: bool = False,
    ) -> None:
        self.folder = folder
        self.quiet = quiet  # no bars of progress
        self.name = name
        self.config = config
        self.device = torch.device(device)
        folder.mkdir(parents=True, exist_ok=True)
        resolved = {"preset": name, **dataclasses.asdict(config)}
        path = folder / "config.json"
        # A field that the release of an earlier start did not know has its default there.
        if path.exists() and read_config(path) != (name, config):
            raise ValueError(f"{folder} holds a run of another configuration: use another --out")
        part = folder / f"config.json.{os.getpid()}"  # several ranks may start at once
        part.write_text(json.dumps(resolved, indent=2) + "\n")
        part.replace(path)
        self.board = summary_writer(folder) if tensorboard else None

    def log(self, network: str, step: int, **values: float | None) -> None:
        """Append one JSON line, with the time; draw it in TensorBoard where that is wanted."""
        line = {"time": round(time.time(), 1), "network": network, "step": step, **values}
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        if self.board is not None:
            for name, value in values.items():
                if value is not None:  # the rate of a first step
                    self.board.add_scalar(f"{network}/{name}", value, step)

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Write `name` whole or not at all."""
        part = self.folder / f"{name}.part"
        torch.save(state, part)
        part.replace(self.folder / name)

    def load(self, name: str) -> dict[str, Any] | None:
        """What `save` wrote, on the run's device; None where there is nothing."""
        path = self.folder / name
        if not path.exists():
            return None
        state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
        return state

    def write_metrics(
        self, protocol: str, splits: dict[str, int], metrics: dict[str, Any]
    ) -> dict[str, Any]:
        """metrics.json: figures beside all that they are worth nothing without."""
        record = {
            "preset": self.name,
            "seed": self.config.seed,
            "steps": self.config.steps,
            "batch": self.config.batch,
            "protocol": protocol,
            "splits": splits,
            "device": device_name(self.device),
            "date": datetime.now(UTC).date().isoformat(),
            "metrics": metrics,
        }
        (self.folder / "metrics.json").write_text(json.dumps(record, indent=2) + "\n")
        return record

    def autocast(self) -> torch.autocast:
        """bf16 for convolutions where the configuration says so."""
        return autocast(self.device, self.config.bf16)


def has_bf16(device: torch.device) -> bool:
    """Whether `device` computes in bf16. A CPU that does not is four to eight times slower with it.

    oneDNN says yes to any AVX-512, and without its bf16 instructions converts there and back.
    """
    if device.type != "cpu":
        return True
    converts = torch.cpu._is_avx512_supported() and not torch.cpu._is_avx512_bf16_supported()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and not converts


def autocast(device: torch.device, wanted: bool = True) -> torch.autocast:
    """bf16 for convolutions where it is `wanted` and `device` has it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted and has_bf16(device))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Initial weights are drawn from `seed`, those of one network at a time."""
    with _seeding:
        torch.manual_seed(seed)
        yield


def device_name(device: torch.device) -> str:
    """What figures are told to have been measured on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {os.cpu_count()} cores"


def summary_writer(folder: Path) -> Any:
    """TensorBoard's writer. Raises ValueError where the package is not installed."""
    try:
        module = importlib.import_module("torch.utils.tensorboard")
    except ImportError as error:
        raise ValueError("--tensorboard needs a package: pip install tensorboard") from error
    return module.SummaryWriter(folder / "tensorboard")


def open_run(folder: Path, device: str) -> Run:
    """The run in `folder`, under the configuration it was started with.

    Raises FileNotFoundError where there is none.
    """
    path = folder / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"no run in {folder}: run `dtn train PRESET --out {folder}` first")
    return Run(folder, *read_config(path), device)


def read_config(path: Path) -> tuple[str, DTNConfig]:
    """Preset and configuration of a config.json."""
    values = json.loads(path.read_text())
    return values.pop("preset"), from_dict(values)


def ema_share(decay: float, step: int) -> float:
    """1 - decay: of the new weights in an exponential average; more in the first steps."""
    return 1 - min(decay, (step + 1) / (step + 10))


@torch.no_grad()
def ema_update(average: nn.Module, net: nn.Module, share: float | Tensor) -> None:
    """average = (1 - share) * average + share * net, buffers too."""
    new = net.state_dict()
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            value.lerp_(new[name], share)
        else:
            value.copy_(new[name])
