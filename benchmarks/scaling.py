"""dtn bench scaling: what more replicas bring, what the balancer costs, what a core serves."""

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from benchmarks.replicas import Cluster, Cores, Place, cluster, haproxy_version, on, places
from benchmarks.serving.device import ROOT
from benchmarks.serving.pictures import Pictures, make_pictures, wrong_answers
from benchmarks.serving.race import machine_s
from benchmarks.serving.results import surroundings, wrk_version
from benchmarks.serving.servers import HERE, OURS, ModelName, multipart
from benchmarks.serving.wrk import Load, WrkError, children_cpu_s, find_wrk, parse

PICTURES = 512
COUNTS = (1, 2, 4)
CONNECTIONS = (1, 8, 32, 64)  # of the balancer's overhead
MOST = 64  # connections where throughput is looked for
WARM_UP_S = 2.0
# A device that is slow enough for four of them to leave the CPU of two cores something to do.
SCALED: dict[ModelName, dict[str, str]] = {
    "standin": {"BENCH_CALL_MS": "2", "BENCH_IMAGE_MS": "8"},
    "digits": {"DTN_WORKERS": "1"},
}
PHOTO_SIDE = 1024  # pixels of the photo of a face, as a web page would send it

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Lap:
    """One load on one cluster. CPU is in microseconds per picture, user's and system's."""

    part: str  # overhead, scaling or core
    model: str
    place: str
    replicas: int
    way: str  # direct or balancer
    connections: int
    round: int
    images_per_s: float
    p50_ms: float
    p99_ms: float
    replica_us: float
    balancer_us: float
    client_us: float
    elsewhere: float  # cores that none of these three kept busy
    balancer_mb: float
    failed: int
    wrong: int


@dataclass(frozen=True)
class Requests:
    """A file of requests for load.lua and, where answers are known, the pictures in it."""

    file: Path
    pictures: Pictures | None
    bytes_each: int


def picture_requests(model: ModelName, scratch: Path) -> Requests:
    """/transfer of distinct small pictures."""
    pictures = make_pictures(model, PICTURES)
    asked = [OURS.request(80, picture) for picture in pictures.files]
    return Requests(write(scratch / f"{model}.requests", asked), pictures, len(asked[0]))


def face_requests(scratch: Path) -> Requests:
    """/emoji of one photo: NASA's, of the page's example, public domain."""
    with Image.open(ROOT / "docs" / "emoji.png") as grid:
        face = grid.convert("RGB").crop((0, 0, 192, 192))
    file = BytesIO()
    face.resize((PHOTO_SIDE, PHOTO_SIDE), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    body = multipart(file.getvalue())
    fields = body.headers | {"Host": "127.0.0.1", "Content-Length": str(len(body.content))}
    lines = ["POST /emoji HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    asked = "\r\n".join(lines).encode() + b"\r\n\r\n" + body.content
    return Requests(write(scratch / "faces.requests", [asked] * MOST), None, len(asked))


def write(file: Path, requests: Sequence[bytes]) -> Path:
    """As load.lua reads them: each behind a line with its length."""
    file.write_bytes(b"".join(b"%d\n" % len(each) + each for each in requests))
    return file


def wrk(at: str, requests: Requests, connections: int, seconds: float, cores: Cores) -> Load:
    """Drive `host:port` for a while and check every answer that is known. Raises WrkError."""
    with TemporaryDirectory() as answers:
        command = [find_wrk(), f"-t{connections}", f"-c{connections}", f"-d{seconds:g}s"]
        command += ["--timeout", "30s", "-s", str(HERE / "load.lua"), f"http://{at}"]
        command += ["--", str(requests.file), answers, str(connections)]
        with on(cores):
            done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise WrkError(f"wrk failed: {(done.stderr or done.stdout).strip()[:200]}")
        known = requests.pictures
        wrong = wrong_answers(Path(answers), known) if known else 0
        return parse(done.stdout, wrong, cpu_s=0.0)


def lap(
    part: str,
    running: Cluster,
    requests: Requests,
    place: Place,
    *,
    model: str,
    way: str,
    connections: int,
    seconds: float,
    turn: int,
) -> Lap:
    """One load, spread over all replicas by the balancer or, directly, by equal shares."""
    targets = [f"127.0.0.1:{running.balancer.port}"]
    if way == "direct":
        targets = [f"{address}:{running.port}" for address in running.addresses]
    share = max(1, connections // len(targets))
    replicas_s, balancer_s = running.cpu_s(), running.balancer.cpu_s()
    client_s, machine, start = children_cpu_s(), machine_s(), time.monotonic()
    with ThreadPoolExecutor(len(targets)) as pool:
        jobs = [pool.submit(wrk, at, requests, share, seconds, place.client) for at in targets]
        loads = [job.result() for job in jobs]
    took = time.monotonic() - start
    client_s = children_cpu_s() - client_s
    balancer_s = running.balancer.cpu_s() - balancer_s
    replicas_s = running.cpu_s() - replicas_s
    machine = machine_s() - machine - client_s - balancer_s - replicas_s
    images = max(1, sum(load.images for load in loads))
    return Lap(
        part=part,
        model=model,
        place=place.name,
        replicas=len(running.replicas),
        way=way,
        connections=connections,
        round=turn,
        images_per_s=sum(load.images / load.seconds for load in loads),
        p50_ms=sum(load.p50_ms for load in loads) / len(loads),
        p99_ms=max(load.p99_ms for load in loads),
        replica_us=replicas_s * 1e6 / images,
        balancer_us=balancer_s * 1e6 / images,
        client_us=client_s * 1e6 / images,
        elsewhere=max(0.0, machine / took),
        balancer_mb=running.balancer.rss_mb(),
        failed=sum(load.failed for load in loads),
        wrong=sum(load.wrong for load in loads),
    )


def overhead(seconds: float, rounds: int, scratch: Path) -> Iterator[Lap]:
    """One replica, asked directly and through the balancer by turns.

    The order within a round is d, b, b, d, so that a machine that slows down counts for both.
    """
    models: tuple[ModelName, ...] = ("standin", "digits")
    for model in models:
        requests = picture_requests(model, scratch)
        for place in places():
            lock = str(scratch / "device.lock")
            with cluster(1, model, place, scratch, BENCH_LOCK=lock) as running:
                warm_up(running, requests, place)
                for turn in range(rounds):
                    for connections in CONNECTIONS:
                        for way in ("direct", "balancer", "balancer", "direct"):
                            yield lap(
                                "overhead",
                                running,
                                requests,
                                place,
                                model=model,
                                way=way,
                                connections=connections,
                                seconds=seconds,
                                turn=turn,
                            )


def scaling(seconds: float, rounds: int, scratch: Path) -> Iterator[Lap]:
    """1, 2 and 4 replicas, each with a device of its own, then each with one worker on the CPU."""
    place = places()[-1]
    for model, settings in SCALED.items():
        requests = picture_requests(model, scratch)
        for count in COUNTS:
            with cluster(count, model, place, scratch, **settings) as running:
                warm_up(running, requests, place)
                for turn in range(rounds):
                    for way in ("direct", "balancer"):
                        yield lap(
                            "scaling",
                            running,
                            requests,
                            place,
                            model=model,
                            way=way,
                            connections=MOST,
                            seconds=seconds,
                            turn=turn,
                        )


def one_core(seconds: float, rounds: int, scratch: Path) -> Iterator[Lap]:
    """What a replica on one core serves through the balancer: small pictures, photos of faces."""
    place = places()[0]
    # Few connections where an answer takes long: what is under way at the end costs CPU, too,
    # but is no answer.
    for route, requests, connections in (
        ("/transfer", picture_requests("digits", scratch), 16),
        ("/emoji", face_requests(scratch), 2),
    ):
        settings = {"DTN_WORKERS": "1", "DTN_MAX_QUEUE": str(MOST)}
        with cluster(1, "digits", place, scratch, **settings) as running:
            warm_up(running, requests, place)
            for turn in range(rounds):
                yield lap(
                    "core",
                    running,
                    requests,
                    place,
                    model=route,
                    way="balancer",
                    connections=connections,
                    seconds=seconds * (3 if connections < 16 else 1),
                    turn=turn,
                )


def warm_up(running: Cluster, requests: Requests, place: Place) -> None:
    """Before anything is counted, both ways."""
    for at in (
        f"127.0.0.1:{running.balancer.port}",
        *(f"{a}:{running.port}" for a in running.addresses),
    ):
        wrk(at, requests, 16, WARM_UP_S, place.client)


PARTS: dict[str, Callable[[float, int, Path], Iterator[Lap]]] = {
    "overhead": overhead,
    "scaling": scaling,
    "core": one_core,
}


def bench(
    parts: Sequence[str], seconds: float, rounds: int, scratch: Path, command: str, tell: Tell
) -> dict[str, Any]:
    """SCALING.json: all laps of these parts, and where they were run.

    Raises ClusterError or WrkError where nothing can be measured.
    """
    find_wrk()
    laps = []
    for part in parts:
        for found in PARTS[part](seconds, rounds, scratch):
            laps.append(asdict(found))
            tell(describe(found))
    return {
        "command": command,
        "surroundings": [*surroundings(), f"- {wrk_version()}"],
        "haproxy": haproxy_version(),
        "laps": laps,
    }


def describe(found: Lap) -> str:
    return (
        f"{found.part} {found.model}, {found.place}: {found.replicas} replicas, {found.way}, "
        f"{found.connections} connections: {found.images_per_s:.0f} images/s, "
        f"p50 {found.p50_ms:.1f} ms, CPU us {found.replica_us:.0f} replica "
        f"{found.balancer_us:.0f} balancer {found.client_us:.0f} client, "
        f"{found.failed} failed, {found.wrong} wrong"
    )
