"""The README: its snippets, run as they stand in a fresh copy of the tree, and its figures."""

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from service.settings import Settings, describe
from tests.snippets import (
    ROOT,
    RUN,
    blocks_of,
    clean_environment,
    run,
    text_of,
    write_pictures,
    write_programs,
)

README = text_of("README.md")
INSTALL_S = 600
SERVERS = {  # in RESULTS.md, and as the README calls them
    "ours": "this service",
    "mosec": "mosec, tuned, with OpenCV",
    "torchserve": "TorchServe",
    "pytriton": "Triton by pytriton",
    "mlserver": "MLServer",
    "litserve": "LitServe",
    "fastapi": "FastAPI as tutorials have it",
    "ray": "Ray Serve",
    "bentoml": "BentoML",
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone of the tree as it stands would hold."""
    folder = tmp_path_factory.mktemp("clone")
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    write_pictures(folder)
    write_programs(folder / ".programs")
    return folder


@pytest.fixture(scope="module")
def server(copy: Path) -> Iterator[str]:
    """`make serve` in the copy, in an environment of its own: the server's address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    base = sys._base_executable  # type: ignore[attr-defined]
    database = f"sqlite:///{copy.parent / 'dtn.db'}"  # not that of whoever runs the tests
    environment = clean_environment() | {"DTN_DATABASE_URL": database}
    process = subprocess.Popen(
        ["make", "serve", f"PORT={port}", f"PYTHON={base}"], cwd=copy, env=environment
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(INSTALL_S * 2):
            assert process.poll() is None, "make serve has ended"
            try:
                if httpx.get(f"{url}/health/ready").status_code == httpx.codes.OK:
                    break
            except httpx.ConnectError:
                pass
            time.sleep(0.5)
        else:
            pytest.fail("make serve is not ready in time")
        yield url
    finally:
        process.terminate()
        process.wait(30)


def image(path: Path) -> tuple[str | None, tuple[int, int]]:
    with Image.open(path) as picture:
        return picture.format, picture.size


@pytest.mark.slow
def test_snippets_do_what_the_readme_says(server: str, copy: Path) -> None:
    """As they stand, in a clone, with the environment that make serve has made."""
    asking, python, without_server = blocks_of("README.md", *RUN)
    programs = copy / ".programs"
    run(asking, server, copy, programs)
    assert image(copy / "emoji.png") == ("PNG", (256, 256))
    assert image(copy / "best.png") == ("PNG", (256, 256))
    with Image.open(copy / "digit.png") as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "L", (32, 32))
        pixels = picture.tobytes()
    printed = run(python, server, copy, programs)
    assert printed.startswith("emoji@")
    assert image(copy / "emoji.png") == ("PNG", (512, 512))
    written = run(without_server, server, copy, programs).split("\t")[0]
    with Image.open(copy / written) as picture:
        assert picture.tobytes() == pixels


@pytest.mark.slow
def test_the_page_is_where_the_readme_says(server: str) -> None:
    page = httpx.get(server)
    assert page.status_code == httpx.codes.OK
    assert page.headers["Content-Type"].startswith("text/html")


def test_two_commands() -> None:
    commands = [line.split("#")[0].split() for line in blocks_of("README.md")[0].text.splitlines()]
    assert commands == [["make", "serve"], ["make", "test"]]


def test_the_first_screen() -> None:
    """The picture, the commands and the address are within what a screen shows."""
    first = "\n".join(README.splitlines()[:20])
    for wanted in ("(docs/emoji.png)", "make serve", "http://127.0.0.1:8000"):
        assert wanted in first


def test_every_setting_is_listed() -> None:
    """Their meanings are in docs/operations.md: test_docs."""
    for name, field in Settings.model_fields.items():
        variable = describe(name, field)[0].split()[0]
        assert f"`{variable}`" in README


def test_no_setting_is_made_up() -> None:
    known = {describe(name, field)[0].split()[0] for name, field in Settings.model_fields.items()}
    assert set(re.findall(r"DTN_\w+", README)) <= known


def test_figures_are_the_manifest_s() -> None:
    manifest = json.loads((ROOT / "models/digits/manifest.json").read_text())
    for name in ("transfer_accuracy", "f_accuracy", "f_accuracy_on_t", "judge_accuracy"):
        metric = manifest["metrics"][name]
        assert (
            f"| {100 * metric['value']:.2f} % | `{metric['split']}` ({metric['n']:,}) |" in README
        )


def test_figures_over_seeds_are_those_reproduced() -> None:
    reproduced = (ROOT / "REPRODUCTION.md").read_text()
    found = re.findall(r"\d+\.\d+ % ± \d+\.\d+", README)
    assert found
    for figure in found:
        assert f"| {figure} |" in reproduced


def test_figures_of_faces_are_the_manifest_s() -> None:
    metrics = json.loads((ROOT / "models/emoji/manifest.json").read_text())["metrics"]
    for judge in ("MobileFaceNet", "faceres"):
        assert f"judged by {judge}" in README
        for size in ("", "_at_256"):
            name = f"{size}_{judge}"
            rank, share = (metrics[f"median_rank{kind}{name}"]["value"] for kind in ("", "_share"))
            assert f"| {rank:g} ({share:.1%}) |".replace("%)", " %)") in README
        assert f", {judge} | {metrics[f'lookup_median_rank_{judge}']['value']:g} |" in README
    for whose in ("chosen", "any"):
        shares = (
            metrics[f"median_rank_share_of_{whose}_{judge}"]["value"]
            for judge in ("MobileFaceNet", "faceres")
        )
        assert "| " + " and ".join(f"{100 * share:.1f} %" for share in shares) + " |" in README
    for kind in ("skin", "hair"):
        assert (
            f"| {kind}, Spearman of L* between photo and emoji | "
            f"{metrics[f'{kind}_spearman']['value']:.2f} |" in README
        )


def test_figures_of_the_race_are_those_measured() -> None:
    """The README's table of servers against benchmarks/serving/RESULTS.md, at 64 connections."""
    results = (ROOT / "benchmarks/serving/RESULTS.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in results.splitlines()]
    measured = {
        (row[0], row[2]): (f"{int(row[3]):,}", f"{float(row[7]):,}")
        for row in rows
        if len(row) == 12 and row[1] == "64"
    }
    servers = {name for _, name in measured}
    assert servers == SERVERS.keys()
    for name, shown in SERVERS.items():
        pictures, slowest = measured["standin", name]
        digits, _ = measured["digits", name]
        assert f"| {shown} | {pictures} | {slowest} | {digits} |" in README


def test_results_have_a_place() -> None:
    assert README.count("<!-- results -->") == 1
