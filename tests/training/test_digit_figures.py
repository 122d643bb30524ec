import dataclasses
from pathlib import Path

import pytest
import torch

from training.config import DigitsConfig
from training.digit_figures import MARGIN, draw, order_of_threes, titled
from training.figures import grid
from training.run import Run
from training.train import Trained, train, write_metrics


def test_figure_2a_has_inputs_in_odd_columns(run: Run, trained: Trained, data: Path) -> None:
    image = draw(run, "2a", data, 16, rendered=False)
    assert image.size == (8 * 2 * 64, 2 * 64)
    assert draw(run, "2a", data, 16, rendered=True).tobytes() != image.tobytes()


def test_a_figure_of_the_other_direction_is_refused(run: Run, data: Path) -> None:
    with pytest.raises(ValueError, match="goes from SVHN to MNIST"):
        draw(run, "9a", data, 16, rendered=False)


def test_threes_are_sorted_by_what_the_judge_reads(trained: Trained) -> None:
    pictures = trained.measured.images[:12]
    order = order_of_threes(trained, pictures)
    assert sorted(order.tolist()) == list(range(12))
    moved = trained.transfer(pictures)[order].float().div(127.5).sub(1)
    with torch.no_grad():
        sure = trained.judge(moved).softmax(1)[:, 3]
    assert torch.equal(sure, sure.sort(descending=True).values)


@pytest.mark.parametrize(
    ("first", "others"), [("digits_paper", "table3"), ("digits", "digits")], ids=["DTN", "DTN+"]
)
def test_figure_3_is_drawn_from_the_runs_of_table_3(
    first: str, others: str, config: DigitsConfig, data: Path, tmp_path: Path
) -> None:
    runs = {}
    for omit in ("", "s", "t", "st", "stf"):
        name = f"{others}_{omit}" if omit else first
        own = dataclasses.replace(config, omit=omit, s_views=0, steps=1)
        runs[omit] = Run(tmp_path / f"{name}-seed0", name, own)
        write_metrics(runs[omit], train(runs[omit], data))
    image = draw(runs[""], "3", data, 12, rendered=False)
    assert image.size == (3 * (4 * 64 + MARGIN) - MARGIN, 2 * (64 + MARGIN))
    with pytest.raises(ValueError, match=f"begins with a run of .*, not of {others}_t"):
        draw(runs["t"], "3", data, 12, rendered=False)
    runs["t"].folder.rename(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=f"{others}_t-seed0"):
        draw(runs[""], "3", data, 12, rendered=False)


def test_panels_stand_under_their_titles() -> None:
    white = torch.full((12, 1, 32, 32), 255, dtype=torch.uint8)
    image = titled([("(a) x", grid((white,), 12)), ("(b)", grid((255 - white,), 12))], 1)
    assert image.size == (12 * 64, 2 * (64 + MARGIN))
    assert image.getpixel((5, MARGIN + 5)) == (255, 255, 255)
    assert image.getpixel((5, 64 + 2 * MARGIN + 5)) == (0, 0, 0)
    assert min(image.crop((0, 0, 60, MARGIN)).convert("L").tobytes()) < 100  # ink
