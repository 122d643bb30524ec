"""Probes of starting, stopping and reloading, under load."""

import asyncio
import json
import shutil
import signal
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.serving.asking import (
    LOOPING_CLIENTS,
    PATIENCE_S,
    Setting,
    Told,
    closed_loop,
    tally,
)
from benchmarks.serving.client import Answer, post
from benchmarks.serving.device import GRAPH
from benchmarks.serving.process import running
from benchmarks.serving.servers import OURS, Body

KEY = "bench"
KEYS = {"DTN_API_KEYS": KEY}
JUST_SENT_S = 0.02  # a request so young may not have been accepted yet


@dataclass(frozen=True)
class Ending:
    """One SIGTERM under load."""

    sent: int  # requests sent before it, early enough to have been accepted
    lost: int  # of these, not rightly answered
    cut_off: int  # sent later, on a connection that was opened and then broken
    seconds: float  # until the last process had ended
    left: int  # processes that had not, when patience did


async def terminated(setting: Setting) -> Told:
    """SIGTERM under load: what was accepted must be answered, and the processes must end."""
    endings = [await ending(setting) for _ in range(setting.doses.repeats)]
    lost, sent = sum(one.lost for one in endings), sum(one.sent for one in endings)
    slowest = max(endings, key=lambda one: one.seconds)
    return {
        f"lost of those sent before {len(endings)} SIGTERM": f"{lost} of {sent}",
        "cut off of those sent after": str(sum(one.cut_off for one in endings)),
        "slowest exit, s (processes left)": f"{slowest.seconds:.1f} ({slowest.left})",
    }


async def ending(setting: Setting) -> Ending:
    """Start a server, load it, tell it to stop."""
    device = {"BENCH_CALL_MS": "20", "BENCH_IMAGE_MS": "2"}
    with running(setting.server, "standin", setting.scratch, **device) as started:
        await started.wait_ready(setting.standin)
        over = asyncio.Event()
        load = asyncio.create_task(
            closed_loop(started, setting.standin, LOOPING_CLIENTS, lambda: not over.is_set())
        )
        await asyncio.sleep(1.0)
        told = time.monotonic()
        started.signal(signal.SIGTERM)
        while started.pids() and time.monotonic() < told + PATIENCE_S:
            await asyncio.sleep(0.05)
            started.process.poll()
        seconds, left = time.monotonic() - told, len(started.pids())
        over.set()
        answers = await load
    before = [right for answer, right in answers if answer.sent < told - JUST_SENT_S]
    after = [answer for answer, _ in answers if answer.sent >= told - JUST_SENT_S]
    cut_off = sum(answer.fate == "broken" for answer in after)
    return Ending(len(before), before.count(False), cut_off, seconds, left)


async def reloaded(setting: Setting) -> Told:
    """Reloads under load: every request answered, and right."""
    if setting.server is not OURS:
        return {"reload under load": "not supported"}
    models = setting.scratch / "models"
    digits = shutil.copytree(GRAPH.parent, models / "digits", dirs_exist_ok=True)
    with running(OURS, "digits", setting.scratch, DTN_MODELS=str(models), **KEYS) as started:
        await started.wait_ready(setting.digits, X_API_Key=KEY)
        statuses: list[Answer] = []

        async def reload_often() -> None:
            for turn in range(setting.doses.repeats):
                await asyncio.sleep(0.5)
                new_version(digits / "manifest.json", f"bench{turn}")
                empty, path = Body(b"", {}), "/admin/reload"
                statuses.append(await post(started.port, path, empty, 60.0, X_API_Key=KEY))
            await asyncio.sleep(0.5)

        reloading = asyncio.create_task(reload_often())
        answers = await closed_loop(
            started,
            setting.digits,
            LOOPING_CLIENTS,
            lambda: not reloading.done(),
            X_API_Key=KEY,
        )
        await reloading
    if statuses and all(answer.status == 404 for answer in statuses):
        return {"reload under load": "not supported"}
    failed = sum(not right for _, right in answers)
    served = Counter(answer.headers.get("x-model", "none") for answer, _ in answers)
    return {
        "reload under load": tally(statuses),
        "requests that failed meanwhile": f"{failed} of {len(answers)}",
        "versions that answered": ", ".join(sorted(served)),
    }


def new_version(manifest: Path, version: str) -> None:
    """Make a model folder one that a reload must load anew."""
    told = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(told | {"version": version}))


async def cold_start(setting: Setting) -> Told:
    """From the command to the first right answer of the shipped model."""
    seconds = []
    for _ in range(setting.doses.repeats):
        with running(setting.server, "digits", setting.scratch) as started:
            seconds.append(await started.wait_ready(setting.digits))
            memory = started.rss_mb()
    return {"cold start, s": f"{median(seconds):.1f}", "memory then, MB": f"{memory:.0f}"}
