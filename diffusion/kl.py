"""The KL divergence of the training loss with its gradient in closed form: few passes over the classes, little memory.

Per pixel, with the two-valued kernels of `UniformDiffusion` (A from s to t, Q from 0 to s, D from 0 to t) and the
network's p = softmax(z), both posteriors are products with the same factor A_k:

    q_k = A_k Q_k(x_0) / D(x_0)         p(x_s = k) = A_k B_k,    B_k = sum_c Q_k(c) w_c,    w_c = p_c / D_c

so that KL = sum_k q_k log( Q_k(x_0) / (D(x_0) B_k) ). Differentiating, with R_k = q_k / B_k and Q_k(c) = keep 1(k = c)
+ other,

    dKL/dz_i = p_i - w_i (keep R_i + other sum_k R_k)

because sum_i p_i dKL/dp_i = -1. A, Q and hence q take one value at x_t, one at x_0 and one at all other classes.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


class Kernel(NamedTuple):
    """A forward kernel per image: the class is kept with probability `keep`, or redrawn, `other` for each class."""

    keep: Tensor
    other: Tensor

    @property
    def same(self) -> Tensor:
        """The probability that the class comes out as it went in, by being kept or by chance."""
        return self.keep + self.other


class PosteriorKL(torch.autograd.Function):
    """KL( q(x_s | x_t, x_0) || p(x_s | x_t) ) per pixel, differentiable once with respect to the logits.

    Arguments of `apply`: logits (B x C x H x W); x_t and x_0 (int64, B x 1 x H x W); whether s = 0, where the
    divergence is the cross entropy of x_0; and the kernels s -> t, 0 -> s and 0 -> t (values of B x 1 x 1 x 1).
    Returns B x 1 x H x W, in the dtype of the logits.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, x_t: Tensor, x_0: Tensor, is_last: Tensor, step: Kernel, past: Kernel, full: Kernel
    ) -> Tensor:
        log_p = F.log_softmax(logits, dim=1)
        log_p_0 = log_p.gather(1, x_0)
        p = log_p.exp_()
        w = p / full.other
        w.scatter_(1, x_t, p.gather(1, x_t) / full.same)
        # At s = 0 neither logarithms nor ratios of B are used; 1 keeps those of vanishing classes finite.
        b = (w * past.keep).add_(past.other * w.sum(1, keepdim=True) + is_last)
        b_t, b_0 = b.gather(1, x_t), b.gather(1, x_0)

        same = (x_t == x_0).to(p.dtype)
        if_same, if_not = _two_cases(logits.shape[1], is_last, step, past, full)
        # By arithmetic, since `where` is slow where its choices broadcast; from the smaller number on, which is exact.
        q_0, sum_q_log_ratio = (
            torch.addcmul(less, same, more - less) for less, more in zip(if_not[2:], if_same[2:], strict=True)
        )
        differ = 1 - same
        q_other, q_t = (
            torch.addcmul(less, differ, more - less) for less, more in zip(if_same[:2], if_not[:2], strict=True)
        )
        log_b = b.log().sum(1, keepdim=True).mul_(q_other)
        log_b.addcmul_(q_t - q_other, b_t.log()).addcmul_(q_0 - q_other, b_0.log())
        kl = sum_q_log_ratio.sub_(log_b).mul_(~is_last).addcmul_(log_p_0, is_last.to(p.dtype), value=-1)

        ratio = b.reciprocal_().mul_(q_other)
        ratio.scatter_(1, x_t, q_t / b_t)
        ratio.scatter_(1, x_0, q_0 / b_0)
        spread = past.other * ratio.sum(1, keepdim=True)
        gradient = p.sub_(ratio.mul_(past.keep * ~is_last).add_(spread).mul_(w))
        gradient.scatter_add_(1, x_0, -is_last.to(p.dtype).expand_as(x_0))
        ctx.save_for_backward(gradient)
        return kl

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad, None, None, None, None, None, None


def _two_cases(num_classes: int, is_last: Tensor, step: Kernel, past: Kernel, full: Kernel) -> tuple["_Case", "_Case"]:
    """What a pixel needs to know of q where x_t = x_0, and where not: a handful of numbers per image."""
    q_other, q_0 = (step.other * past.other / full.same, step.same * past.same / full.same)
    log_other = torch.where(is_last, 1, past.other).log()
    same_sum = (num_classes - 1) * q_other * (log_other - full.same.log()) + q_0 * (past.same / full.same).log()
    same = _Case(q_other, q_other, q_0, same_sum)

    q_other, q_t, q_0 = (
        kernel / full.other for kernel in (step.other * past.other, step.same * past.other, step.other * past.same)
    )
    rest = (num_classes - 2) * q_other + q_t
    differ_sum = rest * (log_other - full.other.log()) + q_0 * (past.same / full.other).log()
    return same, _Case(q_other, q_t, q_0, differ_sum)


class _Case(NamedTuple):
    """q(x_s | x_t, x_0) at any other class, at x_t and at x_0, and sum_k q_k log(Q_k / D): B x 1 x 1 x 1 each."""

    q_other: Tensor
    q_t: Tensor
    q_0: Tensor
    sum_q_log_ratio: Tensor
