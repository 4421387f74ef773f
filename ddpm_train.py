"""Train a CCDM: python ddpm_train.py [params.yml] [key=value ...]

The settings are in params.yml, the schema of all settings in utils/schema.py. The run folder receives checkpoints
(`last.pt`, `best_ged.pt`, `best_hm_iou.pt`), the log, the settings, and TensorBoard's files.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
import yaml
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from datasets import AnnotatedDataset, KnownDistribution, load_dataset
from datasets.loading import TrainingBatch, evaluation_batches, spread_indices, training_batches
from evaluation import Predictor, Scores, always_empty, majority_vote, model_samples, oracle, sample_panel, score
from models import CCDM, ProcessShape, UNetShape, describe, load_weights, shapes_of
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.config import load_settings
from utils.device import choose_device
from utils.errors import UserError, run_script
from utils.noise import derive_key, seed_from
from utils.optimisation import StepGuard, moving_average, polynomial_decay
from utils.runs import LOGGER, log_to, run_folder
from utils.schema import TrainSettings


def main(argv: Sequence[str]) -> None:
    """Run a training from the command line's arguments.

    Raises:
        UserError: for whatever the user can mend.
    """
    settings = load_settings(TrainSettings, argv, default_file="params.yml")
    Training(settings).run()


class Training:
    """A training run: what it holds, and one method for each thing that happens to it."""

    def __init__(self, settings: TrainSettings) -> None:
        self.settings = settings
        self.device = choose_device(settings.device)
        self.data, self.val_data = (
            load_dataset(settings.dataset_file, split, settings.dataset_params) for split in ("train", "val")
        )
        self.network, self.process = shapes_from(settings, self.data)
        torch.manual_seed(seed_from("weights", settings.seed))
        self.model = CCDM(self.network, self.process).to(self.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=settings.optim.learning_rate, fused=True)
        self.guard = StepGuard(self.device)
        self.average = moving_average(self.model, settings.polyak_alpha, self.guard)
        self.class_weights = class_weights_from(settings, self.data, self.device)
        self.step = 0
        self.best = {"ged": float("inf"), "hm_iou": -float("inf")}
        self.total_steps = max(1, settings.max_epochs * len(self.data) // settings.batch_size)
        if settings.load_from is not None:
            self.resume(settings.load_from)
        self.folder = run_folder(settings.output_path, settings.dataset_file)

    def run(self) -> None:
        """Train to the end, with validations on the way and a last one over the whole validation split."""
        settings = self.settings
        log_to(self.folder)
        resolved = yaml.safe_dump(settings.model_dump(), sort_keys=False)
        (self.folder / "params.yml").write_text(resolved, encoding="utf-8")
        LOGGER.info("%s\nrun folder: %s", resolved, self.folder)
        millions = sum(p.numel() for p in self.model.parameters()) / 1e6
        LOGGER.info("%.2f M parameters on %s, %d training images", millions, self.device, len(self.data))
        with SummaryWriter(str(self.folder)) as self.board:
            self.board.add_text("settings", f"```\n{resolved}\n```")
            self.loop()
            self.conclude()

    def loop(self) -> None:
        """One optimiser step after the other; read-outs, validations and checkpoints in between."""
        settings, first_step = self.settings, self.step
        batches = training_batches(
            self.data, settings.dataset_pipeline_train, settings.batch_size,
            first_step, self.total_steps, settings.seed, settings.mp_loaders,
        )  # fmt: skip
        bar = tqdm(
            batches, desc="training", initial=first_step, total=self.total_steps, unit="step", dynamic_ncols=True
        )
        losses: list[Tensor] = []
        for batch in bar:
            losses.append(self.train_step(batch))
            if self.step % settings.display_freq == 0 or self.step == self.total_steps:
                self.read_out(losses, bar)
                losses = []
            if self.step % settings.validation_freq == 0 and self.step < self.total_steps:
                self.validate()
                self.save("last")

    def train_step(self, batch: TrainingBatch) -> Tensor:
        """One step of the optimiser and the average; returns the loss, still on the device."""
        optim = self.settings.optim
        rate = polynomial_decay(
            self.step, self.total_steps, optim.learning_rate, optim.lr_params.min_lr, optim.lr_params.power
        )
        self.optimizer.param_groups[0]["lr"] = rate
        torch.manual_seed(seed_from("dropout", self.settings.seed, self.step))
        self.model.train()

        keys = derive_key("training", self.settings.seed, batch.epochs, batch.indices).to(self.device)
        images, labels = (tensor.to(self.device, non_blocking=True) for tensor in (batch.images, batch.labels))
        loss = self.model.loss(images, labels, keys, self.class_weights).sum() / self.settings.batch_size
        self.optimizer.zero_grad()
        loss.backward()
        self.guard.inspect(self.optimizer, loss.detach(), self.model.parameters(), self.step + 1)
        self.optimizer.step()
        self.average.update_parameters(self.model)
        self.step += 1
        return loss.detach()

    def read_out(self, losses: list[Tensor], bar: "tqdm[Any]") -> None:
        """Show the mean loss since the last time, and stop where too many steps had to be skipped."""
        loss, rate = float(torch.stack(losses).mean()), self.optimizer.param_groups[0]["lr"]
        bar.set_postfix(loss=f"{loss:.4g}", rate=f"{rate:.2g}")
        self.board.add_scalar("train/loss", loss, self.step)
        self.board.add_scalar("train/learning_rate", rate, self.step)
        bad = self.guard.read()
        self.board.add_scalar("train/bad_steps", bad.number, self.step)
        if bad.number > self.settings.max_bad_steps:
            self.save("bad_step")
            raise UserError(
                f"{bad.number} steps had no finite loss or gradient, max_bad_steps is {self.settings.max_bad_steps}. "
                f"The first was step {bad.first_step}, where the {bad.quantity} was not finite. Such steps are "
                f"skipped; the state is in {self.folder / 'bad_step.pt'}. A lower optim.learning_rate may help"
            )

    def validate(self) -> Scores:
        """Score the averaged model on the fixed subset with fixed noise; keep the checkpoint where it is the best."""
        settings = self.settings
        scores = self.score_validation(self.model_predictor(), settings.dataset_val_max_size)
        for metric, sign in (("ged", -1), ("hm_iou", 1)):
            value = scores.mean(metric)
            self.board.add_scalar(f"val/{metric}_{settings.samples}", value, self.step)
            if sign * value > sign * self.best[metric]:
                self.best[metric] = value
                self.save(f"best_{metric}")
        tqdm.write(
            f"step {self.step}: GED{settings.samples} {scores.mean('ged'):.4f}  "
            f"HM-IoU{settings.samples} {scores.mean('hm_iou'):.4f}  on {len(scores.groups)} validation images"
        )
        if settings.n_validation_images > 0:
            indices = spread_indices(len(self.val_data), settings.n_validation_images)
            (batch,) = evaluation_batches(self.val_data, indices, len(indices), workers=0)
            self.board.add_figure("val/samples", sample_panel(batch, self.model_predictor()(batch)), self.step)
        return scores

    def conclude(self) -> None:
        """The last validation, over the whole split, beside the oracle (where there is one) and the baselines."""
        settings, num_classes = self.settings, self.data.num_classes
        self.validate()
        self.save("last")
        named: dict[str, Predictor] = {"model": self.model_predictor()}
        if isinstance(self.val_data, KnownDistribution):
            named["oracle"] = oracle(self.val_data, num_classes, settings.samples, settings.seed)
        named.update({"majority vote": majority_vote(num_classes), "always empty": always_empty(num_classes)})
        lines = [f"validation split, all {len(self.val_data)} images, after {self.step} steps:"]
        for name, predictor in named.items():
            scores = self.score_validation(predictor, None)
            n = scores.num_samples
            lines.append(
                f"  {name:14s} GED{n:<3d} {scores.mean('ged'):.4f}   HM-IoU{n:<3d} {scores.mean('hm_iou'):.4f}"
            )
        LOGGER.info("\n".join(lines))

    def score_validation(self, predictor: Predictor, limit: int | None) -> Scores:
        """Scores on at most `limit` images of the validation split."""
        indices = spread_indices(len(self.val_data), limit)
        return score(predictor, evaluation_batches(self.val_data, indices, 16, workers=0), self.data.num_classes)

    def model_predictor(self) -> Predictor:
        """Draws of the averaged model."""
        settings, model = self.settings, self.average.module.eval()
        assert isinstance(model, CCDM)
        return model_samples(model, settings.samples, settings.sampling, settings.seed, settings.sampling_batch)

    def save(self, name: str) -> None:
        """Write everything that continuing needs to `name`.pt in the run folder."""
        average = self.average.module
        save_checkpoint(
            self.folder / f"{name}.pt",
            {
                "settings": self.settings.model_dump(),
                **describe(self.network, self.process),
                "model": self.model.state_dict(),
                "average": average.state_dict(),
                "num_averaged": int(self.average.n_averaged),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "best": self.best,
            },
        )

    def resume(self, path: str) -> None:
        """Continue from a checkpoint of the same network."""
        contents = load_checkpoint(path)
        for there, here in zip(shapes_of(contents), (self.network, self.process), strict=True):
            if there != here:
                raise UserError(f"{path} is of another network: {_first_difference(there, here)}")
        if contents["settings"]["batch_size"] != self.settings.batch_size:
            raise UserError(
                f"{path} was trained with batch_size {contents['settings']['batch_size']}, the settings say "
                f"{self.settings.batch_size}: the position in the data would not be the same"
            )
        load_weights(self.model, contents["model"])
        load_weights(self.average.module, contents["average"])
        self.average.n_averaged.fill_(contents["num_averaged"])
        self.optimizer.load_state_dict(contents["optimizer"])
        self.step, self.best = contents["step"], contents["best"]


def shapes_from(settings: TrainSettings, data: AnnotatedDataset) -> tuple[UNetShape, ProcessShape]:
    """The shapes of network and process that settings and data ask for."""
    net = settings.unet_openai
    shape = UNetShape(
        num_classes=data.num_classes,
        image_channels=data.image_channels,
        base_channels=net.base_channels,
        channel_mult=tuple(net.channel_mult),
        attention_resolutions=tuple(net.attention_resolutions),
        num_res_blocks=net.num_res_blocks,
        num_heads=net.num_heads,
        num_head_channels=net.num_head_channels,
        dropout=net.dropout,
    )
    return shape, ProcessShape(settings.time_steps, settings.beta_schedule, settings.beta_schedule_params)


def class_weights_from(settings: TrainSettings, data: AnnotatedDataset, device: torch.device) -> Tensor | None:
    """The weight of each class in the loss, or None where all count the same."""
    weights = settings.class_weights
    if weights is None:
        return None
    if len(weights) != data.num_classes:
        raise UserError(
            f"class_weights has {len(weights)} values; {settings.dataset_file} has {data.num_classes} classes"
        )
    return torch.tensor(weights, device=device)


def _first_difference(there: Any, here: Any) -> str:
    for field in dataclasses.fields(here):
        values = getattr(there, field.name), getattr(here, field.name)
        if values[0] != values[1]:
            return f"{field.name} is {values[0]} there and {values[1]} in these settings"
    return "they differ"


if __name__ == "__main__":
    run_script(main)
