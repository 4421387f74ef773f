"""Every setting of the scripts: name, type, default, and the values that make sense. Names follow the official code."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
SamplerName = Literal["ancestral", "ddim"]
VoteStrategy = Literal["confidence", "majority"]


class Settings(BaseModel):
    """Settings that refuse unknown keys and values of the wrong type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class PolynomialDecay(Settings):
    """Shape of the decay of the learning rate."""

    power: float = Field(1.0, gt=0, description="1 is a straight line")
    min_lr: float = Field(1e-6, ge=0, description="learning rate at the end of training")


class Optim(Settings):
    """The optimiser, and how its learning rate decays over the whole training."""

    name: Literal["Adam"] = Field("Adam", description="Adam with PyTorch's other defaults")
    learning_rate: float = Field(1e-4, gt=0, description="learning rate at the start")
    lr_function: Literal["polynomial"] = Field("polynomial", description="how the learning rate decays")
    lr_params: PolynomialDecay = PolynomialDecay()
    max_grad_norm: float | None = Field(None, gt=0, description="gradients of a larger norm are scaled down to it")

    @model_validator(mode="after")
    def _floor_below_start(self) -> "Optim":
        if self.lr_params.min_lr > self.learning_rate:
            raise ValueError(f"lr_params.min_lr is above learning_rate ({self.learning_rate:g})")
        return self


class Network(Settings):
    """Shape of the U-Net; see `models.unet.UNetConfig`."""

    base_channels: Annotated[int, Field(ge=32, multiple_of=32)] = Field(32, description="channels of the first level")
    channel_mult: list[Positive] = Field([1, 2, 2, 4, 5], min_length=1, description="channels of each level / base")
    num_res_blocks: Positive = Field(2, description="residual blocks a level")
    attention_resolutions: list[Positive] = Field([32, 16, 8], description="downsampling factors with attention")
    num_heads: Positive = Field(1, description="heads of the attention where num_head_channels is -1")
    num_head_channels: int = Field(32, ge=-1, description="channels a head, or -1")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout inside residual blocks")


class FeatureWeights(Settings):
    """Where the weights of a frozen encoder lie."""

    weights: str | None = Field(None, description="file of the encoder's weights; null fetches them from the hub")


class FeatureSettings(FeatureWeights):
    """The encoder whose features are the network's second condition; see `models.dino.EncoderConfig`."""

    type: Literal["none", "dino"] = Field("none", description="none, or dino")
    model: Literal["dino_vits8", "dino_vitb8", "dino_vits16", "dino_vitb16"] = Field(
        "dino_vits8", description="transformer: small or base, patches of 8 or 16 pixels"
    )
    channels: Positive = Field(384, description="channels of the features: 384 of a small, 768 of a base transformer")
    conditioning: Literal["concat_pixels_concat_features"] = Field(
        "concat_pixels_concat_features", description="image and features are both concatenated"
    )
    output_stride: Positive = Field(8, description="pixels from one feature to the next, and where they join")
    scale: Literal["single"] = Field("single", description="features join at one stride")
    train: bool = Field(False, description="whether the encoder is trained as well")
    source_layer: Annotated[int, Field(ge=0, le=11)] = Field(11, description="block whose keys are the features")
    target_layer: Positive = Field(10, description="input block of the network where they join")
    cache: str | None = Field(None, description="folder that keeps the features of images that come again")

    @model_validator(mode="after")
    def _cache_of_frozen(self) -> "FeatureSettings":
        if self.train and self.cache is not None:
            raise ValueError("cache: features of an encoder that is trained change; take cache: null")
        return self


class Sampling(Settings):
    """How label maps are drawn."""

    steps: Positive | None = Field(None, description="steps of the sampler; null takes all time_steps")
    sampler: SamplerName = Field("ancestral", description="kind of step")
    eta: float = Field(0.0, ge=0, le=1, description="of ddim: 0 keeps most, 1 redraws every pixel")
    last_step: Literal["argmax", "draw"] = Field("argmax", description="how the label map is read off the last step")


class RuntimeOptions(Settings):
    """How the network is computed; `auto` suits the device. What each is worth is in benchmarks/README.md."""

    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of the network's matrix products; auto is bfloat16 on CUDA devices that have it"
    )
    compile: Literal["auto"] | bool = Field("auto", description="by torch.compile; auto does so on CUDA devices")
    channels_last: Literal["auto"] | bool = Field("auto", description="memory layout; auto is channels last")


class TrainSettings(RuntimeOptions):
    """The settings of ddpm_train.py."""

    output_path: str = Field("./logs/${DATASET}_${NOW}", description="folder of the run")
    load_from: str | None = Field(
        None, description="checkpoint whose training is continued; auto takes the newest intact one of the run folder"
    )
    seed: Seed = Field(0, description="of weights, order, augmentation and noise")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")

    dataset_file: str = Field("datasets.synthetic", description="the data set's module")
    dataset_params: dict[str, Any] = Field({}, description="arguments of the data set's module")
    dataset_pipeline_train: list[str] = Field([], description="augmentations, in order; see datasets/transforms.py")
    dataset_val_max_size: Positive | None = Field(None, description="images of the validation subset; null takes all")
    cache: Literal["memory", "device"] | None = Field(None, description="where the training images are kept once read")
    class_weights: list[float] | Literal["uniform", "weighted"] | None = Field(
        None, description="weight of each class in the loss; uniform and weighted leave void out, null is 1 for all"
    )
    mp_loaders: NotNegative = Field(2, description="worker processes that load data")

    batch_size: Positive = Field(64, description="images a step")
    gradient_accumulation: Positive = Field(1, description="parts of a batch that are computed one after the other")
    use_checkpoint: bool = Field(False, description="training computes the network twice, in less memory")
    max_epochs: Positive = Field(2000, description="passes over the training split")
    optim: Optim = Optim()
    polyak_alpha: float = Field(0.9999, ge=0, lt=1, description="decay of the average of the weights")
    max_nonfinite_steps: NotNegative = Field(
        0, description="steps without a finite loss or gradient that are put up with"
    )

    objective: Literal["diffusion", "cross_entropy"] = Field(
        "diffusion", description="cross_entropy trains the same network as a pixel-wise classifier, for comparison"
    )
    time_steps: Positive = Field(250, description="T of the diffusion process")
    beta_schedule: Literal["cosine", "linear"] = Field("cosine", description="table of alpha-bar")
    beta_schedule_params: dict[str, float] = Field({}, description="arguments of the schedule")
    unet_openai: Network = Network()
    feature_cond_encoder: FeatureSettings = FeatureSettings()

    validation_freq: Positive = Field(2500, description="steps between validations")
    checkpoint_freq: Positive | None = Field(None, description="steps between checkpoints beside those at validation")
    display_freq: Positive = Field(100, description="steps between read-outs of loss and bad steps")
    samples: Positive = Field(16, description="label maps drawn of each image in validation")
    sampling: Sampling = Sampling(steps=25)
    max_batch_size: Positive | None = Field(
        None, description="label maps that go through the network at once; null fills the device"
    )
    n_validation_images: NotNegative = Field(4, description="images in the validation panel")


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


class EvalSettings(RuntimeOptions):
    """The settings of ddpm_eval.py. What describes network and process comes from the checkpoint."""

    load_from: str = Field("./logs/*/best_ged.pt", description="checkpoint; of a pattern's matches, the newest")
    evaluation_path: str | None = Field(None, description="folder of the results; null is beside the checkpoint")
    seeds: Annotated[list[Seed], BeforeValidator(_as_list)] = Field(
        [0], min_length=1, description="of the sampling noise; one or several"
    )
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")

    feature_cond_encoder: FeatureWeights = FeatureWeights()

    dataset_file: str | None = Field(None, description="null takes the checkpoint's")
    dataset_params: dict[str, Any] | None = Field(None, description="null takes the checkpoint's")
    dataset_split: str = Field("test", description="split that is evaluated")
    dataset_val_max_size: Positive | None = Field(None, description="images that are evaluated; null takes all")
    batch_size: Positive = Field(16, description="images at once")
    mp_loaders: NotNegative = Field(0, description="worker processes that load data")

    evaluations: Annotated[list[Positive], BeforeValidator(_as_list)] = Field(
        [16], min_length=1, description="numbers of samples that are scored, from one set of draws"
    )
    evaluation_vote_strategy: VoteStrategy = Field(
        "confidence", description="how samples are fused where there is a void class: mean probabilities, or votes"
    )
    sampling: Sampling = Sampling(steps=25)
    sampling_steps: Annotated[list[Positive], BeforeValidator(_as_list)] = Field(
        [], description="steps to compare, each with every one of `samplers`, at the first of `evaluations`"
    )
    samplers: Annotated[list[SamplerName], BeforeValidator(_as_list)] = Field(
        ["ancestral"], min_length=1, description="samplers to compare where `sampling_steps` are given"
    )
    bits_per_pixel: bool = Field(False, description="also bound the likelihood: T network calls an annotator")
    max_batch_size: Positive | None = Field(
        None, description="label maps that go through the network at once; null fills the device"
    )
    n_validation_images: NotNegative = Field(6, description="images in the picture")
