"""What sampling returns."""

from typing import NamedTuple

from torch import Tensor


class Samples(NamedTuple):
    """What `CCDM.sample` returns for B images with S samples each.

    Attributes:
        labels: the sampled label maps, uint8, B x S x H x W.
        probabilities: class probabilities of the last step, averaged over the samples, float32, B x C x H x W.
    """

    labels: Tensor
    probabilities: Tensor


class SampleChunk(NamedTuple):
    """M label maps that were sampled together.

    Attributes:
        image_index: the image of each, 0 .. B-1, int64, M.
        sample_index: the position of each among the samples of its image, 0 .. S-1, int64, M.
        labels: the label maps, uint8, M x H x W.
        probabilities: class probabilities of the last step, M x C x H x W.
    """

    image_index: Tensor
    sample_index: Tensor
    labels: Tensor
    probabilities: Tensor
