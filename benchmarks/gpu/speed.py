"""`dtn bench gpu`: parity with the CPU, pictures a second by way and batch, and the floor."""

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.ways import (
    COMPILED,
    SERVED,
    Graph,
    Network,
    Run,
    Way,
    as_served,
    kernels,
    read_graph,
)
from benchmarks.training.speed import numbers_of, product_rate, steps_a_second
from service.pictures import Pixels
from service.sessions import CUDA, first_line
from training.data import load_digits
from training.face_data import STUDIO, read_faces
from training.render import house_numbers

COMPARED = 32  # runs of a batch size whose answers are compared with the CPU's
SHOWN = 8  # operators of the table that says where time goes
COPIED = 2**26  # bytes of the copy that stands for the memory's speed


@dataclass(frozen=True)
class Lap:
    """One way at one batch size."""

    seconds: tuple[float, ...]  # of each run
    off: int  # grey levels at most between its answers and the CPU's

    def rate(self, batch: int) -> float:
        """Pictures a second, by the median run."""
        return batch / statistics.median(self.seconds)


@dataclass
class Found:
    """What was measured of one model."""

    reference: str
    pictures: int  # that parity was seen on
    laps: dict[str, dict[int, Lap]] = field(default_factory=dict)  # by way and batch
    absent: dict[str, str] = field(default_factory=dict)  # ways that do not work here: why
    operators: dict[str, float] = field(default_factory=dict)  # seconds of a run at `best`
    best: int = 1  # the batch size at which the service's session is fastest
    flop: float = 0.0  # of one picture
    weights: int = 0  # bytes that a run reads at least
    copied: int = 0  # bytes of one picture in and out


@dataclass(frozen=True)
class Device:
    """What the device can do, measured in the same run."""

    name: str
    rate: dict[str, float]  # FLOP a second of a matrix product by its numbers' type
    bandwidth: float  # bytes a second, of a copy: read and written


def require_cuda() -> None:
    """Raises ValueError with the reason where PyTorch or onnxruntime has no GPU."""
    if not torch.cuda.is_available():
        raise ValueError(f"PyTorch {torch.__version__} finds no GPU; --device cpu runs without one")
    if CUDA not in ort.get_available_providers():
        raise ValueError(f'this onnxruntime has no {CUDA}: pip install "dtn[gpu]"')


def pictures_of(graph: Graph, data: Path | None, n: int) -> Pixels:
    """uint8 [n, S, S, 3]: of `data` where it is given, else house numbers drawn by us."""
    if data is None:
        drawn = house_numbers(min(n, 256), seed=0)[0]
    elif graph.manifest.alignment:
        drawn = read_faces(data / "faces", STUDIO[0]).images.permute(0, 2, 3, 1).numpy()
    else:
        own = data / "digits" if (data / "digits").is_dir() else data
        drawn = load_digits(own).svhn_test.images.permute(0, 2, 3, 1).numpy()
    drawn = drawn[np.arange(n) % len(drawn)]
    if drawn.shape[1] == graph.side:
        return np.ascontiguousarray(drawn)
    sides = (graph.side, graph.side)
    return np.stack([np.asarray(Image.fromarray(x).resize(sides)) for x in drawn])


def furthest(run: Run, batch: int, pictures: Pixels, expected: Pixels) -> int:
    """Grey levels at most between `run` and `expected`, on all whole batches; the last may go."""
    worst = 0
    for start in range(0, len(pictures) - batch + 1, batch):
        answered = run(pictures[start : start + batch])
        apart = np.abs(answered.astype(int) - expected[start : start + batch])
        worst = max(worst, int(apart.max()))
    return worst


def lap(run: Run, pictures: Pixels, seconds: float) -> tuple[float, ...]:
    """Seconds of each run of one batch, three at least, for as long as told."""
    run(pictures)
    taken: list[float] = []
    began = time.perf_counter()
    while len(taken) < 3 or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        run(pictures)
        taken.append(time.perf_counter() - start)
    return tuple(taken)


def measure(
    folder: Path,
    device: str,
    batches: Sequence[int],
    ways: Mapping[str, Way],
    seconds: float,
    data: Path | None,
    count: int,
) -> Found:
    """One model by each of `ways` and on `count` pictures of `data`, or drawn ones.

    `seconds` are spent on each way and batch. Raises ModelError, FileNotFoundError, ValueError.
    """
    graph = read_graph(folder)
    x = pictures_of(graph, data, max(count, *batches))
    on_cpu = as_served(graph, "cpu", 1)
    expected = np.concatenate([on_cpu(part) for part in np.array_split(x, math.ceil(len(x) / 32))])
    found = Found(graph.manifest.reference, len(x))
    for name, way in ways.items():
        for batch in batches:
            if "torch.compile" in name and batch not in {*COMPILED, *batches[-1:]}:
                continue
            try:
                run = way(graph, device, batch)
                off = furthest(run, batch, x[: COMPARED * batch], expected)
                taken = lap(run, x[:batch], seconds)
            except Exception as error:  # of onnxruntime, PyTorch or its compiler: of no one kind
                found.absent[name] = f"{batch} pictures: {first_line(error)}"
                break
            found.laps.setdefault(name, {})[batch] = Lap(taken, off)
    if served := found.laps.get(SERVED):
        found.best = max(served, key=lambda batch: served[batch].rate(batch))
    found.operators = kernels(graph, device, x[: found.best])
    net = Network(graph)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        y = net(torch.from_numpy(x[:1]))
    found.flop = float(counter.get_total_flops())
    found.weights = sum(value.nbytes for value in net.buffers())
    found.copied = x[0].nbytes + y[0].nbytes
    return found


def device_of(device: str) -> Device:
    """Measure what `device` can do at most."""
    on = torch.device(device)
    name = torch.cuda.get_device_name(on) if device == "cuda" else "CPU"
    a = torch.zeros(COPIED, dtype=torch.uint8, device=on)
    b = torch.empty_like(a)
    copies = max(steps_a_second(lambda: b.copy_(a), 3, on) for _ in range(3))
    rate = {kind: product_rate(dtype, on) for kind, dtype in numbers_of(on).items()}
    threads = "" if device == "cuda" else f", {torch.get_num_threads()} threads"
    return Device(name + threads, rate, 2.0 * COPIED * copies)


def report(found: Sequence[Found], device: Device, command: str) -> str:
    """benchmarks/gpu/RESULTS.md."""
    versions = f"onnxruntime {ort.__version__}, torch {torch.__version__}"
    return "\n".join(
        [
            "# The shipped graphs on a device, by every way to run them",
            "",
            f"`{command}`, {datetime.now(UTC).date().isoformat()}, {device.name}, {versions}.",
            "Pictures go from the host's memory and back in every way; each figure is the median",
            "run's. *Off* is the largest difference from the CPU's session, in grey levels.",
            "Without a word of TF32 or 16 bits, it is as the model's manifest has it.",
            "",
            *(line for model in found for line in part(model, device)),
        ]
    )


def part(model: Found, device: Device) -> list[str]:
    """The report of one model."""
    batches = sorted({batch for laps in model.laps.values() for batch in laps})
    lines = [
        f"## {model.reference}",
        "",
        f"Pictures a second by batch; parity on {model.pictures:,} pictures, {COMPARED} runs of "
        "each size at most.",
        "",
        "| way | " + " | ".join(f"{batch}" for batch in batches) + " | one picture | off |",
        "|---" * (len(batches) + 3) + "|",
    ]
    for name, laps in model.laps.items():
        rates = [f"{laps[batch].rate(batch):,.0f}" if batch in laps else "" for batch in batches]
        smallest = min(laps)
        alone = f"{1e3 * statistics.median(laps[smallest].seconds):.2f} ms" if smallest == 1 else ""
        off = max(each.off for each in laps.values())
        lines.append(f"| {name} | {' | '.join(rates)} | {alone} | {off} |")
    lines += ["", *(f"- {name} does not work here, {why}" for name, why in model.absent.items())]
    served = model.laps.get(SERVED)
    if served is not None:
        lines += ["", *floor(model, served[model.best].rate(model.best), device)]
    total = sum(model.operators.values())
    lines += [
        "",
        f"Where {model.best} pictures' time goes in onnxruntime, by operator, or by kernel of a "
        f"GPU, {1e3 * total:.2f} ms in all:",
        "",
        "| operator or kernel | share |",
        "|---|---|",
    ]
    shown = list(model.operators.items())[:SHOWN]
    lines += [f"| {name} | {seconds / total:.0%} |" for name, seconds in shown]
    return [*lines, ""]


def floor(model: Found, rate: float, device: Device) -> list[str]:
    """How far the service's session is from what the device could do at its best batch."""
    moved = model.weights / model.best + model.copied
    lines = [
        f"A picture is {model.flop / 1e9:.3f} GFLOP; at {model.best} a run it moves "
        f"{moved / 1e6:.2f} MB at least, at {device.bandwidth / 1e9:,.0f} GB/s (a copy, measured).",
        "",
        "| numbers | product | floor of a picture | as served reaches |",
        "|---|---|---|---|",
    ]
    for kind, product in device.rate.items():
        least = max(model.flop / product, moved / device.bandwidth)
        lines.append(
            f"| {kind} | {product / 1e9:,.0f} GFLOP/s | {1e6 * least:.1f} us | {least * rate:.0%} |"
        )
    return lines
