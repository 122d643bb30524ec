import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from training.config import PRESETS, DigitsConfig, of_digits
from training.run import Run
from training.shelf import copy, keep, lend, shelf_names
from training.train import Trained


def names(preset: str, **changes: object) -> dict[str, str]:
    return shelf_names(dataclasses.replace(of_digits(PRESETS[preset]), **changes))  # type: ignore[arg-type]


def test_rows_share_what_was_taught_alike() -> None:
    assert names("digits_paper") == names("table1_no_tid") == names("table3_st")
    assert names("digits_paper") == names("digits", steps=5)


def test_what_was_taught_otherwise_is_another() -> None:
    paper = names("digits_paper")
    for other in (names("plain_f"), names("digits_paper", seed=1), names("table3_stf")):
        assert other["f.pt"] != paper["f.pt"]
        assert other["judge.pt"] == paper["judge.pt"]  # one instrument for all
    assert names("reverse")["judge.pt"] != paper["judge.pt"]


def test_a_lent_classifier_is_not_trained_again(
    run: Run, trained: Trained, config: DigitsConfig, tmp_path: Path
) -> None:
    shelf = tmp_path / "shelf"
    keep(run, shelf)
    other = Run(tmp_path / "other", "digits_smoke", dataclasses.replace(config, beta=0.0))
    lend(other, shelf)
    for name in ("f.pt", "judge.pt"):
        one, lent = run.load(name), other.load(name)
        assert one is not None and lent is not None and one["step"] == lent["step"]
        for key, value in one["average"].items():
            assert torch.equal(value, lent["average"][key])


def test_a_classifier_in_the_making_is_left_alone(
    run: Run, trained: Trained, config: DigitsConfig, tmp_path: Path
) -> None:
    keep(run, tmp_path / "shelf")
    other = Run(tmp_path / "other", "digits_smoke", config)
    other.save("f.pt", {"step": 1})
    lend(other, tmp_path / "shelf")
    assert other.load("f.pt") == {"step": 1}


def test_another_seed_finds_nothing(
    run: Run, trained: Trained, config: DigitsConfig, tmp_path: Path
) -> None:
    keep(run, tmp_path / "shelf")
    other = Run(tmp_path / "other", "digits_smoke", dataclasses.replace(config, seed=7))
    lend(other, tmp_path / "shelf")
    assert not (other.folder / "f.pt").exists() and (other.folder / "judge.pt").exists()


def test_several_may_keep_the_same_classifier_at_once(tmp_path: Path) -> None:
    source, target = tmp_path / "f.pt", tmp_path / "shelf" / "f.pt"
    source.write_bytes(b"weights" * 100_000)
    target.parent.mkdir()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: copy(source, target), range(80)))
    assert target.read_bytes() == source.read_bytes()
    assert list(target.parent.iterdir()) == [target]
