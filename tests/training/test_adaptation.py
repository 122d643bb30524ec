import torch

from training.adaptation import nearest
from training.data import Split


def test_the_nearest_picture_decides_by_hand() -> None:
    moved = torch.tensor([0, 100, 250], dtype=torch.uint8).view(3, 1, 1, 1)
    labels = torch.tensor([7, 8, 9])
    images = torch.tensor([10, 60, 180, 255], dtype=torch.uint8).view(4, 1, 1, 1)
    assert nearest(moved, labels, Split("t", images, torch.tensor([7, 8, 9, 9]))) == 1
    assert nearest(moved, labels, Split("t", images, torch.tensor([7, 7, 8, 9]))) == 0.5


def test_every_picture_is_counted_once_in_chunks() -> None:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (1203, 1, 4, 4), generator=random, dtype=torch.uint8)
    labels = torch.randint(0, 10, (1203,), generator=random)
    assert nearest(images, labels, Split("t", images, labels)) == 1
    wrong = (labels + (torch.arange(1203) < 3)) % 10
    assert nearest(images, labels, Split("t", images, wrong)) == 1200 / 1203
