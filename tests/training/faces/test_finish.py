"""The end of a faces run: what its finish asks for, and caricatures."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from training.config import FacesConfig
from training.face_features import PAINT
from training.faces import (
    TrainedFaces,
    finish_of,
    load_faces,
    train_faces,
)
from training.resnet29 import FEATURES
from training.run import Run
from training.upscaler import Training, UpscalerConfig


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"finish": 4}, "of 4 steps the last 4 cannot be the finish"),
        ({"finish": 1, "t": "posters"}, "only emoji are enlarged"),
        ({"stress_glasses": 2.0}, "wants an f that reads glasses"),
        ({"stress_colours": 2.0, "appearance": 0.0}, "wants an f that reads colours"),
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
    own = dataclasses.replace(config, finish=2, const_jitter=True, symmetry=1.0)
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
        symmetry=7.0,
        glasses=True,
        stress_glasses=3.0,
        stress_colours=1.5,
        caricature=2.0,
    )
    asked = finish_of(stressed, plain.f, upscaler, torch.device("cpu"))
    assert (asked.steps, asked.every, asked.alpha) == (2, 3, 1.5)
    assert (asked.red, asked.symmetry) == (5, 7)
    colours = plain.f.width - FEATURES
    others = [1] * (colours - PAINT - 1)
    assert torch.as_tensor(asked.stress).tolist() == [1] * FEATURES + [1.5] * PAINT + others + [3]
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
    # A caricature is as near to Eq. 8 as what it exaggerates.
    torch.testing.assert_close(trained.f.compared(drawn), trained.f.compared(fx))


def test_an_f_of_another_version_is_refused(
    trained: TrainedFaces, config: FacesConfig, runs: Path, data: Path
) -> None:
    older = Run(runs / "older", "faces_smoke", config)
    state = trained.f.state_dict()
    older.save("f.pt", {name: value for name, value in state.items() if name != "shade"})
    with pytest.raises(ValueError, match=r"f\.pt is of another version"):
        train_faces(older, data)
