"""Augmentation of an image together with its label map, by torchvision's transforms, named in the settings."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from utils.errors import UserError

_QUARTERS = (0.0, 90.0, 180.0, 270.0)


class QuarterTurn(v2.Transform):
    """Turn by 0, 90, 180 or 270 degrees, each as likely as the others."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"angle": _QUARTERS[int(torch.randint(4, ()))]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return self._call_kernel(v2.functional.rotate, inpt, params["angle"], expand=True)


AUGMENTATIONS: dict[str, Callable[[], nn.Module]] = {
    "flip": lambda: v2.RandomHorizontalFlip(),
    "flip_vertical": lambda: v2.RandomVerticalFlip(),
    "quarter_turn": QuarterTurn,
}


class Augmentation:
    """The named augmentations in a row; what they draw is a function of the seed of each call.

    Raises:
        UserError: for a name that does not exist.
    """

    def __init__(self, names: list[str]) -> None:
        unknown = [name for name in names if name not in AUGMENTATIONS]
        if unknown:
            raise UserError(f"dataset_pipeline_train: unknown {unknown[0]!r}; there are: {', '.join(AUGMENTATIONS)}")
        self.transform = v2.Compose([AUGMENTATIONS[name]() for name in names]) if names else None

    def __call__(self, image: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """The image (channels x H x W) and its label map (H x W), both changed in the same way."""
        if self.transform is None:
            return image, labels
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            image, mask = self.transform(tv_tensors.Image(image), tv_tensors.Mask(labels[None]))
        return image.as_subclass(Tensor).contiguous(), mask.as_subclass(Tensor)[0].contiguous()
