import numpy as np
import torch

from training.figures import SCALE, grid, pair_grid


def test_inputs_stand_in_odd_columns_and_outputs_in_even_ones() -> None:
    inputs = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 3, 4, 4) * 10
    outputs = torch.full((5, 1, 4, 4), 200, dtype=torch.uint8)
    sheet = np.asarray(pair_grid(inputs, outputs, columns=2))[:: 4 * SCALE, :: 4 * SCALE, 0]
    assert sheet.tolist() == [[0, 200, 10, 200], [20, 200, 30, 200], [40, 200, 255, 255]]


def test_groups_have_white_between_them() -> None:
    parts = [torch.full((3, 3, 2, width), value).byte() for width, value in ((2, 50), (4, 100))]
    sheet = np.asarray(grid(parts, columns=2, gap=1))[..., 0]
    assert sheet.shape == (2 + 1 + 2, 6 + 1 + 6)
    white = 255
    row = [50, 50, 100, 100, 100, 100]
    assert sheet[0].tolist() == [*row, white, *row]
    assert sheet[2].tolist() == [white] * 13
    assert sheet[4].tolist() == [*row, *[white] * 7]
