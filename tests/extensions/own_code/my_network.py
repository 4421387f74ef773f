"""Three convolutions: no stride, no config class, no features."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ThreeConvolutions(nn.Module):
    def __init__(self, num_states: int, num_classes: int, image_channels: int, width: int) -> None:
        super().__init__()
        self.num_states = num_states
        self.layers = nn.Sequential(
            nn.Conv2d(num_states + image_channels + 1, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, num_classes, 3, padding=1),
        )

    def forward(self, x_t: Tensor, t: Tensor, images: Tensor) -> Tensor:
        one_hot = F.one_hot(x_t.long(), self.num_states).movedim(-1, 1).to(images.dtype)
        time = (t / 100).to(images.dtype)[:, None, None, None].expand_as(images[:, :1])
        return self.layers(torch.cat([one_hot, images, time], dim=1))


def get_network(
    num_classes: int, image_channels: int, num_states: int | None = None, width: int = 16
) -> ThreeConvolutions:
    return ThreeConvolutions(num_states or num_classes, num_classes, image_channels, width)
