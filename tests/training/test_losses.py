"""Each loss against a number worked out by hand."""

import math

import pytest
import torch

from training.losses import (
    const_loss,
    d_loss,
    gang_loss,
    logits_loss,
    red_loss,
    symmetry_loss,
    tid_loss,
    tv_loss,
)

SURE = torch.tensor([[0.0, math.log(2), math.log(5)]])  # probabilities 1/8, 2/8, 5/8


def test_eq3_is_the_cross_entropy_of_three_classes() -> None:
    expected = -math.log(1 / 8) - math.log(2 / 8) - math.log(5 / 8)
    assert d_loss(SURE, SURE, SURE).item() == pytest.approx(expected, rel=1e-6)


def test_eq3_is_a_mean_over_the_batch() -> None:
    other = torch.zeros(1, 3)  # probabilities 1/3
    both = torch.cat([SURE, other])
    expected = -(math.log(1 / 8) + math.log(1 / 3)) / 2 - 2 * math.log(3) * -1
    assert d_loss(both, other, other).item() == pytest.approx(expected, rel=1e-6)


def test_eq4_pulls_both_fakes_to_the_class_of_real_pictures() -> None:
    fake_s = SURE.clone().requires_grad_()
    fake_t = SURE.clone().requires_grad_()
    loss = gang_loss(fake_s, fake_t)
    assert loss.item() == pytest.approx(-2 * math.log(5 / 8), rel=1e-6)
    loss.backward()
    for fake in (fake_s, fake_t):  # down the slope: class 3 rises, classes 1 and 2 fall
        assert fake.grad is not None
        assert fake.grad[0, 2] < 0 < fake.grad[0, 0]
        assert fake.grad[0, 1] > 0


def test_eq5_mse_and_cosine() -> None:
    fx = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    fgx = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    assert const_loss(fx, fgx).item() == pytest.approx((0 + 4 + 9 + 0) / 4)
    right_angle = const_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 7.0]]), "cosine")
    assert right_angle.item() == pytest.approx(1.0)


def test_eq5_refuses_an_unknown_distance() -> None:
    with pytest.raises(ValueError, match="mse, cosine, hinge and triplet"):
        const_loss(SURE, SURE, "manhattan")


def test_eq5_in_logits_is_on_the_scale_of_features() -> None:
    torch.manual_seed(0)
    fx, fgx = torch.randn(200, 8), torch.randn(200, 8)
    head = torch.nn.Linear(8, 8, bias=False)
    torch.nn.init.orthogonal_(head.weight)
    plain = const_loss(fx, fgx).item()
    assert logits_loss(fx, fgx, head).item() == pytest.approx(plain, rel=0.1)
    assert logits_loss(fx, fgx, lambda z: 7 * head(z)).item() == pytest.approx(plain, rel=0.1)
    assert logits_loss(fx, fx, head).item() == 0.0


def test_eq6_is_the_mean_square_over_pixels() -> None:
    x, gx = torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    gx[0, 0, 0, 0] = 2.0
    assert tid_loss(x, gx).item() == pytest.approx(4 / 8)


def test_eq7_of_a_step_edge() -> None:
    z = torch.tensor([[0.0, 3.0, 3.0], [4.0, 4.0, 4.0], [0.0, 0.0, 0.0]])[None, None]
    # (0,0): sqrt(3² + 4²) = 5; (0,1): sqrt(0 + 1); (1,0) and (1,1): sqrt(0 + 4²)
    assert tv_loss(z).item() == pytest.approx((5 + 1 + 4 + 4) / 4, rel=1e-4)


def test_eq7_has_a_finite_slope_on_a_flat_picture() -> None:
    z = torch.zeros(1, 1, 4, 4, requires_grad=True)
    tv_loss(z).backward()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


def test_symmetry_is_of_the_face_without_its_nose() -> None:
    x = torch.zeros(1, 1, 64, 64)
    assert symmetry_loss(x).item() == 0
    counted = (59 + 1 - 24) * 32 - (43 + 1 - 36) * 10  # the face's pixels without the nose's
    x[:, :, 40, 20] = 1.0  # on one cheek
    assert symmetry_loss(x).item() == pytest.approx(2 / counted, rel=0.05)
    x[:, :, 40, 43] = 1.0  # and on the other
    assert symmetry_loss(x).item() == 0
    x[:, :, 40, 30] = x[:, :, 5, 20] = x[:, :, 30, 4] = 1.0  # nose, hair, margin
    assert symmetry_loss(x).item() == 0


def test_regularisation_by_denoising_pulls_a_picture_to_what_is_made_of_it() -> None:
    x = torch.tensor([[[[0.5, -0.5]]]], requires_grad=True)
    larger = torch.tensor([[[[1.2, 0.8, 0.0, 0.2], [1.0, 1.0, 0.2, 0.0]]]], requires_grad=True)
    loss = red_loss(x, larger)  # reduced, and clipped to 1: 0.95 and 0.1
    assert loss.item() == pytest.approx((0.45**2 + 0.6**2) / 2)
    loss.backward()
    assert larger.grad is None and x.grad is not None
    assert x.grad.flatten().tolist() == pytest.approx([-0.45, -0.6])
