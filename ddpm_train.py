"""Train a CCDM: python ddpm_train.py [params.yml] [key=value ...]

The settings are in params.yml, the schema of all settings in utils/schema.py. The run folder receives checkpoints
(`last.pt`, `previous.pt`, `best_ged.pt`, `best_hm_iou.pt`), the log, the settings, and TensorBoard's files.

`torchrun --nproc_per_node=N ddpm_train.py ...` shares the work among N processes. SIGTERM, SIGINT and SIGUSR1 end the
run after the step it is in, with all saved and status 75 (0 under torchrun); `load_from=auto` goes on from there.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import yaml
from torch import Tensor
from tqdm import tqdm

from checkpoints.files import save_checkpoint
from checkpoints.model import to_config_dict
from checkpoints.preprocessing import Preprocessing
from checkpoints.weights import load_weights
from datasets import load_dataset
from datasets.cache import cached
from datasets.class_weights import class_weights
from datasets.loading import TrainingBatch, training_batches
from evaluation import Scores
from models import CCDM
from models.runtime import apply_runtime_options, resolve_auto
from training.from_settings import make_encoder
from training.initial_state import resolve_checkpoint
from training.optimisation import NonFiniteGuard, NonFiniteSteps, SpikeWatch, clip, moving_average, polynomial_decay
from training.run_dir import FolderLock, make_run_dir
from training.signals import StopRequest, StopRequestedError, preempted_status
from training.tensorboard import TensorBoard
from training.validation import Validation
from utils.device import choose_device
from utils.distributed import all_reduce_sum, is_main, local_main_first, process_group, rank, shard, world_size
from utils.errors import UserError, corrupt_file_as_user_error, os_errors_as_user_error, run_script
from utils.logs import LOGGER, setup_logging
from utils.noise import derive_key, seed_from
from utils.paths import write_text
from utils.schema import TrainSettings
from utils.settings import load_settings


def main(argv: Sequence[str]) -> None:
    """Run a training from the command line's arguments.

    Raises:
        UserError: for whatever the user can mend.
    """
    settings = load_settings(TrainSettings, argv, default_file="params.yml")
    with process_group(), os_errors_as_user_error(settings.output_path):
        finished = Training(settings).run()
    if not finished:
        sys.exit(preempted_status())


class Training:
    """A training run: what it holds, and one method for each thing that happens to it."""

    def __init__(self, settings: TrainSettings) -> None:
        self.device = choose_device(settings.device)
        if settings.batch_size < world_size():
            raise UserError(f"batch_size is {settings.batch_size}; {world_size()} processes need one image each")
        with local_main_first():
            self.data, val_data = (
                load_dataset(settings.dataset_file, split, settings.dataset_params) for split in ("train", "val")
            )
        settings, self.shapes, start = resolve_checkpoint(settings, self.data)
        self.settings = settings = resolve_auto(settings, self.device)
        self.encoder = make_encoder(self.shapes.encoder, settings.feature_cond_encoder, start)
        torch.manual_seed(seed_from("weights", settings.seed))
        self.model = CCDM(self.shapes.network, self.shapes.process, self.encoder).to(self.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=settings.optim.learning_rate, fused=True)
        self.guard, self.spikes, self.stop = NonFiniteGuard(self.device), SpikeWatch(), StopRequest()
        self.average = moving_average(self.model, settings.polyak_alpha, self.guard)
        for model in (self.model, self.averaged_model):
            apply_runtime_options(model, settings)
        self.model.unet.use_checkpoint = settings.use_checkpoint
        self.preprocessing = Preprocessing.of(self.data)
        weights = class_weights(settings.class_weights, self.data)
        self.class_weights = None if weights is None else weights.to(self.device)
        self.step = self.validated = 0
        self.best = {"ged": float("inf"), "hm_iou": -float("inf")}
        self.total_steps = max(1, settings.max_epochs * len(self.data) // settings.batch_size)
        if start is not None:
            with corrupt_file_as_user_error(settings.load_from):
                self.resume(start)
        self.batches = training_batches(
            cached(self.data, settings.cache, self.device, settings.mp_loaders), settings.dataset_pipeline_train,
            settings.batch_size, self.step, self.total_steps, settings.seed, settings.mp_loaders, shard(),
        )  # fmt: skip
        steps = settings.sampling.steps
        if steps is not None and steps > settings.time_steps and not self.model.is_classifier:
            raise UserError(f"sampling.steps is {steps}; the process has {settings.time_steps} time_steps")
        self.validation = Validation(val_data, settings, between=self.stop.check)
        self.folder = make_run_dir(settings.output_path, settings.dataset_file)
        self.lock = FolderLock(self.folder) if is_main() else None

    def run(self) -> bool:
        """Train to the end, with validations on the way and a last one over the whole validation split.

        Returns:
            Whether it came to the end; otherwise a signal stopped it, and everything is saved.
        """
        setup_logging(self.folder)
        with self.stop.listening(), TensorBoard(self.folder) as self.board:
            self.introduce()
            try:
                self.loop()
                self.conclude()
            except StopRequestedError:
                self.save("last")
                LOGGER.info("stopped after step %d of %d; load_from: auto goes on", self.step, self.total_steps)
                return False
        return True

    def introduce(self) -> None:
        """Say and keep what is about to be trained."""
        text = yaml.safe_dump(self.settings.model_dump(mode="json"), sort_keys=False)
        if is_main():
            write_text(self.folder / "params.yml", text)
        LOGGER.info("%s\nrun folder: %s", text, self.folder)
        millions = sum(p.numel() for p in self.model.parameters()) / 1e6
        LOGGER.info("%.2f M parameters on %s, %d training images", millions, self.device, len(self.data))
        LOGGER.info("processes: %d, first step: %d of %d", world_size(), self.step + 1, self.total_steps)
        self.board.add_text("settings", f"```\n{text}\n```")

    def loop(self) -> None:
        """One optimiser step after the other; read-outs, validations and checkpoints in between."""
        settings = self.settings
        if self.validation_is_due():
            self.validate()
            self.save("last")
        bar = tqdm(
            self.batches, desc="training", initial=self.step, total=self.total_steps, unit="step",
            dynamic_ncols=True, disable=not is_main(),
        )  # fmt: skip
        losses: list[Tensor] = []
        for batch in bar:
            losses.append(self.train_step(batch))
            if self.step % settings.display_freq == 0 or self.step == self.total_steps:
                self.read_out(losses, bar)
                losses = []
            if self.validation_is_due():
                self.validate()
                self.save("last")
            elif settings.checkpoint_freq is not None and self.step % settings.checkpoint_freq == 0:
                self.save("last")
            self.stop.check()

    def train_step(self, batch: TrainingBatch) -> Tensor:
        """One step of the optimiser and the average; returns the loss, still on the device."""
        optim = self.settings.optim
        rate = polynomial_decay(
            self.step, self.total_steps, optim.learning_rate, optim.lr_params.min_lr, optim.lr_params.power
        )
        self.optimizer.param_groups[0]["lr"] = rate
        torch.manual_seed(seed_from("dropout", self.settings.seed, self.step, rank()))
        self.model.train()

        keys = derive_key("training", self.settings.seed, batch.epochs, batch.indices)
        images, labels, keys = (
            tensor.to(self.device, non_blocking=True) for tensor in (batch.images, batch.labels, keys)
        )
        loss = torch.zeros((), device=self.device)
        self.optimizer.zero_grad()
        parts = (tensor.chunk(self.settings.gradient_accumulation) for tensor in (images, labels, keys))
        for part_images, part_labels, part_keys in zip(*parts, strict=True):
            part_loss = self.model.loss(part_images, part_labels, part_keys, self.class_weights).sum()
            part_loss = part_loss / self.settings.batch_size
            part_loss.backward()
            loss += part_loss.detach()
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        all_reduce_sum([loss, *gradients])
        norm = self.guard.inspect(self.optimizer, loss, gradients, self.step + 1)
        if optim.max_grad_norm is not None:
            clip(gradients, norm, optim.max_grad_norm)
        self.optimizer.step()
        self.average.update_parameters(self.model)
        self.step += 1
        return loss

    def read_out(self, losses: list[Tensor], bar: "tqdm[Any]") -> None:
        """Show the mean loss since the last time, and stop where too many steps had to be skipped."""
        values, rate = torch.stack(losses).tolist(), self.optimizer.param_groups[0]["lr"]
        loss = sum(values) / len(values)
        for note in self.spikes.look(values, self.step):
            LOGGER.info(note)
        bar.set_postfix(loss=f"{loss:.4g}", rate=f"{rate:.2g}")
        self.board.add_scalar("train/loss", loss, self.step)
        self.board.add_scalar("train/learning_rate", rate, self.step)
        bad = self.guard.read()
        self.board.add_scalar("train/bad_steps", bad.number, self.step)
        if bad.number > self.settings.max_nonfinite_steps:
            self.save("bad_step")
            raise UserError(
                f"{bad}. max_nonfinite_steps is {self.settings.max_nonfinite_steps}; such steps are skipped, and the state is in "
                f"{self.folder / 'bad_step.pt'}. A lower optim.learning_rate may help"
            )

    def validation_is_due(self) -> bool:
        """Whether this step ends with a validation that has not been done; the end of training has its own."""
        return self.step % self.settings.validation_freq == 0 and self.validated < self.step < self.total_steps

    def validate(self) -> Scores:
        """Score the averaged model on the fixed subset with fixed noise; keep the checkpoint where it is the best."""
        settings = self.settings
        scores = self.validation.on_subset(self.averaged_model)
        self.validated = self.step
        for metric, sign in (("ged", -1), ("hm_iou", 1)):
            value = scores.mean(metric, settings.samples)
            self.board.add_scalar(f"val/{metric}_{settings.samples}", value, self.step)
            if sign * value > sign * self.best[metric]:
                self.best[metric] = value
                self.save(f"best_{metric}")
        LOGGER.info(
            f"step {self.step}: GED{settings.samples} {scores.mean('ged', settings.samples):.4f}  "
            f"HM-IoU{settings.samples} {scores.mean('hm_iou', settings.samples):.4f}  "
            f"on {len(scores.rows)} validation images"
        )
        if settings.n_validation_images > 0 and is_main():
            self.board.add_figure("val/samples", self.validation.panel(self.averaged_model), self.step)
        return scores

    def conclude(self) -> None:
        """The last validation, and the scores on the whole split."""
        self.validate()
        self.save("last")
        LOGGER.info("after %d steps, %s", self.step, self.validation.table(self.averaged_model))

    @property
    def averaged_model(self) -> CCDM:
        """The model with the average of the weights."""
        model = self.average.module
        assert isinstance(model, CCDM)
        return model

    def save(self, name: str) -> None:
        """Write everything that continuing needs to `name`.pt in the run folder."""
        if not is_main():
            return
        save_checkpoint(
            self.folder / f"{name}.pt",
            {
                "settings": self.settings.model_dump(mode="json"),
                **to_config_dict(self.shapes.network, self.shapes.process, self.encoder),
                "preprocessing": self.preprocessing.as_data(),
                "model": self.model.state_dict(),
                "average": self.averaged_model.state_dict(),
                "num_averaged": int(self.average.n_averaged),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "validated": self.validated,
                "best": self.best,
                "bad_steps": list(self.guard.read()),
            },
        )

    def resume(self, contents: Mapping[str, Any]) -> None:
        """Continue from a checkpoint of the same network, or begin with weights that come without state."""
        load_weights(self.model, contents["model"])
        load_weights(self.averaged_model, contents["average"])
        self.average.n_averaged.fill_(contents["num_averaged"])
        if "optimizer" not in contents:
            return
        self.optimizer.load_state_dict(contents["optimizer"])
        self.step, self.best = contents["step"], contents["best"]
        self.validated = contents.get("validated", self.step)
        if "bad_steps" in contents:
            self.guard.restore(NonFiniteSteps(*contents["bad_steps"]))


if __name__ == "__main__":
    run_script(main, __doc__)
