"""A finished faces run is measured, drawn and exported by one command each."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from service.manifest import Manifest
from training import cli
from training.config import FacesConfig
from training.face_evaluate import emoji
from training.faces import (
    TrainedFaces,
    train_faces,
)
from training.likeness import KINDS
from training.paper_commands import evaluate
from training.recognisers import Recogniser
from training.run import Run
from training.upscaler import Upscaler, UpscalerConfig, export_upscaler


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
