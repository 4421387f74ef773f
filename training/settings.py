"""The settings of ddpm_train.py: what can be set, the values that make sense, and what each setting means."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from diffusion.objective import LossConfig
from diffusion.samplers import SamplingConfig
from models.dino import EncoderConfig
from models.runtime import RuntimeOptions
from training.duration import Duration, WallTime
from training.optimisation import OptimSettings
from training.time_sampling import TIME_SAMPLERS
from utils.config import BatchSize, NonNegative, NumSamples, NumWorkers, Positive, Seed, choice_of


class FeatureSettings(EncoderConfig):
    """A DINO encoder, whose features are the network's second condition, and where they join."""

    target_layer: Positive = Field(10, description="input block of the network where the features join")
    weights: str | None = Field(
        None, description="file with the encoder's weights; `null`: download from the Hugging Face hub"
    )


class TrainSettings(RuntimeOptions):
    """The settings of ddpm_train.py."""

    output_path: str = Field("./logs/${DATASET}_${NOW}", description="folder of the run")
    load_from: str | None = Field(
        None, description="checkpoint to resume; auto: the newest undamaged one in output_path, if there is one"
    )
    init_from: str | None = Field(
        None,
        description="checkpoint, ours or an official one; a new training starts from its averaged weights, with its "
        "network, unless load_from finds a checkpoint to resume",
    )
    seed: Seed = Field(0, description="seed of weights, order, augmentation and noise")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps")
    deterministic: bool = Field(
        False,
        description="use deterministic algorithms, which can be slower; a resumed training then is identical to an "
        "uninterrupted one, bit by bit, on the same machine and number of processes; on CPUs it always is",
    )

    dataset_file: str = Field("datasets.synthetic", description="module of the dataset, by its dotted name")
    dataset_params: dict[str, Any] = Field({}, description="arguments of its get_dataset")
    dataset_pipeline_train: list[str] = Field([], description="augmentations, in order; see datasets/transforms.py")
    dataset_val_max_size: Positive | None = Field(
        None, description="images of the validation subset; `null`: the whole split"
    )
    cache: Literal["memory", "device"] | None = Field(
        None, description="where training images are kept after the first read; `null`: read on demand"
    )
    class_weights: list[Annotated[float, Field(ge=0)]] | Literal["uniform", "weighted"] | None = Field(
        None,
        description="weight of each class in the loss: a list, uniform, or weighted (by frequency), both without void",
    )
    mp_loaders: NumWorkers = Field(2, description="worker processes that load data")

    batch_size: BatchSize = Field(64, description="images per step, over all processes")
    draws_per_image: BatchSize = Field(
        1, description="draws of noise, time and rater of every image in a step, which share the features of the image"
    )
    gradient_accumulation: BatchSize = Field(1, description="parts in which a batch is computed, to save memory")
    use_checkpoint: bool = Field(False, description="recompute activations in the backward pass, to save memory")
    train_for: Duration = Field("2000 epochs", description="length of the training in epochs, images or steps")
    stop_after: WallTime | None = Field(
        None, description="save and stop after this time, such as 9 min; load_from: auto resumes; `null`: never"
    )
    optim: OptimSettings = OptimSettings()
    polyak_alpha: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="decay of the bias-corrected exponential moving average of the weights; `null`: its horizon is a "
        "tenth of the training",
    )
    loss: LossConfig = LossConfig()
    time_sampling: choice_of(TIME_SAMPLERS) = Field(  # type: ignore[valid-type]
        "uniform",
        description="times of a batch: independent, evenly spread (stratified), or preferring those of large losses, "
        "which are weighted accordingly (importance)",
    )
    max_nonfinite_steps: NonNegative = Field(0, description="non-finite steps tolerated before aborting")

    network: str = Field("models.unet", description="module of the network, by its dotted name")
    network_params: dict[str, Any] = Field({}, description="arguments of its get_network")
    process: str = Field(
        "diffusion.uniform",
        description="module of the process, by its dotted name; diffusion.classifier trains a pixel-wise classifier",
    )
    process_params: dict[str, Any] = Field({}, description="arguments of its get_process")
    feature_cond_encoder: FeatureSettings | None = Field(
        None, description="DINO encoder whose features are a second condition; `null`: none"
    )

    validation_freq: Positive | None = Field(
        None, description="steps between validations; `null`: four in the training"
    )
    checkpoint_freq: Positive | None = Field(
        None, description="steps between checkpoints, besides those at validation; `null`: none"
    )
    display_freq: Positive | None = Field(None, description="steps between log lines; `null`: 100 in the training")
    num_samples: NumSamples = Field(16, description="label maps sampled per image in validation")
    sampling: SamplingConfig = SamplingConfig()
    max_batch_size: Positive | None = Field(
        None, description="label maps per call of the network in sampling; `null`: as many as keep the device busy"
    )
    n_validation_images: NonNegative = Field(4, description="images in the validation panel")

    @model_validator(mode="after")
    def _same_folder_every_time(self) -> "TrainSettings":
        if self.load_from == "auto" and "${NOW}" in self.output_path:
            raise ValueError("load_from: auto needs an output_path that is the same every time, without ${NOW}")
        return self
