import numpy as np
import torch

from training.figures import SCALE, pair_grid


def test_inputs_stand_in_odd_columns_and_outputs_in_even_ones() -> None:
    inputs = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 3, 4, 4) * 10
    outputs = torch.full((5, 1, 4, 4), 200, dtype=torch.uint8)
    sheet = np.asarray(pair_grid(inputs, outputs, columns=2))[:: 4 * SCALE, :: 4 * SCALE, 0]
    assert sheet.tolist() == [[0, 200, 10, 200], [20, 200, 30, 200], [40, 200, 255, 255]]
