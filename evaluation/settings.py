"""The settings of `ddpm_eval.py`."""

from typing import Annotated, Any

from pydantic import Field

from diffusion.samplers import SAMPLERS, SamplingConfig
from evaluation.predictors import VOTES
from models.runtime import RuntimeOptions
from utils.config import AsList, BatchSize, Config, NonNegative, NumSamples, NumWorkers, Positive, Seed, choice_of


class SweepConfig(Config):
    """Steps and samplers that are compared, every sampler with every number of steps."""

    steps: Annotated[list[Positive], AsList] = Field([], description="numbers of steps to compare; [] for no sweep")
    samplers: Annotated[list[choice_of(SAMPLERS)], AsList] = Field(  # type: ignore[valid-type]
        ["coherent"], min_length=1, description="samplers to compare"
    )


class EvalSettings(RuntimeOptions):
    """The settings of `ddpm_eval.py`. The model and, unless named here, the dataset come from the checkpoint."""

    load_from: str = Field("./logs/*/last.pt", description="checkpoint; the newest match of a pattern")
    evaluation_path: str | None = Field(
        None, description="folder of the results; `null`: next to the checkpoint, or logs/NAME for shipped weights"
    )
    seeds: Annotated[list[Seed], AsList] = Field(
        [0], min_length=1, description="of the noise; several: means over them"
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps")

    network: str | None = Field(None, description="module of your own network, to allow its import; `null`: built in")
    process: str | None = Field(None, description="module of your own process, to allow its import; `null`: built in")
    feature_cond_encoder_weights: str | None = Field(
        None, description="weights of a frozen encoder; `null`: the file used in training"
    )

    dataset_file: str | None = Field(None, description="module of the dataset; `null`: the checkpoint's")
    dataset_params: dict[str, Any] | None = Field(None, description="its arguments; `null`: the checkpoint's")
    dataset_split: str = Field("test", description="split to evaluate")
    dataset_val_max_size: Positive | None = Field(None, description="number of images; `null`: the whole split")
    batch_size: BatchSize = Field(16, description="images per batch")
    mp_loaders: NumWorkers = Field(0, description="worker processes that load data")

    num_samples: Annotated[list[NumSamples], AsList] = Field(
        [16], min_length=1, description="numbers of samples per image to report, all from one set of samples"
    )
    evaluation_vote_strategy: choice_of(VOTES) = Field(  # type: ignore[valid-type]
        "confidence", description="mIoU: how samples are fused, by their mean probabilities or by majority vote"
    )
    sampling: SamplingConfig = SamplingConfig()
    sweep: SweepConfig = Field(SweepConfig(), description="at the first of `num_samples`")
    bits_per_pixel: bool = Field(False, description="also bound the likelihood (T network calls per annotator)")
    max_batch_size: Positive | None = Field(None, description="label maps per network call; `null`: to suit the device")
    n_validation_images: NonNegative = Field(6, description="example images in the report and in samples.png")
