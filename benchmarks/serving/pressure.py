"""Probes of the queue: a bad picture among good ones, too many requests, clients that leave."""

import asyncio
import gc
import time
from itertools import count
from statistics import median

from benchmarks.serving.asking import PATIENCE_S, Setting, Told, ask, closed_loop, tally
from benchmarks.serving.client import Answer, post
from benchmarks.serving.process import NotServingError, running

PEAK_CLIENTS = 32


async def poisoned(setting: Setting) -> Told:
    """Good pictures that fail because a bad one is in their batch."""
    with running(setting.server, "standin", setting.scratch, BENCH_CALL_MS="50") as started:
        await started.wait_ready(setting.standin)
        broken = started.server.body(b"this is no picture " * 40)
        good: list[tuple[Answer, bool]] = []
        bad: list[Answer] = []
        for first in range(0, 42, 7):
            asked = [ask(started, setting.standin, first + i, PATIENCE_S) for i in range(7)]
            sour = post(started.port, started.server.path, broken, PATIENCE_S)
            answer, sweet = await asyncio.gather(sour, asyncio.gather(*asked))
            bad.append(answer)
            good += sweet
    return {
        "good of 42 that failed beside 6 bad": str(sum(not right for _, right in good)),
        "how the good ones were answered": tally(answer for answer, _ in good),
        "how the bad ones were": tally(bad),
    }


async def overload(setting: Setting) -> Told:
    """Five times what the server can do, for a while."""
    seconds = setting.doses.seconds
    device = {"BENCH_CALL_MS": "0", "BENCH_IMAGE_MS": "10"}
    with running(setting.server, "standin", setting.scratch, **device) as started:
        await started.wait_ready(setting.standin)
        start = time.monotonic()
        served = await closed_loop(
            started,
            setting.standin,
            PEAK_CLIENTS,
            lambda: time.monotonic() < start + seconds,
        )
        peak = sum(right for _, right in served) / (time.monotonic() - start)
        if not peak:
            raise NotServingError(f"{setting.server.name} answers nothing under load")
        before = started.rss_mb()
        answers: list[tuple[Answer, bool]] = []

        async def offer(i: int) -> None:
            answers.append(await ask(started, setting.standin, i, PATIENCE_S))

        offers = set()
        gap, began = 1 / max(1.0, 5 * peak), time.monotonic()
        gc.disable()  # of this process: its pauses, a tenth of a second, would be the server's
        try:
            for i in count():
                due = began + i * gap
                if due > began + seconds:
                    break
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                offers.add(asyncio.create_task(offer(i)))
        finally:
            gc.enable()
        arrived, grown = list(answers), started.rss_mb() - before
        for one in offers:
            one.cancel()
        await asyncio.gather(*offers, return_exceptions=True)
    refusals = [a.seconds for a, _ in arrived if a.status in (429, 503)]
    prompt = f"{median(refusals) * 1e3:.0f} / {max(refusals) * 1e3:.0f}" if refusals else "-"
    return {
        "peak, images/s": f"{peak:.0f}",
        "share of it under 5x load": f"{sum(right for _, right in arrived) / seconds / peak:.2f}",
        "sent under 5x load": str(len(offers)),
        "answered meanwhile": tally(a for a, _ in arrived),
        "median / slowest 429 or 503, ms": prompt,
        "memory grown by, MB": f"{grown:.0f}",
    }


async def given_up(setting: Setting) -> Told:
    """Clients that lose patience after three seconds: who works for them when they are gone?"""
    device = {"BENCH_CALL_MS": "10", "BENCH_IMAGE_MS": "60"}
    with running(setting.server, "standin", setting.scratch, BENCH_DEVICE_LOG="1", **device) as (
        started
    ):
        await started.wait_ready(setting.standin)
        asked = (ask(started, setting.standin, i, 3.0) for i in range(setting.doses.clients))
        answers = [answer for answer, _ in await asyncio.gather(*asked)]
        await asyncio.sleep(0.2)
        gone = started.device_images()
        await asyncio.sleep(3.0)
        worked = started.device_images() - gone
        fresh, _ = await ask(started, setting.standin, 0, 30.0)
    told = f"{fresh.seconds:.1f} s" if fresh.status == 200 else tally([fresh])
    return {
        f"{setting.doses.clients} clients, 3 s of patience": tally(answers),
        "images run for them in the 3 s after": str(worked),
        "a fresh request after that": told,
    }
