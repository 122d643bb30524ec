"""`dtn bench training`: steps a second of our loop and the plain one, in turns, and the floor."""

import dataclasses
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.training.plain import PlainLoop, endless
from training.config import DigitsConfig, of_digits, preset
from training.data import load_digits
from training.dtn import draws
from training.networks import DigitNet, discriminator, frozen, generator, to_unit
from training.train import digits_domains, digits_dtn

SIDE = 2048  # of the matrices whose product stands for what the device can do
Step = Callable[[], object]
PLAIN = "plain: eager float32, DataLoader, f(x) at every step"
OURS = "ours: f(x) once, data on the device, bf16, channels_last"


@dataclass(frozen=True)
class Speed:
    """What was measured, in steps of g and D a second."""

    config: DigitsConfig
    device: str
    rates: dict[str, list[float]]  # by loop, a round each
    flop: float  # of one of our steps
    bytes: float  # that one step must move at least: weights, gradients and Adam's moments
    rate: dict[str, float]  # FLOP a second of a matrix product by its numbers' type

    @property
    def ratio(self) -> float:
        """Ours by plain, the median over rounds, pair by pair."""
        pairs = zip(self.rates[OURS], self.rates[PLAIN], strict=True)
        return statistics.median(ours / plain for ours, plain in pairs)


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def steps_a_second(step: Step, steps: int, device: torch.device) -> float:
    wait(device)
    start = time.perf_counter()
    for _ in range(steps):
        step()
    wait(device)
    return steps / (time.perf_counter() - start)


def product_rate(kind: torch.dtype, device: torch.device) -> float:
    """FLOP a second of a product of two matrices, the best of ten."""
    a = torch.randn(SIDE, SIDE, device=device).to(kind)
    best = 0.0
    for _ in range(10):
        best = max(best, 2 * SIDE**3 * steps_a_second(lambda: a @ a, 1, device))
    return best


def ours(
    config: DigitsConfig, data: Path, device: torch.device, compiled: bool = False
) -> tuple[Step, DigitNet]:
    """A step of our loop, and its f: fresh weights, for a step takes as long as a trained one's.

    `compiled` puts f, g and D through torch.compile.
    """
    digits = load_digits(data, device)
    torch.manual_seed(0)
    f = frozen(DigitNet(config.f.standardise).to(device, memory_format=torch.channels_last))  # type: ignore[call-overload]
    dtn = digits_dtn(f, config, device)
    domains = digits_domains(f, digits.svhn_train.images, digits.mnist_test.images, config)
    for net in (f.body, dtn.g, dtn.D) if compiled else ():
        net.compile()
    random = torch.Generator(device).manual_seed(0)
    s_order = draws(len(domains.fs), domains.s_weights, config.batch, random)
    t_order = draws(len(domains.ft), domains.t_weights, config.batch, random)

    def step() -> object:
        s, t = next(s_order), next(t_order)
        return dtn.step(domains.fs[s], domains.ft[t], to_unit(domains.t[t]), 1)

    return step, f


def plain(config: DigitsConfig, data: Path, f: DigitNet, device: torch.device) -> Step:
    """A step of the plain loop; on a GPU two workers decode, on a CPU there is no core for them."""
    digits = load_digits(data)
    torch.manual_seed(0)
    loop = PlainLoop(f, generator(config.g_width), discriminator(config.d_width), config, device)
    workers = 2 if device.type == "cuda" else 0
    s = endless(digits.svhn_train, config.batch, workers)
    t = endless(digits.mnist_test, config.batch, workers)
    return lambda: loop.step(next(s), next(t))


def weight_bytes(config: DigitsConfig) -> float:
    """Of one step, at least: each weight, gradient and both moments, read and written."""
    nets = (generator(config.g_width), discriminator(config.d_width))
    count = sum(p.numel() for net in nets for p in net.parameters())
    f = sum(p.numel() for p in DigitNet().parameters())
    return 4.0 * (8 * count + f)


def measure(
    data: Path, device: str, batch: int, steps: int, rounds: int, name: str = "digits_paper"
) -> Speed:
    """All loops in turns, `steps` each, after a warm-up; a GPU has time for torch.compile, too."""
    config = of_digits(preset(name, batch=batch))
    on = torch.device(device)
    our_step, f = ours(config, data, on)
    full = dataclasses.replace(config, bf16=False)
    loops = {
        PLAIN: plain(config, data, f, on),
        OURS: our_step,
        "ours in float32": ours(full, data, on)[0],
    }
    if on.type == "cuda":
        loops["ours, torch.compile"] = ours(config, data, on, compiled=True)[0]
    for step in loops.values():
        steps_a_second(step, 3, on)
    with FlopCounterMode(display=False) as counter:
        our_step()
    rates: dict[str, list[float]] = {loop: [] for loop in loops}
    for _ in range(rounds):
        for loop, step in loops.items():
            rates[loop].append(steps_a_second(step, steps, on))
    rate = {
        kind: product_rate(dtype, on)
        for kind, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
    }
    described = torch.cuda.get_device_name(on) if on.type == "cuda" else "CPU"
    return Speed(
        config,
        f"{described}, {torch.get_num_threads()} threads",
        rates,
        float(counter.get_total_flops()),
        weight_bytes(config),
        rate,
    )


def report(speed: Speed, command: str) -> str:
    """benchmarks/training/RESULTS.md."""
    ours = statistics.median(speed.rates[OURS])
    floor = {kind: speed.flop / rate for kind, rate in speed.rate.items()}
    loops = "\n".join(
        f"| {loop} | {statistics.median(rates):.2f} | {min(rates):.2f} to {max(rates):.2f} |"
        for loop, rates in speed.rates.items()
    )
    rows = "\n".join(
        f"| {kind} | {rate / 1e9:,.0f} GFLOP/s | {1e3 * floor[kind]:.1f} ms "
        f"| {floor[kind] * ours:.0%} |"
        for kind, rate in speed.rate.items()
    )
    return f"""# Steps of g and D a second

`{command}`, {datetime.now(UTC).date().isoformat()}, {speed.device}, torch {torch.__version__}.
Batch {speed.config.batch}, the losses of the paper, {len(speed.rates[OURS])} rounds in turns.

| loop | steps/s, median | rounds |
|---|---|---|
{loops}

Ours is **{speed.ratio:.2f} times** the plain loop (median over rounds, pair by pair).

One step of ours is {speed.flop / 1e9:.1f} GFLOP, and moves {speed.bytes / 1e6:.0f} MB at least.
A product of two matrices of {SIDE:,} rows, in the same run, tells what the device can do; a step
that did nothing else would take:

| numbers | product | floor of a step | ours reaches |
|---|---|---|---|
{rows}
"""
