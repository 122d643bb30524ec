"""The peer: the training loop that a reader of the paper would write first.

The same f, g and D and the same losses (Eq. 3 to 6), in float32, eager, with two DataLoaders of
pictures. f(x) is computed where it is needed, which is at every step.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from training.config import DigitsConfig
from training.data import Split
from training.networks import DigitNet


class Pictures(Dataset[Tensor]):
    """A split's pictures as float [C, 32, 32] in [-1, 1], one at a time."""

    def __init__(self, split: Split) -> None:
        self.images = split.images.cpu()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index].float().div(127.5).sub(1)


def endless(split: Split, batch: int, workers: int) -> Iterator[Tensor]:
    """Batches [B, C, 32, 32], shuffled anew each epoch."""
    loader = DataLoader(
        Pictures(split),
        batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=workers > 0,
    )
    while True:
        yield from loader


class PlainLoop:
    """g, D and their Adams; `step` is one update of each."""

    def __init__(
        self, f: DigitNet, g: nn.Module, D: nn.Module, config: DigitsConfig, device: torch.device
    ) -> None:
        self.f, self.g, self.D = f, g.to(device), D.to(device)
        self.config, self.device = config, device
        betas = (config.beta1, 0.999)
        self.g_optimizer = torch.optim.Adam(g.parameters(), config.lr, betas)
        self.d_optimizer = torch.optim.Adam(D.parameters(), config.lr, betas)

    def look(self, *pictures: Tensor) -> Sequence[Tensor]:
        """D's logits of each kind of pictures, in one batch where the preset has it so."""
        if self.config.common_batch:
            return torch.split(self.D(torch.cat(pictures)), len(pictures[0]))
        return [self.D(x) for x in pictures]

    def told(self, logits: Tensor, kind: int) -> Tensor:
        """-log D_kind of logits [B, 3], averaged."""
        return F.cross_entropy(logits, torch.full((len(logits),), kind, device=self.device))

    def step(self, x: Tensor, t: Tensor) -> float:
        """One update of D and one of g on x [B, 3, 32, 32] and t [B, 1, 32, 32]; L_G."""
        x, t = x.to(self.device), t.to(self.device)
        with torch.no_grad():
            fx, ft = self.f.features(x), self.f.features(t)
        gx, gt = self.g(fx), self.g(ft)
        of_gx, of_gt, of_t = self.look(gx.detach(), gt.detach(), t)
        d_loss = self.told(of_gx, 0) + self.told(of_gt, 1) + self.told(of_t, 2)
        self.d_optimizer.zero_grad()
        d_loss.backward()  # type: ignore[no-untyped-call]
        self.d_optimizer.step()
        beside = (t,) if self.config.common_batch else ()
        of_gx, of_gt, *_ = self.look(gx, gt, *beside)
        loss = self.told(of_gx, 2) + self.told(of_gt, 2)
        loss = loss + self.config.alpha * F.mse_loss(self.f.features(gx), fx)
        loss = loss + self.config.beta * F.mse_loss(gt, t)
        self.g_optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.g_optimizer.step()
        return float(loss.item())
