"""A small HTTP client for what wrk cannot do: one connection per request, each outcome told."""

import asyncio
import time
from dataclasses import dataclass, field

from benchmarks.serving.servers import Body


@dataclass(frozen=True)
class Answer:
    """`status` is 0 where none came: `fate` then says why."""

    status: int
    sent: float  # a time.monotonic()
    seconds: float
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    fate: str = "answered"  # else refused (no connection), broken (no or half an answer), late


async def post(port: int, path: str, body: Body, timeout_s: float, **headers: str) -> Answer:
    """POST a body on a connection of its own; never raises for what the server does."""
    start = time.monotonic()
    fate = "refused"
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            fate = "broken"
            try:
                writer.write(request_bytes(port, path, body, headers))
                status, names, content = await read_answer(reader)
            finally:
                writer.close()
    except TimeoutError:
        return Answer(0, start, time.monotonic() - start, fate="late")
    except (OSError, asyncio.IncompleteReadError, ValueError, IndexError):
        return Answer(0, start, time.monotonic() - start, fate=fate)
    return Answer(status, start, time.monotonic() - start, content, names)


def request_bytes(port: int, path: str, body: Body, headers: dict[str, str]) -> bytes:
    fields = {
        "Host": f"127.0.0.1:{port}",
        "Connection": "close",
        "Content-Length": str(len(body.content)),
        **body.headers,
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body.content


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Status, headers in lower case, body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status = int(head[0].split()[1])
    pairs = (line.partition(":") for line in head[1:] if line)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    if "chunked" in headers.get("transfer-encoding", ""):
        return status, headers, await read_chunks(reader)
    if "content-length" in headers:
        return status, headers, await reader.readexactly(int(headers["content-length"]))
    return status, headers, await reader.read()


async def read_chunks(reader: asyncio.StreamReader) -> bytes:
    content = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        content += (await reader.readexactly(size + 2))[:-2]
    return content
