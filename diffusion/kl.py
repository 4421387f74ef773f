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


class _WithGradient(torch.autograd.Function):
    """A function whose `forward` has saved its gradient with respect to the first of seven arguments."""

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad, None, None, None, None, None, None


class PosteriorKL(_WithGradient):
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


class SoftPosteriorKL(_WithGradient):
    """`PosteriorKL` for a distribution over x_0 instead of a single label map: KL( q(x_s | x_t) || p(x_s | x_t) ).

    Both sides have the form of p above, so that with v_c = r_c / D_c for the target probabilities r,

        q_k = A_k G_k,   G_k = sum_c Q_k(c) v_c,   KL = sum_k q_k log( G_k / B_k ),   R_k = q_k / B_k

    and the gradient keeps its form. Arguments of `apply` as there, with the target (B x C x H x W) for x_0; at s = 0
    the divergence is KL( r || p ).
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, x_t: Tensor, target: Tensor, is_last: Tensor, step: Kernel, past: Kernel, full: Kernel
    ) -> Tensor:
        log_p = F.log_softmax(logits, dim=1)
        kl_last = torch.special.entr(target).neg_().sub_(target * log_p).sum(1, keepdim=True)
        p = log_p.exp_()
        is_x_t = x_t == torch.arange(logits.shape[1], device=x_t.device)[:, None, None]
        inverse_d = torch.where(is_x_t, 1 / full.same, 1 / full.other)
        w, v = p * inverse_d, target * inverse_d
        # At s = 0 neither logarithms nor ratios are used; 1 keeps those of vanishing classes finite.
        b, g = ((x * past.keep).add_(past.other * x.sum(1, keepdim=True) + is_last) for x in (w, v))
        q = g * torch.where(is_x_t, step.same, step.other)
        kl = torch.where(is_last, kl_last, (q * (g / b).log_()).sum(1, keepdim=True))
        ratio = q.div_(b)
        spread = past.other * ratio.sum(1, keepdim=True)
        ctx.save_for_backward(p.sub_(torch.where(is_last, target, ratio.mul_(past.keep).add_(spread).mul_(w))))
        return kl


class BinaryPosteriorKL(torch.autograd.Function):
    """`SoftPosteriorKL` for two classes: arrays of one channel, and arithmetic instead of indexing, which is faster.

    Arguments of `apply` as there, but the target is the probability of class 1 (B x 1 x H x W).
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, x_t: Tensor, target: Tensor, is_last: Tensor, step: Kernel, past: Kernel, full: Kernel
    ) -> Tensor:
        z_0, z_1 = logits.split(1, dim=1)
        z, is_1 = z_1 - z_0, x_t.to(logits.dtype)
        is_0 = 1 - is_1
        p_1 = torch.sigmoid(z)
        inverse, more = 1 / full.same, 1 / full.other - 1 / full.same  # from the smaller number, which is exact
        inverse_d_0, inverse_d_1 = torch.addcmul(inverse, is_1, more), torch.addcmul(inverse, is_0, more)

        def mixed(r_0: Tensor, r_1: Tensor) -> tuple[Tensor, Tensor]:
            # At s = 0 neither logarithms nor ratios are used; 1 keeps those of vanishing classes finite.
            rest = (r_0 + r_1).mul_(past.other).add_(is_last)
            return torch.addcmul(rest, r_0, past.keep), torch.addcmul(rest, r_1, past.keep)

        w_1 = p_1 * inverse_d_1
        b_0, b_1 = mixed(torch.sigmoid(-z).mul_(inverse_d_0), w_1)
        g_0, g_1 = mixed(inverse_d_0.sub_(inverse_d_0 * target), inverse_d_1.mul_(target))
        q_0 = torch.addcmul(step.other, is_0, step.keep).mul_(g_0)
        q_1 = torch.addcmul(step.other, is_1, step.keep).mul_(g_1)
        kl = g_1.div_(b_1).log_().mul_(q_1).addcmul_(g_0.div_(b_0).log_(), q_0)
        ratio_1, ratio_0 = q_1.div_(b_1), q_0.div_(b_0)
        change = ratio_0.add_(ratio_1).mul_(past.other).addcmul_(ratio_1, past.keep).mul_(w_1)

        entropy = torch.special.entr(target).add_(torch.special.entr(1 - target))
        kl_last = F.softplus(z).addcmul_(z, target, value=-1).sub_(entropy)
        ctx.save_for_backward(p_1.sub_(torch.where(is_last, target, change)))
        return torch.where(is_last, kl_last, kl)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        gradient = gradient * grad
        return torch.cat([-gradient, gradient], dim=1), None, None, None, None, None, None


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
