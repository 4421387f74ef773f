"""Features on disk, found again by the content of the image and of the encoder."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from checkpoints.files import read_torch_file
from utils.noise import image_keys
from utils.paths import write_atomically


class FeatureCache:
    """A folder with one file of features for every image that was seen.

    It saves time only for images that come again exactly as they were: a colour jitter makes every image of every
    epoch a new one, and the folder then grows without use. It holds as many bytes as the features have.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, images: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """The features of images (B x channels x H x W); `compute` is asked for those that are not in the folder.

        Raises:
            UserError: where the folder cannot be written, or holds a damaged file.
        """
        size = "x".join(map(str, images.shape[1:]))
        paths = [self.folder / f"{size}_{key & (2**64 - 1):016x}.pt" for key in image_keys(images).tolist()]
        missing = [row for row, path in enumerate(paths) if not path.is_file()]
        if missing:
            for row, features in zip(missing, compute(images[missing]), strict=True):
                _write(paths[row], features)
        return torch.stack([read_torch_file(path) for path in paths]).to(images)


def _write(path: Path, features: Tensor) -> None:
    contents = features.cpu().clone()
    write_atomically(path, lambda temporary: torch.save(contents, temporary))
