"""`dtn train custom`: from two folders of pictures to an answer of the service."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image, ImageDraw

from service.app import create_app
from service.models import load_models
from service.server import listen, make_server
from service.settings import Settings
from tests.training.custom_folders import SHAPES, write_folders
from training import cli
from training.config import CustomConfig
from training.custom import class_weights, settled
from training.custom_metrics import nearest, two_sample
from training.run import open_run


def train(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.train, ["custom", *map(str, arguments)])


def usual(folder: Path, *more: str | Path) -> list[str | Path]:
    """The arguments of a run of seconds, with its run and its model in `folder`."""
    out = ("--out", folder / "run", "--export", folder / "models" / "custom")
    return [*out, "--steps", "6", "--batch", "8", "--device", "cpu", *more]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_folders(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def finished(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run with a labelled f, and of its model."""
    folder = tmp_path_factory.mktemp("custom")
    source, target = folders
    result = train(
        "--source", source, "--target", target, "--f", "labelled", "--f-steps", "8", *usual(folder)
    )
    assert result.exit_code == 0, result.output
    assert "dtn serve, then POST /transfer?model=custom" in result.output
    return folder


@contextmanager
def served(models: Path, folder: Path) -> Iterator[httpx.Client]:
    """The service in a thread, with the models of a directory, and a client of it."""
    settings = Settings(
        models=models,
        default_model="custom",
        device="cpu",
        threads=1,
        database_url=f"sqlite:///{folder}/persons.db",
    )
    server = make_server(create_app(settings))
    listener = listen("127.0.0.1", 0)
    thread = Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with httpx.Client(base_url=url, timeout=60) as client:
            for _ in range(600):
                if client.get("/health/ready").status_code == 200:
                    break
                time.sleep(0.1)
            yield client
    finally:
        server.should_exit = True
        thread.join()


def test_the_service_answers_without_a_line_of_code(finished: Path, tmp_path: Path) -> None:
    photo = BytesIO()
    Image.new("RGB", (90, 40), "navy").save(photo, "JPEG")
    with served(finished / "models", tmp_path) as client:
        answer = client.post(
            "/transfer?model=custom&distance=true", files={"file": photo.getvalue()}
        )
        cards = client.get("/models").json()
    assert answer.status_code == 200, answer.text
    assert answer.headers["X-Model"] == "custom@1"
    assert float(answer.headers["X-F-Distance"]) > 0
    picture = Image.open(BytesIO(answer.content))
    assert (picture.size, picture.mode) == ((32, 32), "L")
    assert "custom" in json.dumps(cards)


def test_report_and_metrics(finished: Path) -> None:
    record = json.loads((finished / "run" / "metrics.json").read_text())
    assert record["splits"] == {"s": 108, "t": 81, "s held out": 12, "t held out": 9}
    metrics = record["metrics"]
    shares = ("class_agreement", "label_agreement", "f_accuracy", "two_sample")
    assert all(0 <= metrics[name]["value"] <= 1 for name in shares)
    assert metrics["identity_error"]["n"] == 9
    page = (finished / "run" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert page.count("<polyline") == 4
    assert "http://" not in page
    assert "https://" not in page
    assert "src=" not in page.replace('src="data:', "")
    assert record["date"] in page


def test_neither_manifest_nor_card_tells_where_the_folders_are(
    finished: Path, folders: tuple[Path, Path]
) -> None:
    model = finished / "models" / "custom"
    for name in ("manifest.json", "CARD.md"):
        text = (model / name).read_text()
        assert str(folders[0].parent) not in text
        assert folders[1].name in text


def test_a_second_start_trains_nothing_and_says_the_same(
    finished: Path, folders: tuple[Path, Path]
) -> None:
    log = (finished / "run" / "log.jsonl").read_text()
    metrics = json.loads((finished / "run" / "metrics.json").read_text())["metrics"]
    source, target = folders
    again = usual(finished, "--f", "labelled", "--f-steps", "8")
    result = train("--source", source, "--target", target, *again)
    assert result.exit_code == 0, result.output
    assert (finished / "run" / "log.jsonl").read_text() == log
    assert json.loads((finished / "run" / "metrics.json").read_text())["metrics"] == metrics


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(
    finished: Path, folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = folders
    arguments = usual(tmp_path, "--f", "labelled", "--f-steps", "8")
    monkeypatch.setattr("training.loop.SAVE_EVERY", 3)
    with monkeypatch.context() as patch:
        patch.setattr("training.loop.save_grid", interrupted)
        result = train("--source", source, "--target", target, *arguments)
        assert isinstance(result.exception, KeyboardInterrupt) or result.exit_code != 0
    assert torch.load(tmp_path / "run" / "dtn.pt", weights_only=True)["step"] == 3
    assert train("--source", source, "--target", target, *arguments).exit_code == 0
    states = [
        torch.load(folder / "run" / "dtn.pt", weights_only=True) for folder in (finished, tmp_path)
    ]
    assert states[1]["step"] == 6
    for name, value in states[0]["average"].items():
        torch.testing.assert_close(value, states[1]["average"][name])


def interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


def test_dtn_export_writes_the_same_model_under_another_name(
    finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "mine@2"
    arguments = [str(finished / "run"), "--out", str(out), "--version", "2"]
    result = CliRunner().invoke(cli.export, arguments)
    assert result.exit_code == 0, result.output
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["name"], manifest["version"]) == ("mine", "2")
    assert load_models(tmp_path, "mine", "cpu", threads=1)


def test_colour_at_64_pixels_with_the_f_of_a_digits_run(
    folders: tuple[Path, Path], run: Any, trained: Any, tmp_path: Path
) -> None:
    source, target = folders
    more = usual(tmp_path, "--f", run.folder, "--size", "64", "--fit", "pad")
    result = train("--source", target, "--target", source, *more)
    assert result.exit_code == 0, result.output
    manifest = json.loads((tmp_path / "models" / "custom" / "manifest.json").read_text())
    assert manifest["output"]["shape"] == ["N", 64, 64, 3]
    assert isinstance(open_run(tmp_path / "run", "cpu").config, CustomConfig)


def few(folder: Path, n: int) -> Path:
    folder.mkdir(exist_ok=True)
    for i in range(n):
        Image.new("RGB", (20, 20), (i, 0, 0)).save(folder / f"{i}.png")
    return folder


def broken(folder: Path) -> Path:
    few(folder, 70)
    (folder / "7.png").write_bytes(b"no picture")
    return folder


def tiny(folder: Path) -> Path:
    few(folder, 70)
    Image.new("RGB", (5, 50)).save(folder / "7.png")
    return folder


BAD = {
    "nowhere": (lambda f: f / "nowhere", "labelled", "no folder"),
    "empty": (lambda f: few(f / "s", 0), "labelled", "has no picture"),
    "few": (lambda f: few(f / "s", 5), "labelled", "only 5 pictures"),
    "no classes": (lambda f: few(f / "s", 70), "labelled", "one per class"),
    "no f": (lambda f: few(f / "s", 70), "magic", "no f 'magic'"),
    "no file": (lambda f: few(f / "s", 70), "f.onnx", "no file"),
    "no run": (lambda f: few(f / "s", 70), "digits", "no f in runs/digits"),
    "no networks": (lambda f: few(f / "s", 70), "faces", "dtn data --packages"),
}


@pytest.mark.parametrize(("source", "f", "says"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line_and_exit_code_2(
    source: Any,
    f: str,
    says: str,
    folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("--source", source(tmp_path), "--target", folders[1], "--f", f)
    result = train(*arguments, *usual(tmp_path))
    assert result.exit_code == 2, result.output
    last = result.output.splitlines()[-1]
    assert says in last
    assert last.startswith("Error: ")
    assert not (tmp_path / "run").exists()  # the next start may name another f


@pytest.mark.parametrize(
    ("spoiled", "says"),
    [(broken, "1 of 70 pictures cannot be used"), (tiny, "5x50, less than 8 pixels")],
)
def test_pictures_that_cannot_be_used_are_named(
    spoiled: Any, says: str, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    target = spoiled(tmp_path / "t")
    more = usual(tmp_path, "--f", "labelled")
    result = train("--source", folders[0], "--target", target, *more)
    assert result.exit_code == 2, result.output
    assert says in result.output.splitlines()[-1]
    assert "7.png" in result.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("inner", ["", "triangle"])
def test_a_folder_inside_the_other_is_refused(
    inner: str, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    source, _ = folders
    result = train("--source", source, "--target", source / inner, "--f", "labelled")
    assert result.exit_code == 2
    assert "none inside the other" in result.output


def test_another_model_is_not_overwritten(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "models" / "custom").mkdir(parents=True)
    kept = tmp_path / "models" / "custom" / "manifest.json"
    kept.write_text('{"training": {"preset": "digits"}}')
    source, target = folders
    more = usual(tmp_path, "--f", "labelled")
    result = train("--source", source, "--target", target, *more)
    assert result.exit_code == 2
    assert "holds something else" in result.output
    assert "digits" in kept.read_text()


def test_changed_pictures_are_another_run(
    finished: Path, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    source, target = write_folders(tmp_path, seed=1)
    again = usual(finished, "--f", "labelled", "--f-steps", "8")
    result = train("--source", source, "--target", target, *again)
    assert result.exit_code == 2
    assert "another configuration" in result.output


def test_defaults_go_with_the_pictures(folders: tuple[Path, Path]) -> None:
    source, target = folders
    small = settled(source, target, "labelled", 32)
    assert (small.channels, small.batch, small.steps) == (1, 8, 1500)
    large = settled(source, target, "labelled", 128, batch=4, alpha=3.0)
    assert (large.batch, large.alpha, large.side) == (4, 3.0, 128)
    assert settled(target, source, "faces", 64).channels == 3


def test_custom_has_a_help_of_its_own() -> None:
    own = train("--help")
    assert own.exit_code == 0
    assert "--source" in own.output
    preset = CliRunner().invoke(cli.train, ["--help"])
    assert "--holdout" in preset.output
    assert "dtn train custom --help" in " ".join(preset.output.split())


def test_classes_are_drawn_in_the_shares_that_t_has() -> None:
    s = torch.eye(2)[[0, 0, 0, 1]]
    t = torch.eye(2)[[0, 1]]
    weights = class_weights(s, t)
    torch.testing.assert_close(weights, torch.tensor([2 / 3, 2 / 3, 2 / 3, 2.0]))


def test_two_sample_is_half_for_the_same_and_one_for_others() -> None:
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(400, 3, generator=random), torch.randn(400, 3, generator=random)
    assert abs(two_sample(x, y) - 0.5) < 0.06
    assert two_sample(x, y + 20) == 1


def test_nearest_tells_distance_and_place() -> None:
    distance, place = nearest(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([[3.0, 0.0]]))
    assert distance.tolist() == [3.0, 4.0]
    assert place.tolist() == [0, 0]


def test_example_folders(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.example.PRINTED", 20)
    arguments = ["--data", str(data), "--example", str(tmp_path)]
    result = CliRunner().invoke(cli.data, arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        str(tmp_path / name) for name in ("printed", "handwritten")
    ]
    printed = sorted((tmp_path / "printed").rglob("*.png"))
    assert [path.parent.name for path in printed] == [str(i // 2) for i in range(20)]
    pixels = np.asarray(Image.open(printed[0]))
    assert pixels.shape == (32, 32)
    assert pixels.max() > 200
    assert pixels.min() < 100
    assert len(list((tmp_path / "handwritten").glob("*.png"))) == 60  # all of the small MNIST


def test_shapes_are_drawn_apart() -> None:
    """The folders of these tests have something to learn."""
    drawn = []
    for name in SHAPES:
        image = Image.new("L", (40, 40))
        SHAPES[name](ImageDraw.Draw(image), (8, 8, 30, 30), 255)
        drawn.append(np.asarray(image))
    assert all((drawn[0] != other).mean() > 0.1 for other in drawn[1:])
