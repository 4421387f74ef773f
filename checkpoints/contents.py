"""What a checkpoint contains, as a schema that refuses contents that cannot be used."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, InstanceOf, model_validator
from torch import Tensor

from checkpoints.preprocessing import Preprocessing
from models.build import ModelConfig
from models.dino import ARCHITECTURES, EncoderConfig
from utils.config import Config, NonNegative, Positive, choice_of

Weights = dict[str, InstanceOf[Tensor]]


class TrainedWith(Config):
    """The settings of the training, as far as they are used later."""

    model_config = ConfigDict(extra="allow")

    dataset_file: str | None = None
    dataset_params: dict[str, Any] = Field({})
    feature_cond_encoder: dict[str, Any] | None = None


class StoredEncoder(EncoderConfig):
    """An encoder, and the digest of its weights if it is frozen."""

    model: choice_of(ARCHITECTURES)  # type: ignore[valid-type]  # without the default, which would be downloaded
    digest: str | None = None


class Contents(ModelConfig):
    """The entries of a checkpoint; those that follow `step` are only needed to resume a training."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=True)

    encoder: StoredEncoder | None = None
    encoder_weights: str | Weights | None = None
    settings: TrainedWith
    preprocessing: Preprocessing
    model: Weights
    average: Weights
    step: NonNegative
    num_averaged: NonNegative = 0
    optimizer: dict[str, Any] = Field({})
    times: Weights = Field({})
    best: dict[str, float] = Field({})
    validated: NonNegative = 0
    nonfinite_steps: Annotated[tuple[NonNegative, int, Literal["", "loss", "gradient"]], Field(strict=False)] = (
        0,
        -1,
        "",
    )
    num_images: Positive = 1
    data_digest: str = ""

    @model_validator(mode="after")
    def _check(self) -> "Contents":
        self.preprocessing.check(self.num_classes, self.image_channels)
        return self
