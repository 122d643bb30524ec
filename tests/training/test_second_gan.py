import torch
from torch import Tensor

from training.networks import discriminator
from training.second_gan import SecondGAN


def second() -> SecondGAN:
    torch.manual_seed(0)
    return SecondGAN(discriminator(8, channels=2), 1e-2, (0.5, 0.999))


def pictures(n: int, seed: int) -> Tensor:
    return torch.rand(n, 1, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_d2_learns_to_tell_g_of_t_from_t() -> None:
    gan, t, gt = second(), pictures(8, 0), -pictures(8, 0)
    losses = [gan.step(t, gt, torch.enable_grad).item() for _ in range(30)]
    assert losses[-1] < losses[0] / 5


def test_its_loss_reaches_the_picture_and_leaves_d2_alone() -> None:
    gan, t = second(), pictures(4, 0)
    gt = pictures(4, 1).requires_grad_()
    gan.loss(t, gt).backward()
    assert gt.grad is not None and gt.grad.abs().sum() > 0
    assert all(weight.grad is None and weight.requires_grad for weight in gan.net.parameters())


def test_it_is_cut_off_from_a_detached_picture_only() -> None:
    gan, t = second(), pictures(4, 0)
    gt = pictures(4, 1).requires_grad_()
    gan.step(t, gt.detach(), torch.enable_grad)
    assert gt.grad is None


def test_a_restored_d2_goes_on_alike() -> None:
    one, other = second(), SecondGAN(discriminator(8, channels=2), 1e-2, (0.5, 0.999))
    t, gt = pictures(4, 0), pictures(4, 1)
    one.step(t, gt, torch.enable_grad)
    other.restore(one.state())
    assert torch.equal(one.step(t, gt, torch.enable_grad), other.step(t, gt, torch.enable_grad))
