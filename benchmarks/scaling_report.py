"""SCALING.json as tables: SCALING.md, and the figures in docs/sizing.md."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.serving.results import markdown

Lap = Mapping[str, Any]  # a benchmarks.scaling.Lap as JSON has it

BEGIN, END = "<!-- figures: dtn bench scaling -->", "<!-- end of figures -->"
PER_DAY_S = 86_400
PEAK = 4  # busiest second of a day by its mean; an assumption
BUSY = 0.6  # of a core, at the peak; an assumption
RATES = (100, 10_000)  # requests/s

OVERHEAD_COLUMNS = (
    *("model", "replica on", "connections", "direct/s", "through/s", "lost", "rounds"),
    *("p50 ms more", "CPU us replica", "CPU us balancer", "failed", "wrong"),
)
SCALING_COLUMNS = (
    *("model", "asked", "replicas", "images/s", "factor", "cores of replicas", "of balancer"),
    *("p50 ms", "p99 ms", "failed", "wrong"),
)


@dataclass(frozen=True)
class Cost:
    """Of one request through the balancer, in microseconds of CPU."""

    images_per_s: float
    replica_us: float
    balancer_us: float


def of(laps: Iterable[Lap], **wanted: Any) -> list[Lap]:
    return [lap for lap in laps if all(lap[name] == value for name, value in wanted.items())]


def middle(laps: Iterable[Lap], figure: str) -> float:
    return float(median(lap[figure] for lap in laps))


def lost(laps: Sequence[Lap]) -> list[float]:
    """Share of throughput that is lost behind the balancer, of each round of these laps."""
    shares = []
    for turn in sorted({lap["round"] for lap in laps}):
        ways = {way: of(laps, round=turn, way=way) for way in ("direct", "balancer")}
        direct, through = (sum(lap["images_per_s"] for lap in ways[way]) for way in ways)
        shares.append(1 - through / direct)
    return shares


def overhead_table(laps: Sequence[Lap]) -> str:
    """One replica, asked directly and through the balancer."""
    rows = []
    keys = {(lap["model"], lap["place"], lap["connections"]) for lap in laps}
    for model, place, connections in sorted(keys):
        here = of(laps, model=model, place=place, connections=connections)
        direct, through = of(here, way="direct"), of(here, way="balancer")
        shares = lost(here)
        rows.append(
            [
                model,
                place,
                str(connections),
                f"{middle(direct, 'images_per_s'):.0f}",
                f"{middle(through, 'images_per_s'):.0f}",
                f"{median(shares):.1%}",
                f"{min(shares):.1%} to {max(shares):.1%}",
                f"{middle(through, 'p50_ms') - middle(direct, 'p50_ms'):+.2f}",
                f"{middle(through, 'replica_us'):.0f}",
                f"{middle(through, 'balancer_us'):.0f}",
                str(sum(lap["failed"] for lap in here)),
                str(sum(lap["wrong"] for lap in here)),
            ]
        )
    return markdown(OVERHEAD_COLUMNS, rows)


def scaling_table(laps: Sequence[Lap]) -> str:
    """More replicas; the factor is to one replica asked the same way."""
    rows = []
    for model, way in sorted({(lap["model"], lap["way"]) for lap in laps}):
        here = of(laps, model=model, way=way)
        one = middle(of(here, replicas=1), "images_per_s")
        for count in sorted({lap["replicas"] for lap in here}):
            these = of(here, replicas=count)
            speed = middle(these, "images_per_s")
            cores = speed * middle(these, "replica_us") / 1e6
            rows.append(
                [
                    model,
                    way,
                    str(count),
                    f"{speed:.0f}",
                    f"{speed / one:.2f}" if one else "",
                    f"{cores:.2f}",
                    f"{speed * middle(these, 'balancer_us') / 1e6:.2f}",
                    f"{middle(these, 'p50_ms'):.0f}",
                    f"{middle(these, 'p99_ms'):.0f}",
                    str(sum(lap["failed"] for lap in these)),
                    str(sum(lap["wrong"] for lap in these)),
                ]
            )
    return markdown(SCALING_COLUMNS, rows)


def costs(laps: Sequence[Lap]) -> dict[str, Cost]:
    """By route: what one replica on one core serves through the balancer."""
    found = {}
    for route in sorted({lap["model"] for lap in laps}, reverse=True):
        here = of(laps, model=route)
        found[route] = Cost(
            middle(here, "images_per_s"), middle(here, "replica_us"), middle(here, "balancer_us")
        )
    return found


def core_table(laps: Sequence[Lap]) -> str:
    rows = [
        [
            route,
            f"{cost.images_per_s:.0f}",
            f"{cost.replica_us:.0f}",
            f"{1e6 / cost.replica_us:.0f}",
            f"{cost.balancer_us:.0f}",
            str(sum(lap["failed"] for lap in of(laps, model=route))),
        ]
        for route, cost in costs(laps).items()
    ]
    columns = ("route", "images/s seen", "CPU us replica", "images/s per core")
    return markdown((*columns, "CPU us balancer", "failed"), rows)


def cores_for(rate: float, us: float) -> int:
    """Whole cores that serve `rate` requests/s of `us` each, busy for BUSY of the time."""
    return max(1, math.ceil(rate * us / 1e6 / BUSY))


def sizing_table(laps: Sequence[Lap]) -> str:
    """Cores by load: a million photos a day, and RATES."""
    mean = 1_000_000 / PER_DAY_S
    loads = [(f"1,000,000 a day: {mean:.1f}/s, at the peak {mean * PEAK:.0f}/s", mean * PEAK)]
    loads += [(f"{rate:,} requests/s", float(rate)) for rate in RATES]
    rows = []
    for route, cost in costs(laps).items():
        for told, rate in loads:
            cores = cores_for(rate, cost.replica_us)
            ours = rate * cost.balancer_us / 1e6
            rows.append(
                [
                    route,
                    told,
                    f"{1e6 / cost.replica_us:.0f}",
                    str(cores),
                    f"{ours:.3f}" if ours < 0.1 else f"{ours:.1f}",
                    f"{cores * 24} x p" if "a day" in told else "",
                ]
            )
    columns = ("route", "load", "images/s per core", "cores of replicas")
    return markdown((*columns, "cores busy with balancing", "cost a day"), rows)


def report(result: Mapping[str, Any]) -> str:
    """SCALING.md."""
    parts = {name: of(result["laps"], part=name) for name in ("overhead", "scaling", "core")}
    elsewhere = median(lap["elsewhere"] for lap in result["laps"])
    lines = ["# More replicas, and what the balancer costs", ""]
    lines += [f"Written by `{result['command']}` from SCALING.json.", ""]
    lines += [*result["surroundings"], f"- {result['haproxy']}, docker/haproxy.cfg"]
    lines.append(f"- Cores busy with none of replica, balancer and wrk meanwhile: {elsewhere:.2f}")
    lines.append("")
    if parts["overhead"]:
        lines += [OVERHEAD, "", overhead_table(parts["overhead"]), ""]
    if parts["scaling"]:
        lines += [SCALING, "", scaling_table(parts["scaling"]), ""]
    if parts["core"]:
        lines += [CORE, "", core_table(parts["core"]), ""]
    return "\n".join(lines)


def with_figures(text: str, result: Mapping[str, Any]) -> str:
    """docs/sizing.md with its figures replaced.

    Raises ValueError where there is no place for them, or none was measured.
    """
    laps = of(result["laps"], part="core")
    if not of(laps, model="/transfer") or not of(laps, model="/emoji"):
        raise ValueError("the part `core` was not measured")
    table = sizing_table(laps)
    where = [*result["surroundings"], f"- {result['haproxy']}", f"- `{result['command']}`"]
    when = "\n".join(where)
    found = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    new, count = found.subn(lambda _: f"{BEGIN}\n{table}\n\n{when}\n{END}", text)
    if count != 1:
        raise ValueError(f"there is no one place between {BEGIN} and {END}")
    return new


OVERHEAD = """## One replica, asked directly and through the balancer

By turns in the same run: directly, through, through, directly. With "a core of its own" the replica
has one core to itself and balancer and client share the other, as if they were other machines;
on "shared cores" all three compete for what this machine has, so that every microsecond of the
balancer is taken from the replica. `standin` is a device of 1 ms a call and 20 us a picture, which
leaves the CPU nothing to do but HTTP and pictures; `digits` is the shipped model on the CPU. CPU
per request is what other work on the machine disturbs least."""

SCALING = """## 1, 2 and 4 replicas

`standin`: each replica has a device of its own, 2 ms a call and 8 ms a picture, which no CPU is
short of. `digits`: one worker each, on the CPU: more replicas than there are cores bring nothing.
Asked directly, each replica gets an equal share of the 64 connections of wrk."""

CORE = """## What one core serves

A replica on one core, asked through the balancer from another: `/transfer` of small pictures with
`digits`, `/emoji` of a JPEG of 1024 x 1024 pixels with a face."""
