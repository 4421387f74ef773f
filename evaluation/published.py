"""The paper's numbers, to stand beside ours (Zbinden et al., ICCV 2023, Tables 1 to 3)."""

from typing import NamedTuple


class Published(NamedTuple):
    """What the paper reports for a data set.

    Attributes:
        name: the benchmark's name.
        values: the mean by (measure, number of samples).
        note: what to keep in mind when comparing.
    """

    name: str
    values: dict[tuple[str, int], float]
    note: str


PAPER = {
    "datasets.lidc": Published(
        "LIDCv1",
        {
            ("ged", 16): 0.212, ("ged", 32): 0.194, ("ged", 50): 0.187, ("ged", 100): 0.183,
            ("hm_iou", 16): 0.623, ("hm_iou", 32): 0.631,
        },
        "The paper's split of 15,096 slices was never published by patient; its samples take 250 steps.",
    ),
    "datasets.lidc_crops": Published(
        "LIDCv2",
        {("ged", 16): 0.239, ("ged", 50): 0.216, ("ged", 100): 0.210, ("hm_iou", 16): 0.598},
        "The paper's samples take 250 steps.",
    ),
}  # fmt: skip

PAPER_CITYSCAPES = {
    "128x256": {1: 53.2, 5: 55.4, 10: 56.2},
    "128x256 with DINO": {1: 55.5, 5: 56.9, 10: 57.3},
    "256x512": {1: 60.3, 5: 62.0, 10: 62.4},
    "256x512 with DINO": {1: 64.0, 5: 65.4, 10: 65.8},
}
"""Mean IoU in percent on the validation split, by network and number of samples fused."""
