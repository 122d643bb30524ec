"""The Domain Transfer Network: G = g∘f learned against D, Eq. 3 to 7, for any two domains.

f is frozen, so f(x) of every picture of s and t is computed once; of s the training then needs
no picture, and of its labels it never sees one.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from training.augment import diff_augment, jittered
from training.captured import Graphs, adam, set_rate, take_up
from training.config import JITTER, DTNConfig
from training.losses import (
    binary_d_loss,
    binary_gan_loss,
    const_loss,
    d_loss,
    gang_loss,
    logits_loss,
    red_loss,
    symmetry_loss,
    tid_loss,
    tv_loss,
)
from training.networks import initialise, placed
from training.parallel import average_gradients, own_seed, rank, ranks
from training.run import autocast, device_name, ema_share, ema_update
from training.second_gan import SecondGAN

FINISH_LR = 0.5  # of lr, where the cosine of a Finish begins


class Features(Protocol):
    """A frozen f."""

    def features(self, x: Tensor) -> Tensor:
        """f(x) of pictures [B, C, H, W] in [-1, 1]: [B, K]."""


class Pixels:
    """In place of f where G starts from pixels: the picture itself, in three channels."""

    def features(self, x: Tensor) -> Tensor:
        """[B, 1 or 3, H, W] in [-1, 1]: [B, 3, H, W]."""
        return x.expand(-1, 3, -1, -1)


def unchanged(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True)
class Finish:
    """The last steps of a training: in every so many of them f sees what is made of G(s)."""

    steps: int = 0
    every: int = 1
    enlarge: Callable[[Tensor], Tensor] = unchanged  # pictures [B, C, H, W] to larger ones
    alpha: float | None = None  # weight of L_CONST, if another
    red: float = 0.0  # weight of how far G(s) is from that
    symmetry: float = 0.0  # weight of how far faces in G(s) are from their mirror images
    stress: Tensor | float = 1.0  # factors of f's numbers in L_CONST, [K]
    caricature: Tensor | float = 1.0  # factors of f(s), for g and for L_CONST, [K]

    def between(self) -> "Finish":
        """For the other steps, in which f sees G(s) itself."""
        return replace(self, enlarge=unchanged, red=0.0)


NO_FINISH = Finish()


class Kind(NamedTuple):
    """What makes steps differ in what they compute."""

    tid_alone: bool  # g learns L_TID alone
    penalised: bool  # D pays R1
    finishing: bool  # it is one of Finish's
    enlarged: bool  # and of those in which f sees what is made of G(s)


class DTN:
    """g, D, their optimisers and the averaged g; one call of `step` is one update of each.

    On one GPU, steps are recorded as CUDA graphs where `captured`.
    """

    def __init__(
        self,
        f: Features,
        g: nn.Sequential,
        D: nn.Module,
        config: DTNConfig,
        device: torch.device,
        blank: float = -1.0,
        second: SecondGAN | None = None,
        head: Callable[[Tensor], Tensor] | None = None,
        finish: Finish = NO_FINISH,
        captured: bool = True,
    ) -> None:
        if config.const_logits and head is None:
            raise ValueError("const_logits wants an f that is a classifier; this one has no logits")
        self.f = f
        self.finish = finish
        self.head = head if config.const_logits else None  # f's classifier: features to logits
        self.start: Features = Pixels() if config.from_pixels else f  # what g is applied to
        self.config = config
        self.device = device
        self.blank = blank
        self.second = second
        self.g = placed(initialise(g), device)
        self.D = placed(initialise(D), device)
        self.average = copy.deepcopy(self.g).eval()
        betas = (config.beta1, 0.999)
        self.g_optimizer = adam(self.g.parameters(), config.lr, betas)
        self.d_optimizer = adam(self.D.parameters(), config.lr, betas)
        self.random = torch.Generator(device).manual_seed(own_seed(config.seed))
        self.fresh = torch.ones((), device=device)  # share of g in its average's next state
        alone = captured and device.type == "cuda" and ranks() == 1
        self.graphs = Graphs(self.update, [self.random]) if alone else None

    def autocast(self) -> torch.autocast:
        """bf16 for a forward pass; one context each, since it caches the weights it casts."""
        return autocast(self.device, self.config.bf16)

    def look(self, *pictures: Tensor) -> tuple[Tensor, ...]:
        """D's logits of each batch [B, C, H, W]: the one door to D, where DiffAugment stands."""
        if self.config.diff_augment:
            pictures = tuple(diff_augment(x, self.random, self.blank) for x in pictures)
        if self.config.common_batch:
            return torch.split(self.D(torch.cat(pictures)), [len(x) for x in pictures])
        return tuple(cast(Tensor, self.D(x)) for x in pictures)

    def d_step(self, gs: Tensor, gt: Tensor | None, t: Tensor, penalised: bool) -> Tensor:
        """Update D by Eq. 3, or 1, on pictures cut off from g; returns L_D."""
        config = self.config
        with self.autocast():
            if config.adversary == "binary" or gt is None:
                loss = binary_d_loss(*self.look(gs.detach(), t))
            else:
                loss = d_loss(*self.look(gs.detach(), gt.detach(), t))
        total = loss
        if penalised:
            total = loss + config.r1 * config.r1_every / 2 * self.r1_penalty(t)
        self.d_optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        average_gradients(self.D.parameters())
        self.d_optimizer.step()
        return loss

    def r1_penalty(self, t: Tensor) -> Tensor:
        """E ‖∇ log-odds of "real"‖² over real t (Mescheder et al. 2018, R1)."""
        t = t.detach().requires_grad_()
        (logits,) = self.look(t)
        fakes = logits[:, :1] if self.config.adversary == "binary" else logits[:, :2]
        odds = logits[:, 2] - fakes.logsumexp(1)
        (slope,) = torch.autograd.grad(odds.sum(), t, create_graph=True)
        return slope.square().sum((1, 2, 3)).mean()

    def g_losses(
        self,
        gs: Tensor,
        gt: Tensor | None,
        fs: Tensor,
        t: Tensor,
        finish: Finish = NO_FINISH,
    ) -> dict[str, Tensor]:
        """The terms of L_G that there are: Eq. 4 (or 1), 5, 6 and 7, unweighted.

        gs = G(s) and gt = G(t) are pictures [B, C, H, W], fs = f(s) is [B, K].
        """
        shown = finish.enlarge(gs)
        judged = jittered(shown.float(), JITTER, self.random) if self.config.const_jitter else shown
        losses = {
            "const": self.const(
                fs * finish.stress, self.f.features(judged).float() * finish.stress
            ),
            "tv": tv_loss((gs if gt is None else torch.cat([gs, gt])).float()),
        }
        beside = (t,) if self.config.common_batch else ()
        if self.config.adversary == "binary" or gt is None:
            losses["gang"] = binary_gan_loss(self.look(gs, *beside)[0])
        elif self.config.adversary == "ternary":
            losses["gang"] = gang_loss(*self.look(gs, gt, *beside)[:2])
        if gt is not None:
            losses["tid"] = (
                tid_loss(t, gt.float()) if self.second is None else self.second.loss(t, gt)
            )
        if finish.symmetry:
            losses["symmetry"] = symmetry_loss(gs.float())
        if finish.red:
            losses["red"] = red_loss(gs.float(), shown.float())
        return losses

    def const(self, fx: Tensor, fgx: Tensor) -> Tensor:
        """L_CONST (Eq. 5) of features [B, K], a share of it in the logits of f's classifier."""
        loss = const_loss(fx, fgx, self.config.d)
        if self.head is None:
            return loss
        share = self.config.const_logits
        return (1 - share) * loss + share * logits_loss(fx, fgx, self.head)

    def generate(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor | None]:
        """G(s) and G(t) of what G starts from; no G(t) in Sec. 3, which knows none."""
        if self.config.adversary == "binary" and not self.config.beta:
            return self.g(x), None
        gs, gt = self.g(torch.cat([x, t])).split(len(x))
        return gs, gt

    def step(
        self, fs: Tensor, ft: Tensor, t: Tensor, step: int, s: Tensor | None = None
    ) -> dict[str, Tensor]:
        """One step of D and one of g on f(s), f(t) [B, K] and t [B, C, H, W]; the losses.

        `s` [B, 3, H, W] is wanted where G starts from pixels.
        """
        config = self.config
        if config.lr_decay:
            rate = decayed(config.lr, step, config.steps, self.finish.steps)
            set_rate(self.g_optimizer, rate)
            set_rate(self.d_optimizer, rate)
        self.fresh.fill_(ema_share(config.ema, step))
        finishing = step >= config.steps - self.finish.steps
        kind = Kind(
            step < config.tid_first,
            bool(config.r1) and step % config.r1_every == 0,
            finishing,
            finishing and step % self.finish.every == 0,
        )
        inputs = (fs, ft, t) if s is None else (fs, ft, t, s)
        update = self.update if self.graphs is None else self.graphs.step
        return update(kind, *inputs)

    def update(
        self, kind: Kind, fs: Tensor, ft: Tensor, t: Tensor, s: Tensor | None = None
    ) -> dict[str, Tensor]:
        """What `step` does once its numbers are set."""
        config = self.config
        if kind.tid_alone:
            with self.autocast():
                losses = {"tid": tid_loss(t, self.g(ft).float())}
            self.g_step({"tid": 1.0}, losses)
            return losses
        finish = NO_FINISH
        if kind.finishing:
            finish = self.finish if kind.enlarged else self.finish.between()
        fs = fs * finish.caricature
        with self.autocast():
            gs, gt = self.generate(*((fs, ft) if s is None else (s, self.start.features(t))))
        losses = {}
        if config.adversary != "none":
            losses["d"] = self.d_step(gs, gt, t, kind.penalised)
        if self.second is not None and gt is not None:
            losses["d2"] = self.second.step(t, gt.detach(), self.autocast)
        self.D.requires_grad_(False)
        with self.autocast():
            losses |= self.g_losses(gs, gt, fs, t, finish)
        weights = {
            "gang": 1.0,
            "const": config.alpha if finish.alpha is None else finish.alpha,
            "tid": config.beta,
            "tv": config.gamma,
            "red": finish.red,
            "symmetry": finish.symmetry,
        }
        self.g_step(weights, losses)
        self.D.requires_grad_(True)
        return losses

    def g_step(self, weights: dict[str, float], losses: dict[str, Tensor]) -> None:
        """Update g, and its average, by the weighted sum of losses."""
        total = sum(
            (
                weight * losses[name]
                for name, weight in weights.items()
                if weight and name in losses
            ),
            0.0,
        )
        self.g_optimizer.zero_grad()
        cast(Tensor, total).backward()  # type: ignore[no-untyped-call]
        average_gradients(self.g.parameters())
        self.g_optimizer.step()
        ema_update(self.average, self.g, self.fresh)

    def state(self, step: int) -> dict[str, Any]:
        """Everything an exact resume needs."""
        return {
            "step": step,
            "trained_on": device_name(self.device),
            "second": None if self.second is None else self.second.state(),
            "g": self.g.state_dict(),
            "D": self.D.state_dict(),
            "average": self.average.state_dict(),
            "g_optimizer": self.g_optimizer.state_dict(),
            "d_optimizer": self.d_optimizer.state_dict(),
            "random": self.random.get_state(),
        }

    def restore(self, state: dict[str, Any]) -> int:
        """Take up `state`; returns its step."""
        for name in ("g", "D", "average"):
            getattr(self, name).load_state_dict(state[name])
        for name in ("g_optimizer", "d_optimizer"):
            take_up(getattr(self, name), state[name])
        if self.second is not None:
            self.second.restore(state["second"])
        if rank() == 0:  # the others' draws go on from their seed
            self.random.set_state(state["random"].cpu())
        return int(state["step"])


def decayed(rate: float, step: int, steps: int, finish: int) -> float:
    """A learning rate by a cosine to zero, and by a second one over the last `finish` of steps."""
    began, ends = 0, steps - finish
    if step >= ends:
        began, ends, rate = ends, steps, FINISH_LR * rate
    return rate * (0.5 + 0.5 * math.cos(math.pi * (step - began) / (ends - began)))
