"""Load: clients that ask without a pause, look at every answer, and count."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Event, Thread
from urllib.parse import urlsplit

from tests.cluster.cluster import wait_until

Answer = tuple[int, bytes]


class Connection:
    """One keep-alive connection to `url`; HTTP/1.1 as far as our answers need it."""

    def __init__(self, url: str) -> None:
        at = urlsplit(url)
        self.host, self.port = at.hostname or "", at.port or 80
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(
        self, method: str, path: str, body: bytes = b"", accept: str = "image/png"
    ) -> Answer:
        """Status and body. Raises OSError or EOFError where the connection breaks."""
        if self.streams is None:
            self.streams = await asyncio.open_connection(self.host, self.port)
        reader, writer = self.streams
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.host}\r\nAccept: {accept}\r\n"
        head += f"Content-Type: image/png\r\nContent-Length: {len(body)}\r\n\r\n"
        try:
            writer.write(head.encode() + body)
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
            content = await reader.readexactly(int(headers.get("content-length", 0)))
        except (OSError, EOFError):
            self.close()
            raise
        if headers.get("connection") == "close":
            self.close()
        return int(lines[0].split()[1]), content

    def close(self) -> None:
        if self.streams is not None:
            self.streams[1].close()
            self.streams = None


@dataclass
class Counted:
    """What has come of the requests so far."""

    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.statuses.total()

    @property
    def failed(self) -> int:
        """Requests that were not answered with 200, and the right picture."""
        return self.total - self.statuses["200"] + len(self.wrong)


async def client(
    url: str, path: str, body: bytes, expected: bytes, counted: Counted, stop: Event
) -> None:
    """Ask again and again until `stop`."""
    connection = Connection(url)
    while not stop.is_set():
        try:
            status, content = await asyncio.wait_for(connection.ask("POST", path, body), 120)
        except (OSError, EOFError) as error:
            counted.statuses[type(error).__name__] += 1
            continue
        counted.statuses[str(status)] += 1
        if status == 200 and content != expected:
            counted.wrong.append(f"{len(content)} bytes")
        elif status != 200:
            counted.statuses[f"{status} {content[:120]!r}"] += 0
    connection.close()


def go_on(counted: Counted, more: int) -> None:
    """Until that many more requests have been answered."""
    wanted = counted.total + more
    wait_until(lambda: counted.total >= wanted, f"{more} more answers, after {counted}")


@contextlib.contextmanager
def load(url: str, path: str, body: bytes, expected: bytes, clients: int = 12) -> Iterator[Counted]:
    """Keep `clients` busy in a thread while the block runs."""
    counted, stop = Counted(), Event()

    async def all_of_them() -> None:
        asked = (client(url, path, body, expected, counted, stop) for _ in range(clients))
        await asyncio.gather(*asked)

    thread = Thread(target=asyncio.run, args=(all_of_them(),))
    thread.start()
    try:
        yield counted
    finally:
        stop.set()
        thread.join()
