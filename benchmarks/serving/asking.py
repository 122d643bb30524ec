"""What probes have in common: doses, questions put to a server, and how it answered."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from benchmarks.serving.client import Answer, post
from benchmarks.serving.pictures import Pictures, is_right
from benchmarks.serving.process import Running
from benchmarks.serving.servers import Server

PATIENCE_S = 20.0
LOOPING_CLIENTS = 8
PAUSE_S = 0.05  # of a client that was not answered

Told = dict[str, str]


@dataclass(frozen=True)
class Doses:
    """How much of each probe."""

    seconds: float = 10.0
    repeats: int = 5
    clients: int = 300
    hostile: int = 20_000


@dataclass(frozen=True)
class Setting:
    """What a probe is given: a server, where to put files, doses, pictures of either model."""

    server: Server
    scratch: Path
    doses: Doses
    digits: Pictures
    standin: Pictures


async def ask(
    started: Running, pictures: Pictures, i: int, timeout_s: float, **headers: str
) -> tuple[Answer, bool]:
    """Send picture i, and whether the answer is right."""
    i %= len(pictures.files)
    body = started.server.body(pictures.files[i])
    answer = await post(started.port, started.server.path, body, timeout_s, **headers)
    return answer, answer.status == 200 and is_right(answer.body, pictures, i)


def tally(answers: Iterable[Answer]) -> str:
    """`3 x 200, 1 x broken`."""
    seen = Counter(str(answer.status or answer.fate) for answer in answers)
    return ", ".join(f"{n} x {what}" for what, n in seen.most_common()) or "none"


async def closed_loop(
    started: Running,
    pictures: Pictures,
    clients: int,
    going: Callable[[], bool],
    **headers: str,
) -> list[tuple[Answer, bool]]:
    """Clients that each send on when they are answered, as long as `going` says so."""
    numbers = count()
    answers: list[tuple[Answer, bool]] = []

    async def client() -> None:
        while going():
            asked = await ask(started, pictures, next(numbers), PATIENCE_S, **headers)
            answers.append(asked)
            if asked[0].status == 0:
                await asyncio.sleep(PAUSE_S)

    await asyncio.gather(*(client() for _ in range(clients)))
    return answers
