"""Replicas of the service as real processes, behind the real HAProxy with the shipped file."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from benchmarks.names import names
from tests.postgres import free_port

CONFIGURATION = Path(__file__).parents[2] / "docker/haproxy.cfg"
WAIT_S = 180.0  # on a machine that is busy
UP = re.compile(r'^haproxy_server_status\{proxy="api",server="\w+",state="UP"\} 1', re.M)


def wait_until(true: Callable[[], bool], what: str) -> None:
    """Poll. Raises AssertionError, with `what`, after WAIT_S."""
    end = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)


class Replica:
    """`dtn serve` at an address of its own; all replicas have the same port, as in containers."""

    def __init__(
        self, address: str, port: int, settings: dict[str, str], log: Path, inside: tuple[str, ...]
    ) -> None:
        self.address, self.port, self.log, self.inside = address, port, log, inside
        outside = {k: v for k, v in os.environ.items() if not k.startswith("DTN_")}
        self.environment = outside | settings
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}"

    def start(self) -> None:
        """Start it and wait until it is ready."""
        command = [sys.executable, "-m", "service", "serve"]
        place = ["--host", self.address, "--port", str(self.port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.inside, *command, *place], env=self.environment, stdout=log, stderr=log
            )
        wait_until(self.ready, f"{self.url}, which says:\n{self.log.read_text()[-2000:]}")

    def ready(self) -> bool:
        assert self.process is not None and self.process.poll() is None, self.log.read_text()
        try:
            return httpx.get(f"{self.url}/health/ready", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        self.signal(signal.SIGTERM)
        assert self.process is not None
        return self.process.wait(WAIT_S)

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(WAIT_S)


class Cluster:
    """Some replicas, the balancer's URL, and how many replicas it holds for up.

    `addresses` is what the name server tells of them, and may be changed.
    """

    def __init__(
        self, replicas: list[Replica], addresses: list[str], url: str, metrics: str
    ) -> None:
        self.replicas, self.addresses, self.url, self.metrics = replicas, addresses, url, metrics

    def up(self) -> int:
        """Replicas that HAProxy sends requests to."""
        return len(UP.findall(httpx.get(f"{self.metrics}/metrics", timeout=30).text))

    def wait_until_up(self, count: int) -> None:
        wait_until(lambda: self.up() == count, f"{count} replicas up")


@contextmanager
def cluster(
    folder: Path,
    models: Path,
    addresses: list[str],
    inside: tuple[tuple[str, ...], ...] = ((), (), ()),
    **settings: str,
) -> Iterator[Cluster]:
    """Started replicas behind a started balancer; logs lie in `folder`.

    `inside` are the words before the command of each, such as those that enter a network.
    """
    port = free_port("127.0.0.1")
    common = {"DTN_MODELS": str(models), "DTN_DRAIN_DELAY_S": "3", "DTN_WORKERS": "2", **settings}
    with ExitStack() as stack:
        told = list(addresses)
        resolver = stack.enter_context(names(told))
        replicas = [
            Replica(address, port, common, folder / f"replica{i}.log", words)
            for i, (address, words) in enumerate(zip(addresses, inside, strict=True))
        ]
        for replica in replicas:
            stack.callback(replica.kill)
            replica.start()
        ports = free_port("127.0.0.1"), free_port("127.0.0.1")
        variables = {
            "DTN_BALANCER_BIND": f"127.0.0.1:{ports[0]}",
            "DTN_BALANCER_METRICS": f"127.0.0.1:{ports[1]}",
            "DTN_BALANCER_TIMEOUT": "10s",
            "DTN_BALANCER_PATIENCE": "3s",
            "DTN_RESOLVER": resolver,
            "DTN_REPLICA": f"api:{port}",
        }
        log = stack.enter_context((folder / "haproxy.log").open("wb"))
        balancer = subprocess.Popen(
            [program(), "-db", "-f", str(CONFIGURATION)],
            env=os.environ | variables,
            stdout=log,
            stderr=log,
        )
        stack.callback(balancer.wait)
        stack.callback(balancer.kill)
        urls = [f"http://127.0.0.1:{number}" for number in ports]
        running = Cluster(replicas, told, *urls)
        wait_until(lambda: listening(ports[1]), "HAProxy")
        running.wait_until_up(len(addresses))
        yield running


def program() -> str:
    """HAProxy's, which Debian keeps out of an ordinary user's path."""
    return shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin") or ""


def listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError:
        return False
    return True
