"""Sec. 4's other d2: a second GAN in place of the mean squared error of Eq. 6.

Its D2 sees a picture of T beside G of it, and learns to tell that from the picture beside itself.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import Tensor, nn

from training.captured import adam, take_up
from training.losses import binary_d_loss, binary_gan_loss
from training.parallel import average_gradients


class SecondGAN:
    """D2 and its optimiser. `net` takes [B, 2 C, H, W] and gives logits [B, 3]."""

    def __init__(self, net: nn.Module, lr: float, betas: tuple[float, float]) -> None:
        self.net = net
        self.optimizer = adam(net.parameters(), lr, betas)

    def look(self, x: Tensor, y: Tensor) -> Tensor:
        """Logits of pairs of pictures [B, C, H, W]."""
        return cast(Tensor, self.net(torch.cat([x, y.to(x.dtype)], 1)))

    def step(
        self, t: Tensor, gt: Tensor, autocast: Callable[[], AbstractContextManager[Any]]
    ) -> Tensor:
        """Update D2 on t beside itself and beside G(t), which is cut off from g; its loss."""
        with autocast():
            loss = binary_d_loss(self.look(t, gt), self.look(t, t))
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        average_gradients(self.net.parameters())
        self.optimizer.step()
        return loss

    def loss(self, t: Tensor, gt: Tensor) -> Tensor:
        """L_TID: how surely D2 tells G(t) from t. Reaches G, leaves D2 as it is."""
        self.net.requires_grad_(False)
        logits = self.look(t, gt)
        self.net.requires_grad_(True)
        return binary_gan_loss(logits)

    def state(self) -> dict[str, Any]:
        """What `restore` takes."""
        return {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up `state`."""
        self.net.load_state_dict(state["net"])
        take_up(self.optimizer, state["optimizer"])
