"""The schema of the training settings: what it accepts and refuses."""

from typing import Any

import pytest
from pydantic import ValidationError

from training.settings import TrainSettings


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("batch_size", 0),
        ("batch_size", True),
        ("batch_size", "8"),
        ("seed", 2**63),
        ("polyak_alpha", 1.0),
        ("network_params", None),
        ("optim.learning_rate", float("nan")),
        ("sampling.eta", 1.5),
        ("feature_cond_encoder.source_layer", 12),
    ],
)
def test_impossible_values_are_refused(key: str, value: Any) -> None:
    group, _, name = key.rpartition(".")
    with pytest.raises(ValidationError) as refusal:
        TrainSettings.model_validate({group: {name: value}} if group else {name: value})
    assert name in refusal.value.errors()[0]["loc"]


def test_learning_rate_may_be_constant() -> None:
    constant = {"learning_rate": 1e-4, "lr_params": {"min_lr": 1e-4}}
    assert TrainSettings.model_validate({"optim": constant}).optim.lr_params.min_lr == 1e-4
