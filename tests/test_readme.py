"""The README's commands and snippets, run as they stand in a fresh copy of the tree."""

import json
import os
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

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
INSTALL_S = 600


def blocks(language: str) -> list[str]:
    """The code blocks of a language, as text."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def clean_environment() -> dict[str, str]:
    """The environment without this test run's virtual environment and settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DTN_", "VIRTUAL_ENV"))}
    return kept | {"PYTHONWARNINGS": ""}


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
    return folder


@pytest.fixture(scope="module")
def server(copy: Path) -> Iterator[str]:
    """`make serve` in the copy, in an environment of its own: the server's address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    base = sys._base_executable  # type: ignore[attr-defined]
    process = subprocess.Popen(
        ["make", "serve", f"PORT={port}", f"PYTHON={base}"], cwd=copy, env=clean_environment()
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


def shell(command: str, folder: Path) -> str:
    """The standard output of a command that succeeds."""
    result = subprocess.run(
        ["bash", "-euc", command],
        cwd=folder, env=clean_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
def test_commands_do_what_the_readme_says(server: str, copy: Path) -> None:
    commands, as_file, as_webp, as_json, without_server = blocks("bash")
    assert commands.startswith("make serve ") and "\nmake test " in commands
    shell(as_file.replace("http://127.0.0.1:8000", server), copy)
    with Image.open(copy / "digit.png") as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "L", (32, 32))
        pixels = picture.tobytes()
    shell(as_webp.replace("http://127.0.0.1:8000", server), copy)
    with Image.open(copy / "digit.webp") as webp:
        assert webp.format == "WEBP"
    answer = json.loads(shell(as_json.replace("http://127.0.0.1:8000", server), copy))
    assert (answer["model"], answer["width"], answer["height"]) == ("digits@1", 32, 32)
    assert answer["f_distance"] > 0
    written = shell(without_server, copy).split("\t")[0]
    with Image.open(copy / written) as picture:
        assert picture.tobytes() == pixels


@pytest.mark.slow
def test_the_python_snippet(server: str, copy: Path) -> None:
    (snippet,) = blocks("python")
    result = subprocess.run(
        [sys.executable, "-c", snippet.replace("http://127.0.0.1:8000", server)],
        cwd=copy, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("digits@1 ")


def test_every_setting_is_listed() -> None:
    for name, field in Settings.model_fields.items():
        variable = describe(name, field)[0].split()[0]
        assert f"| `{variable}` | {field.description} |" in README


def test_figures_are_the_manifest_s() -> None:
    manifest = json.loads((ROOT / "models/digits/manifest.json").read_text())
    for name in ("transfer_accuracy", "f_accuracy", "f_accuracy_on_t", "judge_accuracy"):
        metric = manifest["metrics"][name]
        assert (
            f"| {100 * metric['value']:.2f} % | `{metric['split']}` ({metric['n']:,}) |" in README
        )


def test_figures_of_faces_are_the_manifest_s() -> None:
    metrics = json.loads((ROOT / "models/emoji/manifest.json").read_text())["metrics"]
    for judge in ("MobileFaceNet", "faceres"):
        rank, share = (metrics[f"median_rank{kind}_{judge}"]["value"] for kind in ("", "_share"))
        assert f"judged by {judge}" in README
        assert f"| {rank:g} ({share:.1%}) |".replace("%)", " %)") in README
        assert f", {judge} | {metrics[f'lookup_median_rank_{judge}']['value']:g} |" in README
    for kind in ("skin", "hair"):
        assert (
            f"| {kind}, Spearman of L* between photo and emoji | "
            f"{metrics[f'{kind}_spearman']['value']:.2f} |" in README
        )


def test_training_commands_exist() -> None:
    commands = re.findall(r"^\.venv/bin/dtn (\w+) (.*?)(?:  +#.*)?$", README, re.MULTILINE)
    assert {name for name, _ in commands} == {
        "data", "train", "evaluate", "figures", "upscaler", "export"
    }  # fmt: skip
    for name, arguments in commands:
        result = subprocess.run(
            [sys.executable, "-m", "service", name, "--help"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        for option in re.findall(r"--\w+", arguments):
            assert option in result.stdout
