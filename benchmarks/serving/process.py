"""A server as a tree of processes: started, measured, ended."""

import asyncio
import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.serving.client import post
from benchmarks.serving.device import ROOT
from benchmarks.serving.pictures import Pictures, is_right
from benchmarks.serving.servers import ModelName, Server

MARK = "BENCH_RUN"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
START_S = 180.0
END_S = 15.0


class NotServingError(Exception):
    """Why a server could not be measured, in one line."""


def python_path() -> str:
    """PYTHONPATH by which a server finds this repository, and what it is started with."""
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


class Running:
    """A started server. What it starts in turn inherits a mark, by which it is found again."""

    def __init__(
        self, server: Server, model: ModelName, scratch: Path, environment: dict[str, str]
    ) -> None:
        self.server, self.model = server, model
        self.mark = uuid.uuid4().hex
        self.log = scratch / f"{server.name}-{model}.log"
        ports = free_ports(3)
        self.port = ports[0]
        self.device_log = scratch / f"{self.mark}.device"
        given = {
            MARK: self.mark,
            "PYTHONPATH": python_path(),
            "BENCH_MODEL": model,
            "BENCH_PORTS": ",".join(map(str, ports)),
            "BENCH_LOCK": str(scratch / "device.lock"),
            "DTN_PORT": str(self.port),
            "DTN_DATABASE_URL": f"sqlite:///{scratch}/dtn.db",
            "DTN_LOG_LEVEL": "warning",
            "TMPDIR": str(scratch),
        } | environment
        if "BENCH_DEVICE_LOG" in environment:
            given["BENCH_DEVICE_LOG"] = str(self.device_log)
        self.started = time.monotonic()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own commands
                server.command(model),
                env=os.environ | given,
                cwd=scratch,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    async def wait_ready(self, pictures: Pictures, **headers: str) -> float:
        """Seconds from the start to the first right answer. Raises NotServingError."""
        body = self.server.body(pictures.files[0])
        while time.monotonic() < self.started + START_S and self.process.poll() is None:
            answer = await post(self.port, self.server.path, body, 10.0, **headers)
            if answer.status == 200 and is_right(answer.body, pictures, 0):
                return time.monotonic() - self.started
            await asyncio.sleep(0.05)
        raise NotServingError(f"{self.server.name} does not serve: {self.last_words()}")

    def last_words(self) -> str:
        """The last line of the log that speaks of an error, else the last of all."""
        lines = [line.strip() for line in self.log.read_text(errors="replace").split("\n")]
        spoken = [line for line in lines if line] or ["it wrote nothing"]
        errors = [line for line in spoken if "error" in line.lower() or "exception" in line.lower()]
        return (errors or spoken)[-1][:200]

    def pids(self) -> list[int]:
        """The processes of the tree that are alive."""
        wanted = f"{MARK}={self.mark}".encode()
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    if wanted in (folder / "environ").read_bytes().split(b"\0"):
                        found.append(int(folder.name))
                except OSError:  # it ended meanwhile, or is another user's
                    continue
        return found

    def cpu_s(self) -> float:
        """Seconds of CPU, user's and system's, of the tree and of children it has reaped."""
        return sum(sum(map(int, fields[11:15])) for fields in self.stats()) / TICKS_PER_S

    def rss_mb(self) -> float:
        """Resident memory of the tree; pages that processes share count once for each."""
        return sum(int(fields[21]) * PAGE for fields in self.stats()) / 1e6

    def stats(self) -> Iterator[list[str]]:
        """/proc/PID/stat behind the name: state is field 0, utime 11, rss 21."""
        for pid in self.pids():
            try:
                text = Path(f"/proc/{pid}/stat").read_text()
            except OSError:
                continue
            yield text.rpartition(")")[2].split()

    def device_images(self) -> int:
        """Pictures that the stand-in has run, where BENCH_DEVICE_LOG had it write them down."""
        return sum(map(int, self.device_log.read_text().split())) if self.device_log.exists() else 0

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the leader, as a supervisor would."""
        self.process.send_signal(number)

    def stop(self) -> None:
        """End the tree; by force what does not leave."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self.pids():
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    continue
            end = time.monotonic() + END_S
            while time.monotonic() < end:
                self.process.poll()
                if not self.pids():
                    self.process.wait()
                    return
                time.sleep(0.05)


@contextmanager
def running(
    server: Server, model: ModelName, scratch: Path, **environment: str
) -> Iterator[Running]:
    """A server for as long as the block lasts."""
    with ExitStack() as stack:
        started = Running(server, model, scratch, environment)
        stack.callback(started.stop)
        yield started


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on just now."""
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [one.getsockname()[1] for one in sockets]
