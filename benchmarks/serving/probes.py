"""How servers behave when things go wrong. Each probe starts a server and tells some lines."""

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median

import httpx

from benchmarks.serving.asking import LOOPING_CLIENTS, PATIENCE_S, Doses, Setting, Told, ask, tally
from benchmarks.serving.client import Answer, post
from benchmarks.serving.hostile import hostile_bodies
from benchmarks.serving.pictures import encoded, make_pictures, phone_photo
from benchmarks.serving.pressure import given_up, overload, poisoned
from benchmarks.serving.process import NotServingError, running
from benchmarks.serving.restarts import cold_start, reloaded, terminated
from benchmarks.serving.servers import Server

DECODING = re.compile(r'^dtn_stage_seconds_sum{stage="decode"} (\S+)', re.M)


async def phone(setting: Setting) -> Told:
    """One photo of 12 MP, as phones take them, by itself."""
    with running(setting.server, "digits", setting.scratch) as started:
        await started.wait_ready(setting.digits)
        body = started.server.body(encoded(phone_photo(), "JPEG"))
        await post(started.port, started.server.path, body, PATIENCE_S)
        answers, decoded = [], [decoding(started.port)]
        for _ in range(setting.doses.repeats):
            answers.append(await post(started.port, started.server.path, body, PATIENCE_S))
            decoded.append(decoding(started.port))
    of_each = [now - then for then, now in pairwise(decoded)]
    well = [a.seconds for a in answers if a.status == 200]
    size = f"{len(body.content) / 1e6:.1f} MB"
    told = f"{median(well) * 1e3:.0f} ms" if well else tally(answers)
    of_it = {"of it decoding": f"{median(of_each) * 1e3:.0f} ms"} if decoded[-1] else {}
    return {f"a JPEG of 12 MP, {size}": told} | of_it


def decoding(port: int) -> float:
    """Seconds that a server has spent decoding since its start; 0 of those that do not tell."""
    try:
        metrics = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    except httpx.HTTPError:
        metrics = ""
    told = DECODING.search(metrics)
    return float(told[1]) if told else 0.0


async def hostile(setting: Setting) -> Told:
    """Broken uploads of all kinds: the service must refuse them, and be none the worse."""
    with running(setting.server, "standin", setting.scratch) as started:
        await started.wait_ready(setting.standin)
        bodies = hostile_bodies(started.server.body, setting.doses.hostile)
        before = started.rss_mb()
        answers: list[Answer] = []

        async def client() -> None:
            for body in bodies:
                answers.append(await post(started.port, started.server.path, body, PATIENCE_S))

        await asyncio.gather(*(client() for _ in range(LOOPING_CLIENTS)))
        grown = started.rss_mb() - before
        _, alive = await ask(started, setting.standin, 0, PATIENCE_S)
    faults = sum(a.status >= 500 and a.status not in (503, 504) for a in answers)
    return {
        f"{len(answers)} hostile bodies": tally(answers),
        "of these 5xx other than 503, 504": str(faults),
        "memory grown by hostile bodies, MB": f"{grown:.0f}",
        "a good picture after them": "right" if alive else "failed",
    }


PROBES: dict[str, Callable[[Setting], Coroutine[None, None, Told]]] = {
    "poisoned": poisoned,
    "overload": overload,
    "given_up": given_up,
    "terminated": terminated,
    "reloaded": reloaded,
    "cold_start": cold_start,
    "phone": phone,
    "hostile": hostile,
}


def probe_all(
    servers: Sequence[Server],
    names: Iterable[str],
    doses: Doses,
    scratch: Path,
    tell: Callable[[str], None],
) -> dict[str, Told]:
    """Server -> what each probe told of it."""
    digits, standin = make_pictures("digits", 64), make_pictures("standin", 64)
    told: dict[str, Told] = {}
    for server in servers:
        setting = Setting(server, scratch, doses, digits, standin)
        told[server.name] = {} if server.installed else {"all": "not installed"}
        for name in names if server.installed else ():
            try:
                told_now: Told = asyncio.run(PROBES[name](setting))
            except NotServingError as error:
                told_now = {name: str(error)}
            told[server.name] |= told_now
            for line, value in told_now.items():
                tell(f"{server.name}: {line}: {value}")
    return told
