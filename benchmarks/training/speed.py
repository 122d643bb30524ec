"""`dtn bench training`: steps a second of our loop and the plain one, in turns, and the floor."""

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.training.plain import PlainLoop, endless
from training.captured import WARM
from training.config import DigitsConfig, DTNConfig, FacesConfig, of_digits, preset
from training.data import load_digits
from training.dtn import DTN
from training.face_features import face_features
from training.faces import faces_dtn
from training.loop import Domains, draws
from training.networks import DigitNet, discriminator, frozen, generator, placed, to_unit
from training.resnet29 import ResNet29
from training.run import has_bf16
from training.train import digits_domains, digits_dtn

SIDE = 2048  # of the matrices whose product stands for what the device can do
Step = Callable[[], object]
PLAIN = "plain: eager float32, DataLoader, f(x) at every step"
OURS = "ours"
SHOWN_FACES = 2048  # in place of s and t of the emoji, as a step takes as long with any


@dataclass(frozen=True)
class Switches:
    """What our loop does besides computing f(x) once and holding all data on the device."""

    bf16: bool = True
    channels_last: bool = True
    captured: bool = True  # CUDA graphs
    compiled: bool = False  # torch.compile of f, g and D

    @property
    def told(self) -> str:
        """The loop's name in a table."""
        parts = [
            "bf16" if self.bf16 else "float32",
            "channels_last" if self.channels_last else "contiguous",
            "CUDA graphs" if self.captured else "eager",
            *["torch.compile"] * self.compiled,
        ]
        return f"{OURS}: {', '.join(parts)}"


ON_CPU = Switches(captured=False)
VARIANTS = {
    "cpu": (ON_CPU, dataclasses.replace(ON_CPU, bf16=False)),
    "cuda": (
        Switches(),
        Switches(captured=False),
        Switches(bf16=False),
        Switches(channels_last=False),
        Switches(compiled=True),
        Switches(captured=False, compiled=True),
    ),
}


@dataclass(frozen=True)
class Speed:
    """What was measured of one preset, in steps of g and D a second."""

    name: str
    config: DTNConfig
    device: str
    rates: dict[str, list[float]]  # by loop, a round each; the first of ours is as users have it
    flop: float  # of one of our steps
    bytes: float  # that one step must move at least: weights, gradients and Adam's moments
    rate: dict[str, float]  # FLOP a second of a matrix product by its numbers' type

    @property
    def ours(self) -> list[float]:
        """Of our loop as users have it."""
        return next(rates for loop, rates in self.rates.items() if loop.startswith(OURS))

    @property
    def ratio(self) -> float | None:
        """Ours by plain, the median over rounds, pair by pair."""
        if PLAIN not in self.rates:
            return None
        return statistics.median(a / b for a, b in zip(self.ours, self.rates[PLAIN], strict=True))


@dataclass(frozen=True)
class Loops:
    """Steps of several loops, and the bytes that one of ours must move at least."""

    steps: dict[str, Step]
    bytes: float


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


def numbers_of(device: torch.device) -> dict[str, torch.dtype]:
    """The numbers that `device` computes in, by name."""
    found = {"float32": torch.float32}
    if has_bf16(device):
        found["bfloat16"] = torch.bfloat16
    if device.type == "cuda":
        found["float16"] = torch.float16
    return found


def product_rate(kind: torch.dtype, device: torch.device) -> float:
    """FLOP a second of a product of two matrices, the best of ten."""
    a = torch.randn(SIDE, SIDE, device=device).to(kind)
    best = 0.0
    for _ in range(10):
        best = max(best, 2 * SIDE**3 * steps_a_second(lambda: a @ a, 1, device))
    return best


def new_f(config: DigitsConfig, device: torch.device) -> DigitNet:
    """An f of fresh weights, as a step takes as long with a trained one."""
    torch.manual_seed(0)
    return frozen(placed(DigitNet(config.f.standardise), device))


def switched(dtn: DTN, f: nn.Module, how: Switches) -> None:
    """Set the memory layout of f, g and D, and compile them, as `how` has it."""
    for net in (f, dtn.g, dtn.D):
        if not how.channels_last:
            net.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        if how.compiled:
            net.compile()


def step_of(domains: Domains, dtn: DTN, config: DTNConfig, device: torch.device) -> Step:
    """A step of our loop, with the draws and the reading of t that come before it."""
    random = torch.Generator(device).manual_seed(0)
    s_order = draws(len(domains.fs), domains.s_weights, config.batch, random)
    t_order = draws(len(domains.ft), domains.t_weights, config.batch, random)

    numbers = itertools.count(config.tid_first)

    def step() -> object:
        s, t = next(s_order), next(t_order)
        return dtn.step(domains.fs[s], domains.ft[t], to_unit(domains.t[t]), next(numbers))

    return step


def digits_loops(
    config: DigitsConfig, data: Path, device: torch.device, variants: tuple[Switches, ...]
) -> Loops:
    """The plain loop's step and ours, each variant with networks of its own."""
    digits = load_digits(data, device)
    f = new_f(config, device)
    domains = digits_domains(f, digits.svhn_train.images, digits.mnist_test.images, config)
    steps = {PLAIN: plain(config, data, f, device)}
    for how in variants:
        own = dataclasses.replace(config, bf16=how.bf16)
        f = new_f(config, device)
        dtn = digits_dtn(f, own, device, how.captured)
        switched(dtn, f.body, how)
        steps[how.told] = step_of(domains, dtn, own, device)
    return Loops(steps, weight_bytes(dtn, f))


def faces_loops(config: FacesConfig, device: torch.device, variants: tuple[Switches, ...]) -> Loops:
    """Our loop's step on pictures of noise."""
    steps: dict[str, Step] = {}
    for how in variants:
        own = dataclasses.replace(config, bf16=how.bf16)
        torch.manual_seed(0)
        f = face_features(ResNet29(), own.appearance > 0, own.appearance).to(device)
        f.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        dtn = faces_dtn(f, own, device, captured=how.captured)
        switched(dtn, f.net, how)
        t = torch.randint(256, (SHOWN_FACES, 3, 64, 64), dtype=torch.uint8, device=device)
        fs, ft = torch.randn(2, SHOWN_FACES, f.width, device=device)
        weights = torch.ones(SHOWN_FACES, device=device) if own.balance else None
        domains = Domains(fs, ft, t, s_weights=weights, t_weights=weights)
        steps[how.told] = step_of(domains, dtn, own, device)
    return Loops(steps, weight_bytes(dtn, f))


def plain(config: DigitsConfig, data: Path, f: DigitNet, device: torch.device) -> Step:
    """A step of the plain loop; on a GPU two workers decode, on a CPU there is no core for them."""
    digits = load_digits(data)
    torch.manual_seed(0)
    loop = PlainLoop(f, generator(config.g_width), discriminator(config.d_width), config, device)
    workers = 2 if device.type == "cuda" else 0
    s = endless(digits.svhn_train, config.batch, workers)
    t = endless(digits.mnist_test, config.batch, workers)
    return lambda: loop.step(next(s), next(t))


def weight_bytes(dtn: DTN, f: nn.Module) -> float:
    """Of one step, at least: weights, gradients and both moments, read and written; f's, read."""
    count = sum(p.numel() for net in (dtn.g, dtn.D) for p in net.parameters())
    return 4.0 * (8 * count + sum(p.numel() for p in f.parameters()))


def measure(
    data: Path, device: str, batch: int | None, steps: int, rounds: int, name: str = "digits_paper"
) -> Speed:
    """All loops of a preset in turns, `steps` each, after a warm-up.

    `batch` is the preset's own where it is None. `data` is of digits; a preset of faces needs none.
    """
    on = torch.device(device)
    config = preset(name, batch=batch, bf16=None if has_bf16(on) else False)
    # PyTorch compiles no gradient of a gradient, which R1 is.
    variants = tuple(
        how
        for how in VARIANTS[on.type]
        if (config.bf16 or not how.bf16) and not (config.r1 and how.compiled)
    )
    period = config.r1_every if config.r1 else 1  # steps after which all kinds have been seen
    if isinstance(config, FacesConfig):
        loops = faces_loops(config, on, variants)
    else:
        loops = digits_loops(of_digits(config), data, on, variants)
    for step in loops.steps.values():
        steps_a_second(step, (WARM + 2) * period if on.type == "cuda" else 3, on)
    eager = loops.steps[dataclasses.replace(variants[0], captured=False).told]
    with FlopCounterMode(display=False) as counter:  # which sees nothing of a replay
        for _ in range(period):
            eager()
    rates: dict[str, list[float]] = {loop: [] for loop in loops.steps}
    for _ in range(rounds):
        for loop, step in loops.steps.items():
            rates[loop].append(steps_a_second(step, steps, on))
    rate = {kind: product_rate(dtype, on) for kind, dtype in numbers_of(on).items()}
    described = torch.cuda.get_device_name(on) if on.type == "cuda" else "CPU"
    return Speed(
        name,
        config,
        f"{described}, {torch.get_num_threads()} threads",
        rates,
        counter.get_total_flops() / period,
        loops.bytes,
        rate,
    )


def report(speeds: Sequence[Speed], command: str) -> str:
    """benchmarks/training/RESULTS.md."""
    first = speeds[0]
    parts = [
        "# Steps of g and D a second",
        f"`{command}`, {datetime.now(UTC).date().isoformat()}, {first.device}, "
        f"torch {torch.__version__}. {len(first.ours)} rounds in turns. Ours computes f(x) once "
        "and holds all data on the device; the first row of ours is what `dtn train` does.",
        *(section(speed) for speed in speeds),
    ]
    return "\n\n".join(parts) + "\n"


def section(speed: Speed) -> str:
    """The part of a report that is about one preset."""
    ours = statistics.median(speed.ours)
    batch = speed.config.batch
    used = "bfloat16" if speed.config.bf16 else "float32"
    floor = {kind: speed.flop / rate for kind, rate in speed.rate.items()}
    loops = "\n".join(
        f"| {loop} | {statistics.median(rates):.2f} | {min(rates):.2f} to {max(rates):.2f} "
        f"| {batch * statistics.median(rates):,.0f} |"
        for loop, rates in speed.rates.items()
    )
    rows = "\n".join(
        f"| {kind} | {rate / 1e9:,.0f} GFLOP/s | {1e3 * floor[kind]:.2f} ms "
        f"| {f'{floor[kind] * ours:.1%}' if kind == used else ''} |"
        for kind, rate in speed.rate.items()
    )
    ratio = (
        ""
        if speed.ratio is None
        else f"Ours is **{speed.ratio:.2f} times** the plain loop (median over rounds, pair by "
        "pair).\n\n"
    )
    return f"""## {speed.name}, batches of {batch}

| loop | steps/s, median | rounds | pictures of s a second |
|---|---|---|---|
{loops}

{ratio}One step of ours is {speed.flop / 1e9:.1f} GFLOP, and moves {speed.bytes / 1e6:.0f} MB at
least. A product of two matrices of {SIDE:,} rows, in the same run, tells what the device can do; a
step that did nothing else would take:

| numbers | product | floor of a step | ours reaches |
|---|---|---|---|
{rows}"""
