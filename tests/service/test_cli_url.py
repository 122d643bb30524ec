"""dtn transfer and dtn models, asking a service: nothing is loaded here."""

import json
import os
import select
import subprocess
import sys
import termios
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from service import cli
from service.models import Models
from tests.service.dummy import encoded
from tests.service.dummy_faces import photo_of
from tests.service.test_commands import refused

Dtn = Callable[..., Result]
OpenServer = Callable[..., AbstractContextManager[httpx.Client]]
RED = (60, 80, 120, "red")


@pytest.fixture
def url(client: httpx.Client) -> str:
    return str(client.base_url)


@pytest.fixture
def dtn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Dtn:
    """Runs the command line in an empty directory, where there are no models."""
    monkeypatch.setenv("DTN_MODELS", "nowhere")
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(cli.main, [str(a) for a in arguments])


@pytest.fixture
def photos(tmp_path: Path, photo: bytes) -> list[Path]:
    paths = [tmp_path / "one.png", tmp_path / "two.png"]
    for path in paths:
        path.write_bytes(photo)
    return paths


@pytest.fixture
def faces(tmp_path: Path) -> list[Path]:
    """Three photos, of which the second has the smallest distance."""
    paths = []
    for name, grey in (("far", 160), ("near", 100), ("farther", 200)):
        paths.append(tmp_path / f"{name}.png")
        paths[-1].write_bytes(encoded(photo_of(RED, grey=grey)))
    return paths


def lines_of(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def both(dtn: Dtn, models_dir: Path, url: str, *arguments: object) -> Result:
    """What the command says with --url, which is what it says with the models at hand."""
    there = dtn("transfer", *arguments, "-o", "out", "--url", url)
    written = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DTN_MODELS", str(models_dir))
        here = dtn("transfer", *arguments, "-o", "out")
    assert (there.exit_code, there.stdout) == (here.exit_code, here.stdout)
    assert there.stderr == here.stderr
    assert written == {path.name: path.read_bytes() for path in Path("out").iterdir()}
    return there


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--distance"],
        ["--model", "plain@1", "--format", "webp"],
        ["--json"],
        ["--json", "--distance"],
    ],
)
def test_a_service_gives_what_models_here_give(
    dtn: Dtn, models_dir: Path, url: str, photos: list[Path], options: list[str]
) -> None:
    assert both(dtn, models_dir, url, *photos, *options).exit_code == 0


@pytest.mark.parametrize(
    "options", [["--model", "emoji", "--size", "64"], ["--person"], ["--person", "--json"]]
)
def test_faces_are_drawn_and_chosen_as_here(
    dtn: Dtn, models_dir: Path, url: str, faces: list[Path], options: list[str]
) -> None:
    assert both(dtn, models_dir, url, *faces, *options).exit_code == 0


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_bad_photos_are_told_as_here(
    dtn: Dtn, models_dir: Path, url: str, photos: list[Path], options: list[str]
) -> None:
    photos[0].write_text("text")
    result = both(dtn, models_dir, url, *photos, "missing.png", *options)
    assert result.exit_code == 2
    if options:
        assert [each["status"] for each in lines_of(result)] == ["not_an_image", "ok", "unreadable"]
        assert result.stderr == ""


def test_json_tells_all_that_is_known(dtn: Dtn, url: str, faces: list[Path]) -> None:
    (told,) = lines_of(dtn("transfer", faces[0], "--model", "emoji", "--url", url, "--json"))
    assert told.pop("f_distance") > 0
    assert told == {
        "photo": str(faces[0]),
        "status": "ok",
        "face": {"box": [60, 80, 120, 120], "score": 0.75, "count": 1},
        "file": "far-emoji.png",
        "model": "emoji@1",
    }


def test_a_person_is_chosen_without_anything_kept(
    dtn: Dtn, url: str, client: httpx.Client, faces: list[Path]
) -> None:
    *told, last = lines_of(dtn("transfer", *faces, "--person", "--url", url, "--json"))
    assert [each["chosen"] for each in told] == [False, True, False]
    assert last["file"] == "person-emoji.png"
    assert client.get("/persons/person").status_code == 404


def test_a_person_is_kept_where_that_is_asked_for(
    dtn: Dtn, url: str, client: httpx.Client, faces: list[Path], person: str
) -> None:
    ask = ("--url", url, "--keep-as", person)
    *told, last = dtn("transfer", *faces[:2], *ask).stdout.splitlines()
    assert [line.split("\t")[2:] for line in told] == [[], ["chosen"]]
    assert last == f"{person}-emoji.png"
    first = Path(last).read_bytes()
    kept = client.get(f"/persons/{person}/emoji").content
    assert first == kept
    # A worse one later: what was kept stays, and is written.
    *told, last = dtn("transfer", faces[2], *ask).stdout.splitlines()
    assert [line.split("\t")[2:] for line in told] == [[]]
    assert Path(last).read_bytes() == first


def test_a_person_none_of_whose_photos_can_be_used_is_told(
    dtn: Dtn, url: str, tmp_path: Path, person: str
) -> None:
    none = tmp_path / "none.png"
    none.write_bytes(encoded(photo_of()))
    refused(dtn("transfer", none, "--url", url, "--keep-as", person), "no face was found")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--model", "nobody"], "no model 'nobody' is served; there is: "),
        (["--model", "digits@9"], "no model 'digits@9' is served"),
        (["--person", "--model", "plain"], "--person: plain@1 is no model of faces"),
        (["--keep-as", "a/b"], "a person's id is"),
        (["--concurrency", "0"], "0 is not in the range"),
        (["--api-key", ""], "the API key is empty"),
        (["-o", "one.png/out"], "Not a directory"),
    ],
)
@pytest.mark.usefixtures("photos")
def test_misuse_is_one_line(dtn: Dtn, url: str, arguments: list[str], reason: str) -> None:
    refused(dtn("transfer", "one.png", "--url", url, *arguments), reason)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--url", "http://127.0.0.1:1"], "http://127.0.0.1:1 cannot be reached"),
        (["--url", "localhost:8000"], "a URL looks like http://127.0.0.1:8000"),
        (["--keep-as", "ann"], "--keep-as needs --url"),
    ],
)
@pytest.mark.usefixtures("photos")
def test_no_service_is_one_line(dtn: Dtn, arguments: list[str], reason: str) -> None:
    refused(dtn("transfer", "one.png", *arguments), reason)


def test_a_key_is_taken_from_the_environment(
    dtn: Dtn, open_server: OpenServer, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_server(api_keys="secret") as server:
        ask = ("transfer", photos[0], "--url", server.base_url)
        refused(dtn(*ask), "give --api-key or set DTN_API_KEY")
        assert dtn(*ask, "--api-key", "secret").exit_code == 0
        monkeypatch.setenv("DTN_API_KEY", "secret")
        assert dtn(*ask).exit_code == 0


PROGRAM = """
import sys
for name in ("onnxruntime", "fastapi", "starlette", "uvicorn", "sqlalchemy", "torch", "numpy"):
    sys.modules[name] = None  # makes an import of it fail
from service.cli import main
main({arguments}, prog_name="dtn")
"""


def test_asking_a_service_needs_nothing_of_it(
    url: str, photos: list[Path], tmp_path: Path, models: Models
) -> None:
    arguments = ["transfer", *map(str, photos), "--url", url, "-o", str(tmp_path / "out")]
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(arguments=arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")  # no terminal, no bar
    x = np.asarray(Image.open(photos[0]))[np.newaxis]
    y, _ = models.find("digits")(x)
    for line in result.stdout.splitlines():
        with Image.open(line) as picture:
            assert np.array_equal(np.asarray(picture), y[0, :, :, 0])


def test_a_terminal_gets_a_bar_and_stdout_does_not(url: str, photos: list[Path]) -> None:
    ours, its = os.openpty()
    termios.tcsetwinsize(its, (24, 100))
    try:
        result = subprocess.run(
            [sys.executable, "-m", "service", "transfer", *map(str, photos), "--url", url],
            cwd=photos[0].parent,
            env=os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])},
            stdout=subprocess.PIPE,
            stderr=its,
            text=True,
            check=True,
        )
        told = b""
        while select.select([ours], [], [], 0)[0]:
            told += os.read(ours, 65536)
    finally:
        os.close(ours)
        os.close(its)
    assert result.stdout == "one-digits.png\ntwo-digits.png\n"
    assert b"2/2" in told


# dtn models


def test_models_here_and_there_are_the_same(
    dtn: Dtn, url: str, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = dtn("models", "--url", url), dtn("models", "--url", url, "--json")
    monkeypatch.setenv("DTN_MODELS", str(models_dir))
    here = dtn("models"), dtn("models", "--json")
    for asked, loaded in zip(there, here, strict=True):
        assert (
            (asked.exit_code, asked.stdout)
            == (loaded.exit_code, loaded.stdout)
            == (
                0,
                loaded.stdout,
            )
        )
    text = here[0].stdout.splitlines()
    assert [line.split("\t")[0] for line in text] == ["digits@1", "emoji@1", "plain@1"]
    assert [line.endswith(", the default") for line in text] == [True, False, False]
    assert [each["model"] for each in lines_of(here[1])] == ["digits@1", "emoji@1", "plain@1"]


def test_models_that_cannot_be_served_are_one_line(dtn: Dtn) -> None:
    refused(dtn("models"), "no models: nowhere: No such file")
    refused(dtn("models", "--url", "http://127.0.0.1:1"), "cannot be reached")
