"""GED and HM-IoU the textbook way: masks of all pairs compared by broadcasting, B x N x M x H x W."""

import math

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def pairwise_iou(a: Tensor, b: Tensor, num_classes: int) -> Tensor:
    """Mean IoU over the foreground classes of all pairs of a (B x N x H x W) and b (B x M x H x W): B x N x M."""
    scores = []
    for label in range(1, num_classes):
        mask_a, mask_b = (a == label).long()[:, :, None], (b == label).long()[:, None]
        intersection = (mask_a * mask_b).sum((-2, -1))
        union = (mask_a | mask_b).sum((-2, -1))
        scores.append(torch.where(union == 0, 1.0, intersection.double() / union.clamp(min=1)))
    return torch.stack(scores).mean(0)


def ged_and_hm_iou(labels: Tensor, samples: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """GED and HM-IoU of every image, with labels B x A x H x W and samples B x N x H x W."""
    across, among_labels, among_samples = (
        1 - pairwise_iou(a, b, num_classes) for a, b in ((labels, samples), (labels, labels), (samples, samples))
    )
    ged = 2 * across.mean((1, 2)) - among_labels.mean((1, 2)) - among_samples.mean((1, 2))
    size = math.lcm(labels.shape[1], samples.shape[1])
    matched = []
    for distance in across:
        repeated = distance.repeat(size // distance.shape[0], size // distance.shape[1])
        rows, columns = linear_sum_assignment(repeated)
        matched.append(1 - repeated[rows, columns].mean())
    return ged, torch.stack(matched)
