"""Class weights in the loss: given, uniform, or by the frequencies of the classes."""

from typing import Any

import pytest
import torch

from datasets.class_weights import class_weights
from utils.errors import UserError


class Own:
    """One image of 8 pixels with two annotators: 1, 1 and 6 pixels of the classes 0, 1 and 3, and 8 of class 1."""

    num_classes, image_channels = 4, 1

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        labels = torch.tensor([[[0, 1, 3, 3, 3, 3, 3, 3]], [[1] * 8]], dtype=torch.uint8)
        return {"image": torch.zeros(1, 1, 8), "labels": labels, "name": "x"}


def weights(choice: Any, **attributes: Any) -> list[float]:
    result = class_weights(choice, Own(**attributes))
    assert result is not None
    assert result.dtype == torch.float32
    return result.tolist()


def enet_weight(frequency: float) -> Any:
    return pytest.approx(1 / torch.tensor(1.02 + frequency).log().item(), rel=1e-5)


def test_wrong_number_of_weights_is_refused() -> None:
    with pytest.raises(UserError, match=r"3 values; tests\.datasets\.test_class_weights has 4 classes"):
        weights([1.0, 1.0, 1.0])


def test_weighted_uses_the_frequencies_of_all_classes_but_void() -> None:
    assert weights("weighted") == [enet_weight(1 / 16), enet_weight(9 / 16), enet_weight(0), enet_weight(6 / 16)]
    assert weights("weighted", void_class=3) == [enet_weight(0.1), enet_weight(0.9), enet_weight(0), 0]


def test_class_counts_of_the_dataset_are_used() -> None:
    counts = torch.tensor([5, 5, 0, 0])
    assert weights("weighted", class_counts=lambda: counts)[0] == enet_weight(0.5)


@pytest.mark.parametrize(
    ("choice", "void", "expected"),
    [
        ([1.0, 2.0, 0.5, 0.0], None, [1, 2, 0.5, 0]),
        ("uniform", None, [1, 1, 1, 1]),
        ("uniform", 3, [1, 1, 1, 0]),
    ],
)
def test_weights_are_those_given_or_uniform_without_void(choice: Any, void: int | None, expected: list[float]) -> None:
    assert weights(choice, void_class=void) == expected
    assert class_weights(None, Own()) is None
