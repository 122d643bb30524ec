import torch

from training.augment import augment, diff_augment
from training.config import Augment


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_augment_keeps_shape_and_range_and_changes_every_picture() -> None:
    x = torch.rand(16, 3, 32, 32, generator=random()) * 2 - 1
    y = augment(x, Augment(), random())
    assert y.shape == x.shape
    assert y.abs().max() <= 1
    assert (y - x).abs().flatten(1).amax(1).min() > 0.01


def test_augment_repeats_itself_for_a_seed() -> None:
    x = torch.rand(4, 3, 32, 32, generator=random()) * 2 - 1
    assert torch.equal(augment(x, Augment(), random(3)), augment(x, Augment(), random(3)))
    assert not torch.equal(augment(x, Augment(), random(3)), augment(x, Augment(), random(4)))


def test_augment_that_may_do_nothing_does_nothing() -> None:
    still = Augment(
        rotate=0, shear=0, scale=1, stretch=0, shift=0, elastic=0, thicken=0, neighbours=0, blur=0,
        invert=0, color=1, contrast=1, tint=0, brightness=0, cutout=0, noise=0,
    )  # fmt: skip
    x = (torch.rand(4, 1, 32, 32, generator=random()) * 2 - 1).expand(4, 3, 32, 32)
    torch.testing.assert_close(augment(x, still, random()), x, atol=1e-5, rtol=0)


def test_augment_takes_grey_pictures() -> None:
    assert augment(torch.rand(4, 1, 32, 32), Augment(), random()).shape == (4, 1, 32, 32)


def test_diff_augment_only_moves_and_blanks() -> None:
    x = torch.rand(32, 3, 32, 32, generator=random()) * 0.9 + 0.05
    y = diff_augment(x, random(), blank=1.0)
    assert y.shape == x.shape
    for before, after in zip(x, y, strict=True):
        blank = after == 1.0
        assert (blank == blank[:1]).all()  # in every channel alike
        kept = after[~blank]
        assert len(kept) >= 3 * ((32 - 3) ** 2 - 8 * 8)
        assert torch.isin(kept, before).all()


def test_diff_augment_never_mirrors() -> None:
    x = torch.linspace(0, 1, 32).expand(64, 1, 32, 32)
    y = diff_augment(x, random())
    rows = y[:, 0, 16, 4:28]
    whole = (rows != -1).all(1)
    assert whole.sum() > 16
    assert (rows[whole].diff(dim=1) > 0).all()


def test_diff_augment_lets_gradients_through() -> None:
    x = torch.zeros(2, 1, 32, 32, requires_grad=True)
    diff_augment(x, random()).sum().backward()
    assert x.grad is not None
    assert x.grad.sum() > 2 * 700
