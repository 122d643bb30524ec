import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import service
from service import cli
from service.emoji import draw_emoji, sized
from service.models import Model, Models
from service.serve_command import load_early
from service.settings import Settings
from tests.service.dummy import SIDE, encoded
from tests.service.dummy_faces import photo_of

Dtn = Callable[..., Result]


@pytest.fixture
def dtn(models_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Dtn:
    """Runs the command line in an empty directory, with the tests' models."""
    monkeypatch.setenv("DTN_MODELS", str(models_dir))
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(cli.main, [str(a) for a in arguments])


@pytest.fixture
def photos(tmp_path: Path, photo: bytes) -> list[Path]:
    paths = [tmp_path / "one.png", tmp_path / "two.jpg"]
    for path in paths:
        path.write_bytes(photo)
    return paths


def refused(result: Result, reason: str) -> None:
    """Exit code 2 and one line that says why."""
    assert result.exit_code == 2
    assert reason in result.stderr
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1


def test_the_version_is_told(dtn: Dtn) -> None:
    assert dtn("--version").stdout == f"dtn, version {service.__version__}\n"


def test_help_lists_every_command(dtn: Dtn) -> None:
    listed = dtn("--help").stdout
    for name in ("serve", "transfer", "train", "evaluate"):
        assert f"\n  {name} " in listed


def test_help_of_serve_lists_every_setting(dtn: Dtn) -> None:
    listed = dtn("serve", "--help").stdout
    for name in Settings.model_fields:
        assert f"\n  DTN_{name.upper()} " in listed
    assert "auto|cpu|cuda" in listed
    assert "[default: 20971520]" in " ".join(listed.split())


def test_an_unknown_command_is_refused(dtn: Dtn) -> None:
    result = dtn("fly")
    assert result.exit_code == 2
    assert "No such command 'fly'" in result.stderr


# dtn serve


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("DTN_PORT", "x", "DTN_PORT: Input should be a valid integer"),
        ("DTN_DEVICE", "tpu", "DTN_DEVICE: Input should be 'auto', 'cpu' or 'cuda'"),
        ("DTN_DEVICE", "cuda", "DTN_DEVICE=cuda: this onnxruntime has no CUDA"),
        ("DTN_MODELS", "nowhere", "no models: nowhere: No such file"),
        ("DTN_MODELS", ".", "no models in ."),
        ("DTN_DEFAULT_MODEL", "nobody", "no model 'nobody'"),
        ("DTN_HOST", "192.0.2.1", "cannot listen on 192.0.2.1"),
        ("DTN_DATABASE_URL", "mysql://user:hush@host/db", "DTN_DATABASE_URL: sqlite:///FILE or"),
        ("DTN_DATABASE_URL", "dtn.db", "DTN_DATABASE_URL is no URL of a database"),
    ],
)
def test_serve_refuses_settings_in_one_line(
    dtn: Dtn, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, reason: str
) -> None:
    monkeypatch.setenv(variable, value)
    refused(dtn("serve"), reason)


def test_serve_refuses_an_option_out_of_bounds(dtn: Dtn) -> None:
    refused(dtn("serve", "--port", 65536), "DTN_PORT: Input should be less than or equal to 65535")


def test_serve_refuses_a_changed_graph(
    dtn: Dtn, make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_model()
    monkeypatch.setenv("DTN_MODELS", str(folder.parent))
    (folder / "model.onnx").write_bytes(b"changed")
    refused(dtn("serve"), "the manifest says")


def test_serve_ends_with_the_reason_where_warm_up_fails(make_model: Callable[..., Path]) -> None:
    folder = make_model(output={"name": "y", "dtype": "uint8", "shape": ["N", 64, 64, 1]})
    result = subprocess.run(
        [sys.executable, "-m", "service", "serve", "--port", "0"],
        env=os.environ | {"DTN_MODELS": str(folder.parent), "DTN_LOG_LEVEL": "error"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr.startswith("Error: digits@1: warm-up with 32 x 32 pixels: answers")
    assert result.stderr.count("\n") == 1


def test_models_are_warmed_up_while_the_server_is_imported(models_dir: Path) -> None:
    loaded = load_early(Settings(models=models_dir))
    models = list(loaded.result())
    until = time.monotonic() + 30
    while not all(model.warm for model in models) and time.monotonic() < until:
        time.sleep(0.01)
    assert len(models) > 1
    assert all(model.warm for model in models)


# dtn transfer


def test_transfer_writes_what_the_model_makes(
    dtn: Dtn, models_dir: Path, photos: list[Path], tmp_path: Path
) -> None:
    result = dtn("transfer", *photos, "-o", tmp_path / "new" / "out")
    assert result.exit_code == 0
    written = [tmp_path / "new" / "out" / f"{stem}-digits.png" for stem in ("one", "two")]
    assert result.stdout.splitlines() == [str(path) for path in written]
    x = np.asarray(Image.open(photos[0]))[np.newaxis]
    y, _ = Model(models_dir / "digits")(x)
    for path in written:
        with Image.open(path) as picture:
            assert np.array_equal(np.asarray(picture), y[0, :, :, 0])


def test_transfer_has_options_as_the_service_has(dtn: Dtn, photos: list[Path]) -> None:
    result = dtn("transfer", photos[0], "--model", "plain@1", "--format", "webp")
    assert result.exit_code == 0
    assert result.stdout == "one-plain.webp\n"
    with Image.open("one-plain.webp") as picture:
        assert (picture.format, picture.size) == ("WEBP", (SIDE, SIDE))


def test_transfer_tells_the_distance(dtn: Dtn, models_dir: Path, photos: list[Path]) -> None:
    x = np.asarray(Image.open(photos[0]))[np.newaxis]
    (expected,) = Model(models_dir / "digits")(x, distance=True)[1]
    path, told = dtn("transfer", photos[0], "--distance").stdout.rstrip("\n").split("\t")
    assert path == "one-digits.png"
    assert float(told) == pytest.approx(expected, rel=1e-5)


def test_transfer_reports_a_bad_photo_and_does_the_others(dtn: Dtn, photos: list[Path]) -> None:
    bad = photos[0].with_name("bad.png")
    bad.write_text("text")
    result = dtn("transfer", bad, *photos, "missing.png")
    assert result.exit_code == 2
    assert result.stdout.splitlines() == ["one-digits.png", "two-digits.png"]
    assert result.stderr.splitlines() == [
        f"Error: {bad}: the upload is not a picture",
        "Error: missing.png: No such file or directory",
    ]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["one.png", "--model", "nobody"], "no model 'nobody' in"),
        (["one.png", "--model", "digits@2"], "no such model; there is: digits@1"),
        (["one.png", "other/one.jpg"], "would overwrite each other"),
        (["one.png", "-o", "two.jpg/out"], "two.jpg/out: Not a directory"),
        (["one.png", "one-digits.png"], "one-digits.png is one of the photos"),
        (["one.png", "link-digits.png"], ""),
        (["one.png", "--person", "--model", "plain"], "--person: plain@1 is no model of faces"),
        (["person-emoji.png", "one.png", "--person"], "person-emoji.png is one of the photos"),
    ],
)
@pytest.mark.usefixtures("photos")
def test_transfer_refuses_in_one_line(dtn: Dtn, arguments: list[str], reason: str) -> None:
    if not reason:
        Path("one-digits.png").symlink_to("link-digits.png")
        reason = "one-digits.png is one of the photos"
    refused(dtn("transfer", *arguments), reason)


def test_transfer_refuses_a_distance_that_the_model_does_not_have(
    dtn: Dtn, photos: list[Path]
) -> None:
    result = dtn("transfer", photos[0], "--model", "plain", "--distance")
    refused(result, "plain@1 has no distance graph")


# dtn transfer with a model of faces


@pytest.fixture
def faces(tmp_path: Path) -> list[Path]:
    """Three photos, of which the second has the smallest distance."""
    paths = []
    for name, grey in (("far", 160), ("near", 100), ("farther", 200)):
        paths.append(tmp_path / f"{name}.png")
        paths[-1].write_bytes(encoded(photo_of((60, 80, 120, "red"), grey=grey)))
    return paths


def test_transfer_draws_faces_as_the_service_does(
    dtn: Dtn, models: Models, faces: list[Path]
) -> None:
    result = dtn("transfer", *faces[:2], "--model", "emoji", "--size", 128)
    assert result.exit_code == 0
    told = [line.split("\t") for line in result.stdout.splitlines()]
    assert [path for path, _ in told] == ["far-emoji.png", "near-emoji.png"]
    model = models.find("emoji")
    for photo, (path, distance) in zip(faces, told, strict=False):
        emoji = draw_emoji(photo.read_bytes(), model, max_pixels=10**7)
        assert float(distance) == pytest.approx(emoji.f_distance, rel=1e-5)
        with Image.open(path) as picture:
            assert np.array_equal(np.asarray(picture), sized(emoji.y, 128, model))


def test_transfer_keeps_the_best_emoji_of_a_person(
    dtn: Dtn, models: Models, faces: list[Path]
) -> None:
    result = dtn("transfer", "--person", *faces, "-o", "out")
    assert result.exit_code == 0
    *photos, written = result.stdout.splitlines()
    assert written == "out/person-emoji.png"
    assert [line.split("\t")[0] for line in photos] == [str(path) for path in faces]
    assert [line.split("\t")[2:] for line in photos] == [[], ["chosen"], []]
    distances = [float(line.split("\t")[1]) for line in photos]
    assert distances[1] == min(distances)
    model = models.find("emoji")
    emoji = draw_emoji(faces[1].read_bytes(), model, max_pixels=10**7)
    with Image.open(written) as picture:
        assert np.array_equal(np.asarray(picture), sized(emoji.y, 256, model))
    assert len(list(Path("out").iterdir())) == 1


def test_transfer_of_a_person_reports_a_bad_photo_and_goes_on(dtn: Dtn, faces: list[Path]) -> None:
    none = faces[0].with_name("none.png")
    none.write_bytes(encoded(photo_of()))
    result = dtn("transfer", "--person", none, faces[0])
    assert result.exit_code == 2
    assert "none.png: no face was found" in result.stderr
    assert result.stdout.splitlines()[0].endswith("\tchosen")
    assert result.stdout.splitlines()[1] == "person-emoji.png"
    result = dtn("transfer", "--person", none)
    assert (result.exit_code, result.stdout) == (2, "")


def test_transfer_of_a_person_wants_the_emoji_model(
    dtn: Dtn, faces: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DTN_EMOJI_MODEL", "nobody")
    refused(dtn("transfer", "--person", faces[0]), "no model 'nobody' in")


def test_transfer_tells_where_it_cannot_write(dtn: Dtn, faces: list[Path]) -> None:
    Path("person-emoji.png").mkdir()
    result = dtn("transfer", "--person", faces[0])
    assert result.exit_code == 2
    assert result.stderr == "Error: person-emoji.png: Is a directory\n"


def test_transfer_wants_a_photo(dtn: Dtn) -> None:
    assert dtn("transfer").exit_code == 2


# Commands of other packages


class Point:
    """An entry point of the group dtn.commands."""

    def __init__(self, name: str, module: str, attr: str) -> None:
        self.name, self.module, self.attr = name, module, attr


def register(monkeypatch: pytest.MonkeyPatch, *points: Point) -> None:
    monkeypatch.setattr(cli, "entry_points", lambda group: points)


def test_a_registered_command_is_found(dtn: Dtn, monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command
    def hello() -> None:
        click.echo("hello")

    monkeypatch.setattr(service, "hello", hello, raising=False)
    register(monkeypatch, Point("hello", "service", "hello"))
    assert dtn("hello").stdout == "hello\n"
    assert "hello" in dtn("--help").stdout


@pytest.mark.parametrize(
    ("module", "attr", "reason"),
    [
        ("not_installed", "train", 'pip install "dtn[training]" (No module named'),
        ("service", "train", "'broken' is missing from service"),
        ("service", "__version__", "service:__version__ is no command"),
    ],
)
def test_a_command_that_cannot_be_loaded_is_refused_in_one_line(
    dtn: Dtn, monkeypatch: pytest.MonkeyPatch, module: str, attr: str, reason: str
) -> None:
    register(monkeypatch, Point("broken", module, attr))
    refused(dtn("broken"), reason)
    assert "broken" in dtn("--help").stdout


def test_a_registered_command_cannot_replace_an_own_one(
    dtn: Dtn, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, Point("serve", "not_installed", "serve"))
    assert "DTN_PORT" in dtn("serve", "--help").stdout
