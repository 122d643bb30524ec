"""Table 2: unsupervised domain adaptation by a nearest neighbour among transferred pictures."""

import torch
from torch import Tensor

from training.data import Split


@torch.no_grad()
def nearest(moved: Tensor, labels: Tensor, test: Split) -> float:
    """Share of `test` that the nearest of G(s) gives its label, in Euclidean distance of pixels.

    `moved` are G(x), uint8 [N, 1, 32, 32], of labelled x, `labels` their digits [N]. Nothing
    learns; where two are equally near the first decides.
    """
    taught = moved.flatten(1).float()
    right = 0
    for images, digits in zip(
        torch.split(test.images, 500), torch.split(test.labels, 500), strict=True
    ):
        # ‖a‖² is the same for every neighbour of a.
        distance = taught.square().sum(1) - 2 * images.flatten(1).float() @ taught.T
        right += int((labels[distance.argmin(1)] == digits).sum())
    return right / len(test)
