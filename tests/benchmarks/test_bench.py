"""The benchmark's own parts: the answer check, the stand-in, wrk's output, the table."""

import asyncio
import json
import shutil
import subprocess
import threading
import time
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import cli
from benchmarks.cli import bench
from benchmarks.serving import bare, race, servers
from benchmarks.serving.client import read_answer
from benchmarks.serving.device import StandIn
from benchmarks.serving.hostile import hostile_bodies
from benchmarks.serving.pictures import (
    Pictures,
    answer_pixels,
    encoded,
    expected_answers,
    is_right,
    make_pictures,
    photos,
    write_requests,
    wrong_answers,
)
from benchmarks.serving.race import Lap, Race
from benchmarks.serving.results import table, without_server
from benchmarks.serving.servers import OURS, PEERS
from benchmarks.serving.wrk import Load, WrkError, load, parse

OUTPUT = """Running 2s test @ http://127.0.0.1:9
  2 threads and 2 connections
RESULT {"answers": 99, "refused": 4, "broken": 1, "late": 0, "seconds": 2, "p50_ms": 3, "p99_ms": 9}
"""


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return make_pictures("standin", 8)


def answers_of(pictures: Pictures) -> list[bytes]:
    return [encoded(np.repeat(y[:, :, None], 3, axis=2)) for y in pictures.wanted]


def write_down(folder: Path, answers: dict[int, bytes]) -> None:
    """As load.lua does."""
    records = (b"%d %d\n" % (i, len(body)) + body for i, body in answers.items())
    (folder / "0").write_bytes(b"".join(records))


def test_right_answers_pass_and_swapped_ones_do_not(tmp_path: Path, pictures: Pictures) -> None:
    answers = dict(enumerate(answers_of(pictures)))
    write_down(tmp_path, answers)
    assert wrong_answers(tmp_path, pictures) == 0
    answers[2], answers[5] = answers[5], answers[2]
    write_down(tmp_path, answers)
    assert wrong_answers(tmp_path, pictures) == 2


def test_answers_are_found_in_what_peers_wrap_them_in(pictures: Pictures) -> None:
    png = answers_of(pictures)[0]
    wrapped = [b'{"outputs": []}\x00\x01\x00\x00' + png, b'{"data": ["' + b64encode(png) + b'"]}']
    assert all(is_right(body, pictures, 0) for body in wrapped)
    assert not any(is_right(body, pictures, 1) for body in wrapped)


@pytest.mark.parametrize("body", [b"", b"{}", b"\x89PNG\r\n\x1a\n and no more"])
def test_what_holds_no_picture_is_wrong(body: bytes, pictures: Pictures) -> None:
    assert answer_pixels(body) is None
    assert not is_right(body, pictures, 0)


def test_pictures_whose_answers_are_alike_are_refused() -> None:
    with pytest.raises(ValueError, match="twin"):
        expected_answers("standin", np.repeat(photos(1), 2, axis=0))


def test_stand_in_answers_the_green_channel(tmp_path: Path) -> None:
    x = np.zeros((2, 32, 32, 3), np.uint8)
    x[0, 0, 0], x[1, 31, 0] = (10, 20, 31), (0, 255, 0)
    log = tmp_path / "log"
    (y,) = StandIn(tmp_path / "lock", log=log).run(["y"], {"x": x})
    assert y.shape == (2, 32, 32, 1)
    assert y.dtype == np.uint8
    assert (y[0, 0, 0, 0], y[1, 31, 0, 0], y.sum()) == (20, 255, 275)
    assert log.read_text() == "2\n"


def test_stand_in_takes_any_size(tmp_path: Path) -> None:
    device = StandIn(tmp_path / "lock")
    for height, width in ((1, 1), (1, 200), (97, 43)):
        (y,) = device.run(["y"], {"x": np.full((1, height, width, 3), 7, np.uint8)})
        assert y.shape == (1, 32, 32, 1)
        assert (y == 7).all()


def test_stand_in_is_one_device_for_all(tmp_path: Path) -> None:
    feed = {"x": photos(1)}
    devices = [StandIn(tmp_path / "lock", call_ms=30) for _ in range(4)]
    threads = [threading.Thread(target=d.run, args=(["y"], feed)) for d in devices]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - start >= 4 * 0.03


def test_result_of_wrk_is_parsed() -> None:
    found = parse(OUTPUT, wrong=1, cpu_s=0.5)
    assert (found.images, found.failed, found.wrong, found.p99_ms) == (95, 5, 1, 9)


def test_no_result_of_wrk_is_an_error() -> None:
    with pytest.raises(WrkError, match="unable to connect"):
        parse("unable to connect to 127.0.0.1:9", wrong=0, cpu_s=0)


class MixedUp(BaseHTTPRequestHandler):
    """Answers every request with the first picture's answer, which is right for one of them."""

    protocol_version = "HTTP/1.1"
    answer = b""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, *args: object) -> None:
        pass


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_answers_to_other_requests_are_noticed_under_wrk(
    tmp_path: Path, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MixedUp, "answer", answers_of(pictures)[0])
    with ThreadingHTTPServer(("127.0.0.1", 0), MixedUp) as server:
        threading.Thread(target=server.serve_forever).start()
        requests = tmp_path / "requests"
        write_requests(requests, OURS, server.server_port, pictures)
        found = load(server.server_port, requests, 2, 1, pictures)
        server.shutdown()
    assert found.images > len(pictures.files)
    assert (found.failed, found.wrong) == (0, len(pictures.files) - 1)


def lap(server: str, images: int, cpu_s: float) -> Lap:
    found = Load(
        answers=images,
        refused=0,
        broken=0,
        late=0,
        wrong=0,
        cpu_s=0.1,
        seconds=2.0,
        p50_ms=1.5,
        p99_ms=4.0,
    )
    return Lap(server, "standin", 8, found, cpu_s, elsewhere=0.0)


def test_table_has_medians_and_ratios_to_ours() -> None:
    laps = [lap("ours", n, n * 200e-6) for n in (900, 1000, 1400)]
    laps += [lap("mosec", n, n * 300e-6) for n in (1900, 2000, 2000)]
    head, _, *rows = table(Race(laps, {}, {"ray": "not installed"})).splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert len({line.count("|") for line in (head, *rows)}) == 1
    assert cells[0][2:9] == ["mosec", "1000", "950-1000", "2.00", "1.5", "4.0", "300"]
    assert cells[0][9] == "1.50"
    assert cells[1][2:6] == ["ours", "500", "450-700", "1.00"]
    assert cells[2][2:4] == ["ray", "not installed"]


def test_what_a_core_can_do_is_measured_on_all_of_them_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    together = threading.Barrier(3)
    found = iter(
        [
            {"images_per_core_s": n, "slice_per_core_s": n + 10, "batch": b}
            for n, b in ((100, 8), (130, 32), (160, 32))
        ]
    )

    def run(
        command: list[str], env: dict[str, str], **_: object
    ) -> subprocess.CompletedProcess[str]:
        assert env["BENCH_SECONDS"] == "7"  # as long as a server is driven
        together.wait(10)  # broken where one runs after the other
        return subprocess.CompletedProcess(command, 0, json.dumps(next(found)))

    monkeypatch.setattr(race.os, "sched_getaffinity", lambda _: {0, 1, 2})
    monkeypatch.setattr(race.subprocess, "run", run)
    monkeypatch.setattr(servers, "HERE", Path("nowhere"))  # so that no loop is installed
    assert dict(race.without_server("digits", 7)) == {
        "session.run": {"images_per_core_s": 130, "slice_per_core_s": 140, "batch": 32}
    }


def test_what_a_core_can_do_is_held_at_the_size_that_was_fastest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[int, float]] = []

    def speed(_session: object, batch: int, _work: bare.Work, seconds: float) -> float:
        asked.append((batch, seconds))
        return 100.0 - abs(batch - 16) - len(asked) / 100  # slower by and by

    monkeypatch.setattr(bare, "images_per_core_s", speed)
    for name, value in (("SECONDS", "7"), ("MODEL", ""), ("LOCK", "")):
        monkeypatch.setenv(f"BENCH_{name}", value)  # those that are set are put back, too
    found = bare.fastest("standin", bare.run_alone)
    assert asked[-1] == (16, 7.0)
    assert {seconds for _, seconds in asked[:-1]} == {bare.SLICE_S}
    assert found["batch"] == 16
    assert found["images_per_core_s"] < found["slice_per_core_s"] == pytest.approx(99.95)


def test_ours_is_told_per_core_of_what_is_held_and_of_the_best_slice() -> None:
    found = {"images_per_core_s": 5000.0, "slice_per_core_s": 8000.0, "batch": 16.0}
    [line] = without_server(
        Race([lap("ours", 1000, 0.25)], {("standin", "loop"): [found, found]}, {})
    )
    assert "batches of 16: 5000 images/s per core" in line
    assert "0.80 at 8. Its best fifth of a second: 8000; ours per core: 0.50 at 8" in line


@pytest.mark.parametrize("server", [OURS, *PEERS], ids=lambda server: server.name)
def test_requests_are_whole(server: servers.Server) -> None:
    head, _, body = server.request(9, b"picture").partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == f"POST {server.path} HTTP/1.1"
    assert f"Content-Length: {len(body)}" in lines


def test_v2_requests_say_where_their_head_ends() -> None:
    body = servers.v2_binary(b"picture")
    head = json.loads(body.content[: int(body.headers["Inference-Header-Content-Length"])])
    assert head["inputs"][0]["parameters"]["binary_data_size"] == 4 + len(b"picture")


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"Content-Length: 5", b"abcde and more"),
        (b"Transfer-Encoding: chunked", b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"),
        (b"Connection: close", b"abcde"),
    ],
)
def test_client_reads_answers_of_all_frames(head: bytes, body: bytes) -> None:
    async def read() -> tuple[int, dict[str, str], bytes]:
        reader = asyncio.StreamReader()
        reader.feed_data(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + body)
        reader.feed_eof()
        return await read_answer(reader)

    status, _, content = asyncio.run(read())
    assert (status, content) == (200, b"abcde")


def test_hostile_bodies_come_again_by_their_seed() -> None:
    first, again = (list(hostile_bodies(OURS.body, 60)) for _ in range(2))
    assert first == again
    assert len({body.content for body in first}) > 40


@pytest.mark.parametrize("command", [[], ["race"], ["probes"], ["install"]])
def test_commands_have_help(command: list[str]) -> None:
    done = CliRunner().invoke(bench, [*command, "--help"])
    assert done.exit_code == 0, done.output


def test_bench_alone_is_the_race_with_its_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def run_race(chosen: list[servers.Server], *others: object) -> Race:
        asked.extend([[server.name for server in chosen], *others[:4]])
        return Race([], {}, {"ours": "does not serve"})

    monkeypatch.setattr(cli, "run_race", run_race)
    monkeypatch.setattr(cli, "find_wrk", lambda: "wrk")
    done = CliRunner().invoke(bench, [])
    assert asked == [list(servers.SERVERS), ("digits", "standin"), (1, 8, 32, 64), 5.0, 3]
    assert done.exit_code == 2
    assert "nothing was measured: ours: does not serve" in done.output


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["race", "--servers", "ours,ray"], "ray is not installed: dtn bench install ray"),
        (["probes", "--servers", "apache"], "'apache' is no server"),
        (["race", "--servers", "ours"], "wrk is not installed"),
        (["install", "apache"], "'apache' is no peer"),
    ],
)
def test_what_is_missing_is_told_in_a_line(
    arguments: list[str], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(servers, "HERE", tmp_path)  # nothing is installed there
    done = CliRunner().invoke(bench, arguments)
    assert done.exit_code == 2
    assert why in done.output
    assert done.output.count("\n") == 1
