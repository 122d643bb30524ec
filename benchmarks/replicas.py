"""Replicas behind HAProxy with the shipped configuration, and what each of them costs."""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from benchmarks.names import names
from benchmarks.serving.device import ROOT
from benchmarks.serving.process import TICKS_PER_S, Running, free_ports
from benchmarks.serving.servers import OURS, ModelName

CONFIGURATION = ROOT / "docker" / "haproxy.cfg"
UP = re.compile(r'^haproxy_server_status\{proxy="api",server="\w+",state="UP"\} 1', re.MULTILINE)
READY_S = 180.0
WARM_S = 6.0  # the balancer's slowstart, and a little

Cores = frozenset[int]


class ClusterError(Exception):
    """Why there are no figures, in one line."""


@dataclass(frozen=True)
class Place:
    """Which cores replicas, the balancer and the client may use."""

    name: str
    replicas: Cores
    balancer: Cores
    client: Cores


def places() -> list[Place]:
    """Both ways of sharing this machine; the first one where there is a second core."""
    cores = sorted(os.sched_getaffinity(0))
    shared = Place("shared cores", *[frozenset(cores)] * 3)
    if len(cores) == 1:
        return [shared]
    balancer, client = cores[1], cores[2 % len(cores)] or cores[-1]
    apart = Place("a core of its own", *(frozenset({one}) for one in (cores[0], balancer, client)))
    return [apart, shared]


@contextmanager
def on(cores: Cores) -> Iterator[None]:
    """What this thread starts meanwhile runs on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Balancer:
    """A running HAProxy, in front of `addresses`."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, metrics: int) -> None:
        self.process, self.port, self.metrics = process, port, metrics

    def up(self) -> int:
        """How many replicas it sends requests to."""
        try:
            told = httpx.get(f"http://127.0.0.1:{self.metrics}/metrics", timeout=10).text
        except httpx.TransportError:
            return 0
        return len(UP.findall(told))

    def cpu_s(self) -> float:
        """Seconds of CPU, user's and system's."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, stat[11:13])) / TICKS_PER_S

    def rss_mb(self) -> float:
        """Resident memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@dataclass(frozen=True)
class Cluster:
    """Replicas that are ready, at one port of different addresses, behind a balancer."""

    replicas: list[Running]
    addresses: list[str]
    port: int
    balancer: Balancer

    def cpu_s(self) -> float:
        """Seconds of CPU of all replicas."""
        return sum(replica.cpu_s() for replica in self.replicas)


@contextmanager
def cluster(
    count: int, model: ModelName, place: Place, scratch: Path, **settings: str
) -> Iterator[Cluster]:
    """`count` replicas with these settings, for as long as the block lasts.

    Each has a stand-in of its own, as each machine has its own GPU. Raises ClusterError.
    """
    program = find_haproxy()
    addresses = [f"127.0.3.{i + 1}" for i in range(count)]
    port, front, metrics = free_port_of_all(), *free_ports(2)
    with ExitStack() as stack:
        replicas = []
        for address in addresses:
            folder = scratch / f"{model}-{count}-{address}-{time.monotonic_ns()}"
            folder.mkdir()
            given = {"DTN_HOST": address, "DTN_PORT": str(port), **settings}
            with on(place.replicas):
                replica = Running(OURS, model, folder, given)
            stack.callback(replica.stop)
            replicas.append(replica)
        for replica, address in zip(replicas, addresses, strict=True):
            wait_until(partial(ready, address, port), replica.last_words)
        resolver = stack.enter_context(names(addresses))
        variables = {
            "DTN_BALANCER_BIND": f"127.0.0.1:{front}",
            "DTN_BALANCER_METRICS": f"127.0.0.1:{metrics}",
            "DTN_RESOLVER": resolver,
            "DTN_REPLICA": f"api:{port}",
        }
        log = stack.enter_context((scratch / "haproxy.log").open("wb"))
        with on(place.balancer):
            process = subprocess.Popen(  # noqa: S603 - the program that was found
                [program, "-db", "-f", str(CONFIGURATION)],
                env=os.environ | variables,
                stdout=log,
                stderr=log,
            )
        stack.callback(process.wait)
        stack.callback(process.kill)
        balancer = Balancer(process, front, metrics)
        wait_until(lambda: balancer.up() == count, lambda: f"HAProxy: {balancer.up()} are up")
        yield Cluster(replicas, addresses, port, balancer)


def find_haproxy() -> str:
    """The program. Raises ClusterError where it is not installed."""
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if program is None:
        raise ClusterError("haproxy is not installed: apt-get install haproxy")
    return program


def haproxy_version() -> str:
    told = subprocess.run([find_haproxy(), "-v"], capture_output=True, text=True, check=True)  # noqa: S603
    return re.sub(r" +\d{4}/.*", "", told.stdout.splitlines()[0].replace(" version", ""))


def ready(address: str, port: int) -> bool:
    try:
        return httpx.get(f"http://{address}:{port}/health/ready", timeout=10).status_code == 200
    except httpx.TransportError:
        return False


def wait_until(condition: Callable[[], bool], told: Callable[[], str]) -> None:
    """Raises ClusterError, with what is `told`, after READY_S."""
    end = time.monotonic() + READY_S
    while not condition():
        if time.monotonic() > end:
            raise ClusterError(f"not ready: {told()}")
        time.sleep(0.1)


def free_port_of_all() -> int:
    """A port that nobody listens on at any address."""
    with socket.create_server(("", 0)) as probe:
        return int(probe.getsockname()[1])
