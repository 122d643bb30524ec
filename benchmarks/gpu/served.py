"""`dtn bench served`: tensors in, G(x) out over HTTP, beside what the model's session does alone.

Nothing has to be decoded or encoded, so that what limits is the device, or the way to it.
"""

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import Request, urlopen

import numpy as np

from benchmarks.gpu.speed import lap, pictures_of
from benchmarks.gpu.ways import as_served, read_graph
from benchmarks.serving.pictures import answers, write_down
from benchmarks.serving.process import NotServingError, Running, running
from benchmarks.serving.servers import OURS, Server, v2_tensor
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


def asked(model: str, name: str, x: Pixels, wanted: str) -> Server:
    """Our server, asked for G of pictures uint8 [n, S, S, 3], all in binary."""
    tensor = {"name": name, "shape": x.shape, "datatype": "UINT8"}
    body = v2_tensor(tensor, x.tobytes(), wanted)
    return replace(OURS, path=f"/v2/models/{model}/infer", body=lambda _: body)


def is_right(answer: bytes, expected: Pixels) -> bool:
    """Whether an answer, JSON with a tensor of bytes behind it, is the session's."""
    y = np.frombuffer(answer[-expected.size :], np.uint8)
    return y.size == expected.size and int(np.abs(y - expected.ravel().astype(int)).max()) <= OFF


def wait_right(server: Running, expected: Pixels) -> None:
    """Returns once it answers, and as the session does. Raises NotServingError."""
    url, body = f"http://127.0.0.1:{server.port}{server.server.path}", server.server.body(b"")
    while time.monotonic() < server.started + START_S and server.process.poll() is None:
        request = Request(url, body.content, body.headers)
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
    known = graph.manifest
    ours = asked(known.name, known.input.name, x[:pictures], known.output.name)
    environment = {"DTN_DEVICE": device, "DTN_MODELS": str(folder.parent.resolve())}
    laps = []
    with (
        TemporaryDirectory(prefix="dtn-bench-") as scratch,
        running(ours, "digits", Path(scratch), **environment) as server,
    ):
        expected = run(x[:pictures])
        wait_right(server, expected)

        def wrong(folder: Path) -> int:
            return sum(not is_right(answer, expected) for _, answer in answers(folder))

        file = Path(scratch) / "requests"
        for count in (max(connections), *connections):  # the first to warm up
            write_down(file, [ours.request(server.port, b"")] * count)
            cpu_s = server.cpu_s()
            with watched() as busy:
                load = drive(server.port, file, count, seconds, wrong)
                share = busy()
            laps.append(Lap(count, pictures, load, server.cpu_s() - cpu_s, share))
    return alone, laps[1:]


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
