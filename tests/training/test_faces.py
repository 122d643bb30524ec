"""A faces run on faces, artwork and weights made here: trained, resumed, measured, exported."""

import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from service.manifest import Manifest
from tests.training.small import write_artwork, write_faces, write_resnet29
from training import cli
from training.config import FacesConfig, preset
from training.face_domains import draw_avatars, face_domains, shrunk, source
from training.face_evaluate import emoji
from training.face_export import export_faces
from training.face_features import APPEARANCE, COLOURS, FaceFeatures
from training.faces import (
    WEIGHTS,
    TrainedFaces,
    evening_weights,
    exaggerated,
    faces_config,
    finish_of,
    load_faces,
    train_faces,
)
from training.glasses import teach_glasses
from training.likeness import KINDS
from training.paper_commands import evaluate
from training.recognisers import Recogniser
from training.resnet29 import FEATURES
from training.run import Run
from training.upscaler import Training, Upscaler, UpscalerConfig, export_upscaler


@pytest.fixture(scope="module")
def config() -> FacesConfig:
    smoke = preset("faces_smoke", steps=4, avatars=24, tid_first=1)
    assert isinstance(smoke, FacesConfig)
    return smoke


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_faces(folder / "faces", "lfw", [f"Person_{i // 4}" for i in range(32)])
    for seed, name in enumerate(("generated", "fake", "london"), 1):
        people = [f"{i // 2:03}" if name == "london" else "" for i in range(6)]
        write_faces(folder / "faces", name, people, seed)
    write_resnet29(folder / "networks" / WEIGHTS)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs whose cache holds the artwork, so that npm is not asked for it."""
    folder = tmp_path_factory.mktemp("runs")
    write_artwork(folder / "artwork")
    return folder


@pytest.fixture(autouse=True)
def no_npm(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.face_domains.obtain", lambda *_: [runs / "artwork" / "svgs.js"])


@pytest.fixture(scope="module")
def run(config: FacesConfig, runs: Path) -> Run:
    return Run(runs / "smoke", "faces_smoke", config)


@pytest.fixture
def trained(run: Run, data: Path) -> TrainedFaces:
    return train_faces(run, data)


def test_a_run_leaves_what_it_made(trained: TrainedFaces, run: Run) -> None:
    assert (run.folder / "grid-000004.png").exists()
    assert json.loads((run.folder / "log.jsonl").read_text().splitlines()[-1])["step"] == 4
    assert not trained.f.training
    assert not trained.g.training


def test_a_second_start_trains_nothing(
    trained: TrainedFaces, run: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.faces.face_domains", None)
    again = train_faces(run, data)
    for one, other in ((trained.f, again.f), (trained.g, again.g)):
        assert all(
            torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items()
        )


def test_without_the_faces_it_says_what_to_do(runs: Path, config: FacesConfig, data: Path) -> None:
    half = runs / "half"
    shutil.copytree(data / "networks", half / "networks")
    with pytest.raises(FileNotFoundError, match=r"lfw_152\.zip is missing"):
        train_faces(Run(half / "runs" / "x", "faces_smoke", config), half)


def test_an_unfinished_run_is_not_exported(config: FacesConfig, data: Path, runs: Path) -> None:
    started = Run(runs / "started", "faces_smoke", config)
    result = CliRunner().invoke(cli.export, [str(started.folder), "--data", str(data)])
    assert result.exit_code == 2
    assert "is not finished: run `dtn train faces_smoke` first" in result.output


def test_a_run_of_digits_is_refused(tmp_path: Path, data: Path) -> None:
    with pytest.raises(ValueError, match="no run of faces"):
        train_faces(Run(tmp_path / "d", "digits_smoke", preset("digits_smoke")), data)


def test_avatars_are_drawn_once(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    t, attributes = draw_avatars(runs / "cache", 24)
    assert t.shape == (24, 3, 64, 64)
    assert len(attributes) == 24
    monkeypatch.setattr("training.face_domains.avatars", None)
    assert torch.equal(draw_avatars(runs / "cache", 24)[0], t)


def test_rare_faces_are_drawn_more_often() -> None:
    random = torch.Generator().manual_seed(0)
    many = torch.randn(900, 4, generator=random)
    few = torch.randn(100, 4, generator=random) + 30
    weights = evening_weights(torch.cat([many, few]), 2, seed=1)
    share = (weights[900:].sum() / weights.sum()).item()
    assert share == pytest.approx(0.25, abs=0.02)  # sqrt(100) of sqrt(900) + sqrt(100)


def test_a_run_is_measured_by_one_command(
    trained: TrainedFaces,
    run: Run,
    data: Path,
    judge: Recogniser,
    upscaler: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def traits(files: list[str]) -> dict[str, torch.Tensor]:
        return {kind: torch.arange(len(files)) % 2 == 0 for kind in KINDS}

    here = "training.face_evaluate"
    monkeypatch.setattr(f"{here}.CLASSIFIER_STEPS", 2)
    monkeypatch.setattr(f"{here}.judges", lambda _: [judge])
    monkeypatch.setattr(f"{here}.faceres_man", lambda _: lambda x: x.mean((1, 2, 3))[:, None] + 0.5)
    monkeypatch.setattr(f"{here}.likeness.read_traits", traits)
    arguments = ["table4", "--runs", str(run.folder.parent), "--run", run.folder.name]
    arguments += ["--data", str(data), "--upscaler", str(upscaler)]
    result = CliRunner().invoke(evaluate, arguments)
    assert result.exit_code == 0, result.output
    assert "emoji (DTN)" in result.output
    assert "emoji at 256 px" in result.output
    measured = json.loads((run.folder / "metrics.json").read_text())
    assert 0 <= measured["metrics"]["gs_gt_auc"]["value"] <= 1
    of_both = {"median_rank_MobileFaceNet", "median_rank_share_at_256_MobileFaceNet"}
    assert of_both | {"detected_gs"} <= set(measured["metrics"])
    everyone, *others = measured["groups"].items()
    assert (everyone[0], everyone[1]["n"]) == ("everyone", 2)  # held out are Person_2 and _7
    fifths = [group["n"] for name, group in others if name.startswith("skin")]
    genders = [group["n"] for name, group in others if name.startswith("read as")]
    assert sum(fifths) == sum(genders) == 2
    assert {path.name for path in run.folder.glob("*.json")} >= {"table4.json", "likeness.json"}


@pytest.fixture(scope="module")
def upscaler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("upscaler") / "upscale.onnx"
    export_upscaler(Upscaler(UpscalerConfig(width=8, dilations=(1,), expand=16)).eval(), path)
    return path


def test_figures_of_faces_are_drawn(
    trained: TrainedFaces, run: Run, data: Path, upscaler: Path, tmp_path: Path
) -> None:
    def draw(*arguments: str) -> Result:
        folder = [str(run.folder), "--data", str(data), "--upscaler", str(upscaler)]
        return CliRunner().invoke(cli.figures, [*folder, *arguments])

    assert draw("--out", str(tmp_path / "docs")).exit_code == 0
    drawn = {path.stem for path in (tmp_path / "docs").iterdir()}
    assert drawn == {"figure2b", "figure4", "figure6", "figure7", "figure8"}
    assert draw("--figure", "4", "--out", str(tmp_path / "pairs.png")).exit_code == 0
    with Image.open(tmp_path / "pairs.png") as image:
        assert image.size == (4 * 256 + 8, 2 * 256 + 8)  # three people of the consented set

    private = draw("--figure", "6", "--private")
    assert private.exit_code == 0, private.output
    assert private.stdout.strip() == str(run.folder / "figure6-private.png")
    with Image.open(run.folder / "figure6-private.png") as image:
        assert image.size == (2 * 5 * 96 + 8, 96)  # the held-out two, four photographs each

    refused = draw("--figure", "6", "--private", "--out", str(tmp_path / "docs"))
    assert (refused.exit_code, refused.output.count("\n")) == (2, 1)
    assert "leave --out away" in refused.output
    assert "Figure 2a is of digits" in draw("--figure", "2a").output


def test_the_export_runs_without_torch(
    trained: TrainedFaces,
    run: Run,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "training.face_export.write_detector", lambda _, path: path.write_bytes(b"a detector")
    )
    (tmp_path / "u.onnx").write_bytes(b"an upscaler")
    folder = tmp_path / "emoji"
    arguments = [str(run.folder), "--data", str(data), "--out", str(folder)]
    result = CliRunner().invoke(cli.export, [*arguments, "--upscaler", str(tmp_path / "u.onnx")])
    assert result.exit_code == 0, result.output
    manifest = json.loads((folder / "manifest.json").read_text())
    assert Manifest.model_validate(manifest).alignment is not None
    assert set(manifest["graphs"]) == {"transfer", "distance", "detect", "upscale"}
    assert manifest["data"]["splits"]["avatars (t)"] == 24
    assert "groups" in manifest
    photographs = np.random.default_rng(0).integers(0, 256, (8, 152, 152, 3), dtype=np.uint8)
    assert manifest["weights"]["bytes"] == (folder / "weights.bin").stat().st_size
    for name in ("model.onnx", "distance.onnx"):
        assert (folder / name).stat().st_size < 400_000  # f's weights are not in it
    session = onnxruntime.InferenceSession(folder / "distance.onnx")
    y, distance = session.run(None, {"x": photographs[:2, :100, :100]})
    assert (y.shape, y.dtype, distance.shape) == ((2, 64, 64, 3), np.uint8, (2,))
    (alone,) = onnxruntime.InferenceSession(folder / "model.onnx").run(None, {"x": photographs[:1]})
    assert len(trained.f.expect) == trained.f.width  # Eq. 8 measures from it
    expected, distances = emoji(trained, torch.from_numpy(photographs[:1]))
    assert np.abs(alone.astype(int) - expected.numpy()).max() <= 2
    again = session.run(None, {"x": photographs[:1]})[1]
    assert again[0] == pytest.approx(distances[0].item(), rel=0.02)
    card = (folder / "CARD.md").read_text()
    assert "Domain Transfer Network" in card
    assert "joined with the colours of hair and skin. It stays frozen" in card


@pytest.mark.parametrize(
    ("t", "figure", "size"),
    [
        ("photographs", "9b", (6 * 2 * 96 + 5 * 8, 8 * 96 + 7 * 8)),
        ("posters", "5", (4 * 3 * 96 + 3 * 8, 96)),
    ],
)
def test_other_domains_train_and_have_a_figure(
    t: str, figure: str, size: tuple[int, int], config: FacesConfig, runs: Path, data: Path
) -> None:
    run = Run(runs / t, "faces_smoke", dataclasses.replace(config, t=t))  # type: ignore[arg-type]
    train_faces(run, data)
    assert (run.folder / "grid-000004.png").exists()
    arguments = [str(run.folder), "--data", str(data)]
    drawn = CliRunner().invoke(cli.figures, arguments)
    assert drawn.exit_code == 0, drawn.output
    with Image.open(run.folder / f"figure{figure}.png") as image:
        assert image.size == size
    refused = CliRunner().invoke(cli.figures, [*arguments, "--figure", "4"])
    assert refused.exit_code == 2
    assert f"has the figures {figure}, not 4" in refused.output
    exported = CliRunner().invoke(cli.export, [*arguments, "--out", str(runs / "model")])
    assert exported.exit_code == 2
    assert f"draws {t}, not emoji" in exported.output


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"finish": 4}, "of 4 steps the last 4 cannot be the finish"),
        ({"finish": 1, "t": "posters"}, "only emoji are enlarged"),
        ({"stress_glasses": 2.0}, "wants an f that reads glasses"),
        ({"caricature": 0.0}, "caricature of 0.0 shows nobody"),
    ],
)
def test_a_finish_has_steps_before_it_and_emoji(
    config: FacesConfig, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        dataclasses.replace(config, **changes)


def test_a_run_is_finished_by_what_enlarges_its_emoji(
    config: FacesConfig, runs: Path, data: Path
) -> None:
    own = dataclasses.replace(config, finish=2, const_jitter=True)
    upscaler = runs / "tiny" / "upscaler.pt"
    tiny = UpscalerConfig(steps=1, width=4, dilations=(1,), expand=8)
    upscaler.parent.mkdir()
    Training(tiny).save(upscaler, 1)
    with pytest.raises(FileNotFoundError, match="run `dtn upscaler`"):
        train_faces(Run(runs / "none", "faces_smoke", own), data, runs / "none.pt")
    with pytest.raises(ValueError, match=r"wants the upscaler\.pt"):
        train_faces(Run(runs / "none", "faces_smoke", own), data)
    run = Run(runs / "finished", "faces_smoke", own)
    finished = train_faces(run, data, upscaler)
    plain = train_faces(Run(runs / "plain", "faces_smoke", config), data)
    assert not all(
        torch.equal(v, plain.g.state_dict()[k]) for k, v in finished.g.state_dict().items()
    )
    stressed = dataclasses.replace(
        own,
        finish_every=3,
        finish_alpha=1.5,
        red=5.0,
        glasses=True,
        stress_glasses=3.0,
        caricature=2.0,
    )
    asked = finish_of(stressed, plain.f, upscaler, torch.device("cpu"))
    assert (asked.steps, asked.every, asked.alpha, asked.red) == (2, 3, 1.5, 5)
    assert torch.as_tensor(asked.stress).tolist() == [1] * (plain.f.width - 1) + [3]
    colours = plain.f.width - FEATURES
    assert torch.as_tensor(asked.caricature).tolist() == [2] * FEATURES + [1] * colours
    again = load_faces(run, data)  # which needs no upscaler any more
    assert all(torch.equal(v, again.g.state_dict()[k]) for k, v in finished.g.state_dict().items())


def test_a_caricature_exaggerates_who_it_is_and_leaves_the_colours(
    trained: TrainedFaces, run: Run, config: FacesConfig, runs: Path, data: Path
) -> None:
    drawing = Run(runs / "drawing", "faces_smoke", dataclasses.replace(config, caricature=1.5))
    for name in ("f.pt", "dtn.pt"):
        shutil.copy(run.folder / name, drawing.folder / name)
    caricature = load_faces(drawing, data)
    fx = torch.randn(2, trained.f.width, generator=torch.Generator().manual_seed(0))
    drawn = torch.cat([1.5 * fx[:, :FEATURES], fx[:, FEATURES:]], 1)
    with torch.no_grad():
        found, wanted, plain = caricature.g[:2](fx), trained.g[:2](drawn), trained.g[:2](fx)
    torch.testing.assert_close(found, wanted)
    assert (plain - wanted).abs().mean() > 0.1 * wanted.abs().mean()
    # Eq. 8 wants to see the caricature of what is expected.
    wanted = trained.f.expected(fx)
    wanted[:, :FEATURES] *= 1.5
    torch.testing.assert_close(caricature.f.expected(fx), wanted)
    unexpecting = FaceFeatures(trained.f.net, appearance=True)
    assert torch.equal(exaggerated(unexpecting, caricature.g, 1).f.expected(fx), fx)
    made = exaggerated(unexpecting, caricature.g, 1.5).f
    torch.testing.assert_close(made.expected(fx), drawn)


def test_the_reverse_direction_has_the_f_of_the_main_task(
    trained: TrainedFaces, config: FacesConfig, runs: Path, data: Path
) -> None:
    back = dataclasses.replace(config, t="photographs")
    again = train_faces(Run(runs / "back", "faces_smoke", back), data).f
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in trained.f.state_dict().items())


def test_f_may_read_spectacles_which_is_part_of_the_graphs(
    config: FacesConfig, runs: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.face_domains.teach_glasses", partial(teach_glasses, steps=3))
    seeing = dataclasses.replace(config, glasses=True, caricature=1.5)
    run = Run(runs / "seeing", "faces_smoke", seeing)
    trained = train_faces(run, data)
    assert trained.f.glasses is not None
    assert trained.f.width == FEATURES + APPEARANCE + 1
    found = face_domains(trained.f, faces_config(run), data, runs / "cache")
    assert found.raw_s.shape[1] == FEATURES + COLOURS + 1
    assert found.raw_s[:, -1].abs().max() < 1 and found.raw_s[:, -1].std() > 0
    monkeypatch.setattr("training.face_domains.teach_glasses", None)  # it is kept
    other = Run(runs / "seeing too", "faces_smoke", dataclasses.replace(config, glasses=True))
    again = train_faces(other, data)
    values = trained.f.glasses.state_dict()
    assert all(torch.equal(v, values[k]) for k, v in again.f.glasses.state_dict().items())
    monkeypatch.setattr(
        "training.face_export.write_detector", lambda _, path: path.write_bytes(b"a detector")
    )
    export_faces(run, trained, runs / "seeing model", data)  # checks that graphs are as PyTorch
    card = (runs / "seeing model" / "CARD.md").read_text()
    assert "reading of spectacles" in card
    assert "tells who it is times 1.5" in card and "and of that the caricature" in card


def test_jittered_copies_stand_beside_s(
    trained: TrainedFaces, config: FacesConfig, runs: Path, data: Path
) -> None:
    plain = face_domains(trained.f, config, data, runs / "cache")
    viewed = dataclasses.replace(config, s_views=2)
    found = face_domains(trained.f, viewed, data, runs / "cache")
    n = len(plain.raw_s)
    assert torch.equal(found.raw_s[:n], plain.raw_s)
    copies = found.raw_s[n:].split(n)
    assert [len(copy) for copy in copies] == [n, n]
    apart = torch.pdist(plain.raw_s).mean()
    for copy in copies:  # of the same pictures, but not the same
        off = (copy - plain.raw_s).norm(dim=1)
        assert off.min() > 0 and off.mean() < apart / 2
    assert not torch.equal(*copies)
    assert torch.equal(face_domains(trained.f, viewed, data, runs / "cache").raw_s, found.raw_s)


def test_in_the_reverse_direction_g_draws_photographs_without_held_out_people(
    trained: TrainedFaces, config: FacesConfig, runs: Path, data: Path
) -> None:
    back = dataclasses.replace(config, t="photographs")
    found = face_domains(trained.f, back, data, runs / "cache")
    assert len(found.raw_s) == config.avatars
    assert len(found.raw_t) == len(found.t) == len(source(data)) == 32 - 8 + 12
    assert found.t.shape[1:] == (3, 64, 64)
    assert torch.equal(found.t, shrunk(source(data).images))
