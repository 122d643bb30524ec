"""Load by wrk, one thread per connection, and what it found."""

import json
import resource
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.serving.pictures import Pictures, wrong_answers
from benchmarks.serving.servers import HERE


class WrkError(Exception):
    """Why there are no figures, in one line."""


@dataclass(frozen=True)
class Load:
    """What one run of wrk saw. `wrong` are distinct answers that belong to another picture."""

    answers: int
    refused: int
    broken: int
    late: int
    wrong: int
    cpu_s: float  # of wrk itself
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def images(self) -> int:
        return self.answers - self.refused

    @property
    def failed(self) -> int:
        return self.refused + self.broken + self.late


def find_wrk() -> str:
    """The program. Raises WrkError where it is not installed."""
    program = shutil.which("wrk")
    if program is None:
        raise WrkError("wrk is not installed: apt-get install wrk, or brew install wrk")
    return program


def load(port: int, requests: Path, concurrency: int, seconds: float, pictures: Pictures) -> Load:
    """Drive a server for a while and check every answer. Raises WrkError."""
    return drive(port, requests, concurrency, seconds, lambda seen: wrong_answers(seen, pictures))


def drive(
    port: int, requests: Path, concurrency: int, seconds: float, wrong: Callable[[Path], int]
) -> Load:
    """The same with another judge: `wrong` counts in a folder of answers. Raises WrkError."""
    with TemporaryDirectory() as answers:
        command = [find_wrk(), f"-t{concurrency}", f"-c{concurrency}", f"-d{seconds:g}s"]
        command += ["--timeout", "30s", "-s", str(HERE / "load.lua"), f"http://127.0.0.1:{port}"]
        command += ["--", str(requests), answers, str(concurrency)]
        before = children_cpu_s()
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        cpu_s = children_cpu_s() - before
        if done.returncode:
            raise WrkError(f"wrk failed: {(done.stderr or done.stdout).strip()[:200]}")
        return parse(done.stdout, wrong(Path(answers)), cpu_s)


def children_cpu_s() -> float:
    """Seconds of CPU of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def parse(output: str, wrong: int, cpu_s: float) -> Load:
    """The line that load.lua prints. Raises WrkError where there is none."""
    for line in output.splitlines():
        if line.startswith("RESULT "):
            return Load(**json.loads(line.removeprefix("RESULT ")), wrong=wrong, cpu_s=cpu_s)
    raise WrkError(f"wrk told no result: {output.strip()[:200]}")
