"""The losses of Sec. 4, Eq. 3 to 7: tensors in, a scalar out.

The paper writes Eq. 5, 6 and 7 as sums. Here every loss is a mean, over the batch and
over the features or pixels, so that alpha, beta and gamma do not depend on the sizes.
D's logits are [B, 3]; class 0 is the paper's 1, G(s); 1 its 2, G(t); 2 its 3, a real t.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from training.places import FACE, NOSE, positions, within

FAKE_S, FAKE_T, REAL = 0, 1, 2
MARGIN = 1.0  # of hinge and triplet; f's numbers have a deviation of about 1
TV_EPSILON = 1e-8


def _minus_log_probability(logits: Tensor, kind: int) -> Tensor:
    """-E log D_kind over a batch of logits [B, 3]."""
    return -F.log_softmax(logits.float(), 1)[:, kind].mean()


def d_loss(fake_s: Tensor, fake_t: Tensor, real: Tensor) -> Tensor:
    """L_D, Eq. 3: D tells G(s), G(t) and t apart. Logits [B, 3] of each kind."""
    return (
        _minus_log_probability(fake_s, FAKE_S)
        + _minus_log_probability(fake_t, FAKE_T)
        + _minus_log_probability(real, REAL)
    )


def gang_loss(fake_s: Tensor, fake_t: Tensor) -> Tensor:
    """L_GANG, Eq. 4: both fakes are pulled to the class of real t."""
    return _minus_log_probability(fake_s, REAL) + _minus_log_probability(fake_t, REAL)


def binary_d_loss(fake: Tensor, real: Tensor) -> Tensor:
    """-R_GAN of Eq. 1: a D of two classes, G(s) and t. Logits [B, 3], of which two are used."""
    return _minus_log_probability(fake[:, ::2], 0) + _minus_log_probability(real[:, ::2], 1)


def binary_gan_loss(fake: Tensor) -> Tensor:
    """G's side of Eq. 1 as -E log D(G(x)), whose slope does not vanish where D is sure."""
    return _minus_log_probability(fake[:, ::2], 1)


def const_loss(fx: Tensor, fgx: Tensor, d: str = "mse") -> Tensor:
    """L_CONST, Eq. 5: d(f(x), f(G(x))) of features [B, K], by one of the d that Sec. 3 names.

    `hinge` and `triplet` also push f(G(x)) away from f of the batch's next picture: the former
    until their mean squared distance is MARGIN, the latter until it is MARGIN larger than that
    to f(x). Raises ValueError for any other d.
    """
    if d == "mse":
        return F.mse_loss(fgx, fx)
    if d == "cosine":
        return (1 - F.cosine_similarity(fx, fgx)).mean()
    near = (fgx - fx).square().mean(1)
    far = (fgx - fx.roll(1, 0)).square().mean(1)
    if d == "hinge":
        return (near + (MARGIN - far).relu()).mean()
    if d == "triplet":
        return (MARGIN + near - far).relu().mean()
    raise ValueError(f"no distance {d!r}; there are mse, cosine, hinge and triplet")


def logits_loss(fx: Tensor, fgx: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
    """L_CONST where only what f's classifier says counts: its logits of f(x) and f(G(x)).

    fx and fgx are features [B, K], `head` is f's last layer. Logits vary more than features do:
    their squared distance is brought to the scale of `const_loss` by the batch's variances.
    """
    said = head(fx)
    scale = fx.var(0).mean() / said.var(0).mean().clamp(min=TV_EPSILON)
    return scale.detach() * F.mse_loss(head(fgx), said)


def tid_loss(x: Tensor, gx: Tensor) -> Tensor:
    """L_TID, Eq. 6, d2 = MSE: G is the identity on T. Pictures [B, C, H, W]."""
    return F.mse_loss(gx, x)


def red_loss(x: Tensor, larger: Tensor) -> Tensor:
    """Regularisation by denoising (Romano, Elad and Milanfar 2017): how far pictures x
    [B, C, H, W] are from what an upscaler that takes dirt away makes of them.

    `larger` [B, C, nH, nW] is that; it is reduced to the size of x and taken as given.
    """
    clean = F.avg_pool2d(larger.detach().clamp(-1, 1), larger.shape[-1] // x.shape[-1])
    return F.mse_loss(x, clean)


def symmetry_loss(x: Tensor) -> Tensor:
    """How far faces [B, C, S, S] of emoji are from their mirror images, mean-reduced; T's are
    their own but for hair and noses, which do not count."""
    where = positions(x.shape[-1], x.device)
    counted = within(where, FACE) & ~within(where, NOSE)
    difference = (x - x.flip(3)).abs().mean((0, 1))
    return (difference * counted).sum() / counted.sum()


def tv_loss(z: Tensor) -> Tensor:
    """L_TV, Eq. 7 with B = 1: anisotropic total variation of pictures [B, C, H, W].

    The square root has an infinite slope at 0, so flat pictures need the epsilon.
    """
    across = z[..., :-1, 1:] - z[..., :-1, :-1]
    down = z[..., 1:, :-1] - z[..., :-1, :-1]
    return (across.square() + down.square() + TV_EPSILON).sqrt().mean()
