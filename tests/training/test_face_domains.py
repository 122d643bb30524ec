"""Pictures that S and T are made of; those of a run: faces/test_run.py."""

import torch

from training.face_domains import INKS, posters


def test_a_poster_has_four_inks_and_keeps_the_order_of_shades() -> None:
    ramp = torch.linspace(40, 220, 152).byte().expand(2, 3, 152, 152)
    drawn = posters(ramp)
    assert drawn.shape == ramp.shape
    row = drawn[0, :, 76].T
    assert {tuple(ink.tolist()) for ink in row} == set(INKS)
    assert [tuple(ink.tolist()) for ink in torch.unique_consecutive(row, dim=0)] == list(INKS)
    assert torch.equal(drawn[0], drawn[1])
