"""The figures of faces on small flat pictures: what stands where."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from training.face_data import Faces
from training.face_features import FaceFeatures
from training.face_figures import (
    CHOSEN,
    GAP,
    LARGE,
    LENGTH,
    SMALL,
    basis,
    by_person,
    evenly,
    figure2b,
    figure4,
    figure6,
    figure8,
    upscale_by,
    upscaled,
)
from training.faces import TrainedFaces
from training.resnet29 import FEATURES
from training.upscaler import Upscaler, UpscalerConfig, export_upscaler

WHITE = 255


def flat(values: Sequence[int], side: int) -> Tensor:
    return torch.tensor(values).byte().view(-1, 1, 1, 1).repeat(1, side, side, 3)


def centres(image: Image.Image, side: int, group: int) -> list[list[int]]:
    """The red of every cell's centre, cells of `side` in groups of `group`, GAP between these."""
    pixels = np.asarray(image)[..., 0]
    rows = (pixels.shape[0] + GAP) // (side + GAP)
    groups = (pixels.shape[1] + GAP) // (group * side + GAP)
    return [
        [
            int(
                pixels[
                    r * (side + GAP) + side // 2, g * (group * side + GAP) + c * side + side // 2
                ]
            )
            for g in range(groups)
            for c in range(group)
        ]
        for r in range(rows)
    ]


def test_emoji_stand_to_the_right_of_photographs() -> None:
    photos, drawings = flat(range(7), 152), flat(range(100, 107), 512)
    small, large = figure2b(photos, drawings), figure4(photos, drawings)
    assert centres(small, SMALL, 2) == [
        [0, 100, 1, 101, 2, 102, 3, 103, 4, 104, 5, 105],
        [6, 106] + [WHITE] * 10,
    ]
    assert centres(large, LARGE, 2)[:2] == [[0, 100, 1, 101], [2, 102, 3, 103]]


def test_a_row_of_figure_6_is_a_person_with_the_choice_framed_and_its_emoji_last() -> None:
    people = [flat([10, 20, 30], 152), flat([40, 50], 152)]
    image = figure6(people, [2, 0], flat([100, 200], 64))
    assert centres(image, SMALL, 4) == [[10, 20, 30, 100], [40, 50, WHITE, 200]]
    frames = [image.getpixel((x * SMALL, y)) == CHOSEN for y in (0, SMALL + GAP) for x in range(4)]
    assert frames == [False, False, True, False, True, False, False, False]


def test_figure_8_has_both_ends_of_every_axis() -> None:
    down, up = flat([1] * FEATURES, 4), flat(range(FEATURES), 4)
    image = figure8(down, up)
    assert image.size == (16 * 8 + 15 * GAP, 16 * 4 + 15 * GAP)
    assert [image.getpixel((x, 4 + GAP))[0] for x in (0, 4, 8 + GAP + 4)] == [1, 16, 17]  # type: ignore[index]


class Mirror(nn.Module):
    """g that draws the number i of f(x), i its place in the batch."""

    def forward(self, fx: Tensor) -> Tensor:
        return fx.diagonal().view(-1, 1, 1, 1).expand(-1, 3, 64, 64) / 100


def test_the_basis_leaves_out_what_f_removes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Small:
        """As much of f as `basis` looks at: three axes, of which the first is removed."""

        mean, width = torch.zeros(5), 5
        remove = torch.eye(3)[:, :1]

    monkeypatch.setattr("training.face_figures.FEATURES", 3)
    f: FaceFeatures = Small()  # type: ignore[assignment]
    found = basis(TrainedFaces(f, nn.Sequential(Mirror())), 50.0)
    assert found.shape == (3, 64, 64, 3)
    assert found[:, 0, 0, 0].tolist() == [128, 191, 191]  # 0, 0.5 and 0.5 of [-1, 1]
    assert LENGTH == 16


def test_figure_7_enlarges_by_every_method_there_is(tmp_path: Path) -> None:
    net = Upscaler(UpscalerConfig(width=8, dilations=(1,), expand=16))  # untrained: nearest
    export_upscaler(net.eval(), tmp_path / "upscale.onnx")
    small = torch.randint(0, 256, (2, 64, 64, 3)).byte()
    columns = upscaled(small, tmp_path, upscale_by(tmp_path / "upscale.onnx"))
    assert list(columns) == ["64 px", "bicubic", "ours"]
    assert all(pictures.shape == (2, 256, 256, 3) for pictures in columns.values())
    assert torch.equal(columns["64 px"], columns["ours"])
    with pytest.raises(FileNotFoundError, match="dtn upscaler"):
        upscale_by(tmp_path / "none.onnx")


def test_people_with_most_photographs_come_first() -> None:
    faces = Faces("x", list("abcd"), ["A", "B", "", "B"], flat([1, 2, 3, 4], 2).permute(0, 3, 1, 2))
    assert [photos[:, 0, 0, 0].tolist() for photos in by_person(faces)] == [[2, 4], [1]]
    with pytest.raises(ValueError, match="names nobody"):
        by_person(Faces("x", ["a"], [""], faces.images[:1]))


def test_people_are_taken_in_equal_steps() -> None:
    assert evenly(4, 10) == [0, 2, 5, 7]
    assert evenly(5, 2) == [0, 1]
