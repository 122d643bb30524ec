"""A run's folder: its resolved configuration, its log, its checkpoints; all resumable."""

import dataclasses
import importlib
import json
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from training.config import DTNConfig, from_dict


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
    ) -> None:
        self.folder = folder
        self.name = name
        self.config = config
        self.device = torch.device(device)
        folder.mkdir(parents=True, exist_ok=True)
        resolved = json.loads(json.dumps({"preset": name, **dataclasses.asdict(config)}))
        path = folder / "config.json"
        if path.exists() and json.loads(path.read_text()) != resolved:
            raise ValueError(f"{folder} holds a run of another configuration: use another --out")
        path.write_text(json.dumps(resolved, indent=2) + "\n")
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

    def autocast(self) -> AbstractContextManager[Any]:
        """bf16 for convolutions where the configuration says so."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16)


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
    values = json.loads(path.read_text())
    name = values.pop("preset")
    return Run(folder, name, from_dict(values), device)


@torch.no_grad()
def ema_update(average: nn.Module, net: nn.Module, decay: float, step: int) -> None:
    """average = decay * average + (1 - decay) * net, buffers too; quicker in the first steps."""
    decay = min(decay, (step + 1) / (step + 10))
    new = net.state_dict()
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            value.lerp_(new[name], 1 - decay)
        else:
            value.copy_(new[name])
