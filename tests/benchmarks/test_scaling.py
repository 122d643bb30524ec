"""dtn bench scaling: its name server, its arithmetic, and one short run of it all."""

import json
import os
import shutil
import socket
import struct
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks import scaling
from benchmarks.cli import bench
from benchmarks.names import answer, names
from benchmarks.replicas import on, places
from benchmarks.scaling_report import (
    BEGIN,
    END,
    cores_for,
    costs,
    lost,
    overhead_table,
    report,
    scaling_table,
    with_figures,
)

QUERY = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03api\x00\x00\x01\x00\x01"


def lap(**changes: Any) -> dict[str, Any]:
    usual = {
        **{"part": "overhead", "model": "digits", "place": "shared cores", "replicas": 1},
        **{"way": "direct", "connections": 8, "round": 0, "images_per_s": 100.0, "p50_ms": 2.0},
        **{"p99_ms": 9.0, "replica_us": 1000.0, "balancer_us": 50.0, "client_us": 30.0},
        **{"elsewhere": 0.0, "balancer_mb": 20.0, "failed": 0, "wrong": 0},
    }
    return usual | changes


def result(laps: list[dict[str, Any]]) -> dict[str, Any]:
    return {"command": "dtn bench", "surroundings": ["- here"], "haproxy": "HAProxy", "laps": laps}


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()[2:]]


def test_names_have_all_addresses() -> None:
    with names(["127.0.0.2", "127.0.0.3"]) as at:
        host, port = at.split(":")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(20)
            client.sendto(QUERY, (host, int(port)))
            told = client.recv(512)
    assert told[:2] == QUERY[:2]
    assert struct.unpack(">H", told[6:8]) == (2,)
    found = [told[-4:], told[-20:-16]]
    assert {socket.inet_ntoa(each) for each in found} == {"127.0.0.2", "127.0.0.3"}


def test_a_name_without_addresses_does_not_exist() -> None:
    assert answer(QUERY, [])[3] & 0x0F == 3  # NXDOMAIN
    of_type_aaaa = QUERY[:-4] + b"\x00\x1c\x00\x01"
    told = answer(of_type_aaaa, ["127.0.0.2"])
    assert (told[3] & 0x0F, struct.unpack(">H", told[6:8])) == (0, (0,))


def test_what_the_balancer_costs_is_of_rounds() -> None:
    speeds = {("direct", 0): 100, ("balancer", 0): 90, ("direct", 1): 200, ("balancer", 1): 160}
    laps = [
        lap(way=way, round=turn, images_per_s=float(speed), p50_ms=2.0 + (way == "balancer"))
        for (way, turn), speed in speeds.items()
        for _ in range(2)
    ]
    assert lost(laps) == pytest.approx([0.1, 0.2])
    ((model, place, *figures),) = cells(overhead_table(laps))
    assert (model, place) == ("digits", "shared cores")
    assert figures[1:6] == ["150", "125", "15.0%", "10.0% to 20.0%", "+1.00"]


def test_replicas_are_compared_with_one_asked_the_same_way() -> None:
    speeds = {1: (100.0, 50.0), 2: (190.0, 100.0)}
    laps = [
        lap(part="scaling", replicas=count, way=way, images_per_s=speed)
        for count, both in speeds.items()
        for way, speed in zip(("direct", "balancer"), both, strict=True)
    ]
    rows = {(row[1], row[2]): row[4] for row in cells(scaling_table(laps))}
    assert rows["direct", "2"] == "1.90"
    assert rows["balancer", "2"] == "2.00"
    assert rows["direct", "1"] == rows["balancer", "1"] == "1.00"


@pytest.mark.parametrize(
    ("rate", "us", "cores"), [(100, 1000, 1), (10_000, 1000, 17), (1, 1, 1), (600, 1000, 1)]
)
def test_cores_are_whole_and_not_too_busy(rate: float, us: float, cores: int) -> None:
    assert cores_for(rate, us) == cores


def test_sizing_takes_its_figures_from_what_was_measured() -> None:
    laps = [
        lap(part="core", model="/transfer", way="balancer", replica_us=1250.0),
        lap(part="core", model="/emoji", way="balancer", replica_us=100_000.0),
    ]
    assert costs(laps)["/emoji"].replica_us == 100_000
    text = with_figures(f"before\n{BEGIN}\nold\n{END}\nafter\n", result(laps))
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    rows = cells("\n".join(line for line in text.splitlines() if line.startswith("|")))
    assert {(row[0], row[2]) for row in rows} == {("/transfer", "800"), ("/emoji", "10")}
    a_day = next(row for row in rows if row[0] == "/emoji" and "a day" in row[1])
    assert (a_day[3], a_day[5]) == ("8", "192 x p")  # 46.3/s x 0.1 s / 0.6
    with pytest.raises(ValueError, match="no one place"):
        with_figures("nowhere", result(laps))
    with pytest.raises(ValueError, match="not measured"):
        with_figures(text, result([lap()]))


def test_sizing_has_a_place_for_its_figures() -> None:
    text = (Path(__file__).parents[2] / "docs" / "sizing.md").read_text()
    assert (text.count(BEGIN), text.count(END)) == (1, 1)


def test_a_place_is_left_as_it_was_found() -> None:
    before = os.sched_getaffinity(0)
    with on(places()[0].replicas):
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before


@pytest.mark.slow
def test_a_short_run_asks_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for program in ("wrk", "haproxy"):
        if not (shutil.which(program) or shutil.which(program, path="/usr/sbin")):
            pytest.skip(f"{program} is not installed")
    monkeypatch.setattr(scaling, "COUNTS", (1, 2))
    monkeypatch.setattr(scaling, "SCALED", {"standin": scaling.SCALED["standin"]})
    monkeypatch.setattr(scaling, "WARM_UP_S", 1.0)
    command = ["scaling", "--only", "scaling", "--seconds", "1", "--rounds", "1"]
    done = CliRunner().invoke(bench, [*command, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "SCALING.json").read_text())
    seen = [(each["replicas"], each["way"]) for each in result["laps"]]
    assert seen == [*product((1, 2), ("direct", "balancer"))]
    for each in result["laps"]:
        assert (each["failed"], each["wrong"]) == (0, 0)
        assert each["images_per_s"] > 0
        assert each["replica_us"] > 0
        assert (each["balancer_us"] > 0) >= (each["way"] == "balancer")
    assert (tmp_path / "SCALING.md").read_text() == report(result)
