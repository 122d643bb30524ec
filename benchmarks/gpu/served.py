"""`dtn bench served`: tensors in, G(x) out over HTTP, beside what the model's session does alone.

Nothing has to be decoded or encoded, so that what limits is the device, or the way to it.
"""

import json
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import Request, urlopen

import numpy as np

from benchmarks.gpu.speed import lap, pictures_of
from benchmarks.gpu.ways import as_served, read_graph
from benchmarks.serving.pictures import answers, write_down
from benchmarks.serving.process import NotServingError, Running, running
from benchmarks.serving.servers import OURS, Body
from benchmarks.serving.wrk import Load, drive
from service.pictures import Pixels

ALONE = (64, 256)  # sizes of the session's runs, of which the better counts
OFF = 2  # grey levels at most: sums depend on the batch in their last bit
EVERY_S = 0.1
START_S = 300.0
NOTED = ("DTN_FRONTS", "DTN_WORKERS", "DTN_THREADS", "DTN_MAX_QUEUE")


@dataclass(frozen=True)
class Lap:
    """One number of connections."""

    connections: int
    pictures: int  # of a request
    load: Load
    cpu_s: float  # of the service
    busy: float | None  # share of the time in which the GPU computed

    @property
    def rate(self) -> float:
        """Pictures a second."""
        return self.load.images * self.pictures / self.load.seconds


def tensor(name: str, x: Pixels, wanted: str) -> Body:
    """A request of the Open Inference Protocol for pictures uint8 [n, S, S, 3], all in binary."""
    asked = {
        "inputs": [
            {
                "name": name,
                "shape": x.shape,
                "datatype": "UINT8",
                "parameters": {"binary_data_size": x.nbytes},
            }
        ],
        "outputs": [{"name": wanted, "parameters": {"binary_data": True}}],
    }
    head = json.dumps(asked).encode()
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(head)),
    }
    return Body(head + x.tobytes(), headers)


def is_right(answer: bytes, expected: Pixels) -> bool:
    """Whether an answer, JSON with a tensor of bytes behind it, is the session's."""
    y = np.frombuffer(answer[-expected.size :], np.uint8)
    return y.size == expected.size and int(np.abs(y - expected.ravel().astype(int)).max()) <= OFF


def wait_right(server: Running, url: str, body: Body, expected: Pixels) -> None:
    """Returns once it answers, and as the session does. Raises NotServingError."""
    while time.monotonic() < server.started + START_S and server.process.poll() is None:
        request = Request(url, body.content, body.headers)  # noqa: S310 -- http://127.0.0.1
        try:
            with urlopen(request, timeout=30) as answer:  # noqa: S310
                content = answer.read()
        except OSError:  # not there yet, or not ready
            time.sleep(EVERY_S)
            continue
        if not is_right(content, expected):
            raise NotServingError("it answers otherwise than its session")
        return
    raise NotServingError(f"it does not serve: {server.last_words()}")


@contextmanager
def watched() -> Iterator[Callable[[], float | None]]:
    """How busy the GPU was since the block began, by nvidia-smi; None where there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        yield lambda: None
        return
    query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    command = [program, *query, f"-lms={EVERY_S * 1000:.0f}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603

        def busy() -> float | None:
            process.terminate()
            told, _ = process.communicate()
            values = [float(line) for line in told.split() if line.isdecimal()]
            return statistics.mean(values) / 100 if values else None

        try:
            yield busy
        finally:
            process.terminate()


def bench(
    folder: Path, device: str, connections: Sequence[int], pictures: int, seconds: int
) -> tuple[float, list[Lap]]:
    """Pictures a second of the session alone, then of the service at each number of connections.

    `folder` is the model's, among others that are served beside it. Raises ModelError, WrkError,
    NotServingError.
    """
    graph = read_graph(folder)
    x = pictures_of(graph, None, max(*ALONE, pictures))
    run = as_served(graph, device, 1)
    alone = max(n / statistics.median(lap(run, x[:n], 1.0)) for n in ALONE)
    body = tensor(graph.manifest.input.name, x[:pictures], graph.manifest.output.name)
    path = f"/v2/models/{graph.manifest.name}/infer"
    environment = {"DTN_DEVICE": device, "DTN_MODELS": str(folder.parent.resolve())}
    laps = []
    with (
        TemporaryDirectory(prefix="dtn-bench-") as scratch,
        running(OURS, "digits", Path(scratch), **environment) as server,
    ):
        url = f"http://127.0.0.1:{server.port}{path}"
        expected = run(x[:pictures])
        wait_right(server, url, body, expected)

        def wrong(folder: Path) -> int:
            return sum(not is_right(answer, expected) for _, answer in answers(folder))

        file = Path(scratch) / "requests"
        for count in (max(connections), *connections):  # the first to warm up
            write_down(file, [whole_request(path, server.port, body)] * count)
            cpu_s = server.cpu_s()
            with watched() as busy:
                load = drive(server.port, file, count, seconds, wrong)
                share = busy()
            laps.append(Lap(count, pictures, load, server.cpu_s() - cpu_s, share))
    return alone, laps[1:]


def whole_request(path: str, port: int, body: Body) -> bytes:
    headers = {"Host": f"127.0.0.1:{port}", "Content-Length": str(len(body.content))}
    lines = [f"POST {path} HTTP/1.1", *(f"{k}: {v}" for k, v in (headers | body.headers).items())]
    return "\r\n".join([*lines, "", ""]).encode() + body.content


def report(folder: Path, alone: float, laps: Sequence[Lap], cores: int) -> str:
    """A table, beside the settings that it was measured with."""
    settings = ", ".join(f"{name}={os.environ[name]}" for name in NOTED if name in os.environ)
    lines = [
        f"{folder.name}, {laps[0].pictures} pictures a request as a binary tensor, {cores} cores, "
        f"{settings or 'default settings'}. The session alone: {alone:,.0f} pictures/s.",
        "",
        "| connections | pictures/s | of the session's | p50 ms | p99 ms | failed | wrong | "
        "cores busy (service, wrk) | GPU busy |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in laps:
        load = each.load
        gpu = "" if each.busy is None else f"{each.busy:.0%}"
        lines.append(
            f"| {each.connections} | {each.rate:,.0f} | {each.rate / alone:.0%} | "
            f"{load.p50_ms:.1f} | {load.p99_ms:.1f} | {load.failed} | {load.wrong} | "
            f"{each.cpu_s / load.seconds:.1f}, {load.cpu_s / load.seconds:.1f} | {gpu} |"
        )
    return "\n".join([*lines, ""])
