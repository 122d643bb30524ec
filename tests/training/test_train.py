import json
import sys
from pathlib import Path

import pytest
import torch

from training.config import PRESETS, DigitsConfig, preset
from training.data import Digits
from training.run import Run, autocast, has_bf16, open_run
from training.train import Trained, held_out, judged, load


def test_a_run_leaves_everything_behind(run: Run, trained: Trained) -> None:
    names = {path.name for path in run.folder.iterdir()}
    assert {"config.json", "f.pt", "judge.pt", "dtn.pt", "log.jsonl", "metrics.json"} <= names
    assert "grid-000006.png" in names
    lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    assert {line["network"] for line in lines} == {"f", "judge", "dtn"}
    assert {"d", "gang", "const", "tid", "step", "steps_per_second"} <= lines[-1].keys()


def test_metrics_carry_splits_and_sizes(run: Run, trained: Trained) -> None:
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert metrics["protocol"] == "SVHN-10k"
    assert metrics["splits"]["svhn_train"] == 120
    for metric in metrics["metrics"].values():
        assert 0 <= metric["value"] <= 1
        assert metric["n"] in (4, 40, 60)


def test_judged_counts_the_digits_that_kept_their_label(trained: Trained) -> None:
    black = torch.zeros(len(trained.measured), 1, 32, 32, dtype=torch.uint8)
    with torch.no_grad():
        says = int(trained.judge(torch.full((1, 1, 32, 32), -1.0)).argmax())
    share = (trained.measured.labels == says).float().mean().item()
    assert judged(trained, black) == pytest.approx(share)


def test_load_gives_the_same_networks(run: Run, trained: Trained, data: Path) -> None:
    again = load(open_run(run.folder, "cpu"), data)
    for one, other in ((trained.f, again.f), (trained.g, again.g)):
        assert all(
            torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True)
        )


def test_load_refuses_an_unfinished_run(config: DigitsConfig, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not finished"):
        load(Run(tmp_path, "digits_smoke", config), data)


def test_a_holdout_is_not_learned_from_and_spares_the_test_split(digits: Digits) -> None:
    learned, measured = held_out(digits, 20)
    assert (len(learned.svhn_train), measured.name, len(measured)) == (100, "svhn_validation", 20)
    assert held_out(digits, 0)[1].name == "svhn_test"


def test_a_folder_belongs_to_one_configuration(config: DigitsConfig, tmp_path: Path) -> None:
    Run(tmp_path, "digits_smoke", config)
    Run(tmp_path, "digits_smoke", config)
    with pytest.raises(ValueError, match="another configuration"):
        Run(tmp_path, "digits_smoke", preset("digits_smoke"))


def test_tensorboard_gets_what_the_log_gets(
    config: DigitsConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    class Board:
        def add_scalar(self, name: str, value: float, step: int) -> None:
            drawn.append((name, value, step))

    monkeypatch.setattr("training.run.summary_writer", lambda folder: Board())
    run = Run(tmp_path, "digits_smoke", config, tensorboard=True)
    run.log("dtn", 100, tid=0.5)
    assert drawn == [("dtn/tid", 0.5, 100)]
    assert json.loads((tmp_path / "log.jsonl").read_text())["tid"] == 0.5


def test_tensorboard_that_is_not_there_is_named(
    config: DigitsConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match="pip install tensorboard"):
        Run(tmp_path, "digits_smoke", config, tensorboard=True)


def test_config_json_gives_the_configuration_back(config: DigitsConfig, tmp_path: Path) -> None:
    assert Run(tmp_path, "digits_smoke", config).config == open_run(tmp_path, "cpu").config


def test_unknown_presets_and_fields_are_refused() -> None:
    with pytest.raises(ValueError, match="there are digits, digits_paper"):
        preset("digit")
    with pytest.raises(ValueError, match="no field alhpa"):
        preset("digits", alhpa=1.0)
    assert preset("digits", alpha=None, beta=3.0).beta == 3.0


def test_digits_paper_has_nothing_beyond_the_paper() -> None:
    paper = PRESETS["digits_paper"]
    assert (paper.alpha, paper.beta, paper.gamma, paper.d) == (15, 15, 0, "mse")
    extras = (paper.ema, paper.r1, paper.spectral_norm, paper.diff_augment, paper.s_views)
    assert not any((*extras, paper.balance, paper.lr_decay))


def test_bf16_is_for_devices_that_have_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.ones(2, 2)
    for there, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr("training.run.has_bf16", lambda device, there=there: there)
        with run.autocast():
            assert (x @ x).dtype == dtype
        with autocast(run.device, wanted=False):
            assert (x @ x).dtype == torch.float32
    assert has_bf16(torch.device("cuda"))


@pytest.mark.parametrize(
    ("onednn", "avx512", "avx512_bf16", "there"),
    [
        (True, True, True, True),
        (True, True, False, False),  # oneDNN converts there and back
        (True, False, False, True),  # an ARM, say, that has it
        (False, False, False, False),
    ],
)
def test_bf16_wants_instructions_of_its_own(
    onednn: bool, avx512: bool, avx512_bf16: bool, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)
    monkeypatch.setattr(torch.cpu, "_is_avx512_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    assert has_bf16(torch.device("cpu")) is there
