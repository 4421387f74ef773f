"""Train a CCDM: python ddpm_train.py [params.yml] [key=value ...]

The settings are in params.yml; docs/settings.md lists all of them. The run folder receives checkpoints (`last.pt`,
`previous.pt`, and `best_<metric>.pt` for each validation metric), the log, the settings, and TensorBoard's files.

`torchrun --nproc_per_node=N ddpm_train.py ...` distributes each batch over N processes. SIGTERM, SIGINT and SIGUSR1
stop the run after the current step, with a checkpoint and status 75 (0 under torchrun), as `stop_after=9min` does;
`load_from=auto` resumes it.
"""

import functools
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_
from tqdm import tqdm

from checkpoints.files import LAST
from checkpoints.model import to_config_dict
from checkpoints.preprocessing import Preprocessing
from datasets import load_dataset
from datasets.cache import cached
from datasets.class_weights import class_weights
from datasets.digest import data_digest
from datasets.loading import TrainingBatch, training_batches
from datasets.transforms import Augmentation
from models.runtime import apply_runtime_options, resolve_auto
from training.duration import seconds
from training.initial_state import check_resumable, resolve_checkpoint
from training.model import create_model, load_initial_weights, model_config
from training.nonfinite import NonFiniteSteps
from training.progress import Progress
from training.run_dir import locked_run_dir
from training.schedule import Schedule
from training.settings import TrainSettings
from training.signals import StopRequest, StopRequestedError, preempted_status
from training.state import TrainState
from training.tensorboard import TensorBoard
from training.validation import Validation
from utils.device import choose_device, set_deterministic
from utils.distributed import all_reduce_sum, is_main, local_main_first, process_group, rank, shard, world_size
from utils.errors import UserError, corrupt_file_as_user_error, os_errors_as_user_error, run_script
from utils.logs import LOGGER, setup_logging
from utils.noise import derive_key, seed_from
from utils.paths import write_text
from utils.settings import load_settings_and_recipe


def main(argv: Sequence[str]) -> None:
    """Train with the settings of the command line.

    Raises:
        UserError: for whatever the user can fix.
        SystemExit: if a signal or `stop_after` stopped the training.
    """
    settings, source = load_settings_and_recipe(TrainSettings, argv, default_file="params.yml")
    stop = StopRequest() if settings.stop_after is None else StopRequest(seconds(settings.stop_after))
    with (
        stop.listening(),
        process_group(),
        os_errors_as_user_error(settings.output_path),
        locked_run_dir(settings.output_path, settings.dataset_file) as folder,
    ):
        completed = train(settings, source, folder, stop)
    if not completed:
        sys.exit(preempted_status())


def train(settings: TrainSettings, source: str, folder: Path, stop: StopRequest) -> bool:
    """Train to the end; returns False if `stop` ended the training, whose state is then saved."""
    setup_logging()

    # Device and data
    device = choose_device(settings.device)
    settings = resolve_auto(settings, device)
    set_deterministic(settings.deterministic)
    if settings.batch_size < world_size():
        raise UserError(f"batch_size is {settings.batch_size}; {world_size()} processes need one image each")
    with local_main_first():
        train_data, val_data = (
            load_dataset(settings.dataset_file, split, settings.dataset_params) for split in ("train", "val")
        )
    preprocessing = Preprocessing.from_dataset(val_data)  # those of training may be cropped by an augmentation
    Augmentation(settings.dataset_pipeline_train, preprocessing.normalisation)  # raises if it has an unknown name
    schedule = Schedule(settings, len(train_data))
    total_steps = schedule.total_steps

    # Model, optimiser and average of the weights: new ones, or those of a checkpoint
    start = resolve_checkpoint(settings, folder, train_data)
    settings = start.settings
    config = model_config(settings, train_data.num_classes, train_data.image_channels)
    model = create_model(settings, config, start.resumed or start.initialised)
    settings.sampling.resolve(model.process)  # raises if it has fewer steps
    description = {
        "settings": settings.model_dump(mode="json"),
        **to_config_dict(model, config),
        "preprocessing": preprocessing.model_dump(mode="json"),
        "num_images": len(train_data),
        "data_digest": data_digest(train_data, range(len(train_data))),
    }
    check_resumable(start, description, total_steps)
    if start.initialised is not None:
        load_initial_weights(model, start.initialised)
    state = TrainState(model.to(device), settings, schedule, description)
    for each in (state.model, state.average.model):
        apply_runtime_options(each, settings)
    if start.resumed is not None:
        with corrupt_file_as_user_error(start.path):
            state.load_state_dict(start.resumed)

    # Batches of the remaining steps. Everything was checked: from here on, it may take long
    weights = class_weights(settings.class_weights, train_data)
    weights = None if weights is None else weights.to(device)
    batches = training_batches(
        cached(train_data, settings.cache, device, settings.mp_loaders), settings.dataset_pipeline_train,
        settings.batch_size, state.step, total_steps, settings.seed, settings.mp_loaders, shard(),
        settings.loss.raters if settings.draws_per_image == 1 else "all",
    )  # fmt: skip

    setup_logging(folder)
    text = yaml.safe_dump(description["settings"], sort_keys=False)
    if is_main() and state.step < total_steps:
        write_text(folder / "params.yml", text)
    LOGGER.info("%s\nsettings: %s\nrun folder: %s", text, source, folder)
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    LOGGER.info("%.2f M parameters on %s, %d training images", millions, device, len(train_data))
    LOGGER.info("processes: %d, first step: %d of %d", world_size(), state.step + 1, total_steps)

    with TensorBoard(folder) as board:
        board.add_text("settings", f"```\n{text}\n```")
        validation = Validation(val_data, settings, board, folder, stop.check)
        progress = Progress(board, state.step, total_steps, settings.batch_size)
        bar = tqdm(batches, "training", total_steps, initial=state.step, disable=None if is_main() else True)
        losses: list[Tensor] = []
        try:
            if validation.is_due(state, schedule):  # the one that a signal interrupted
                validation.run(state)
            for batch in bar:
                losses.append(train_step(state, batch, schedule, weights, settings))
                if state.step % schedule.display_freq == 0 or state.step == total_steps:
                    progress.report(state, losses)
                    losses.clear()
                    check_finite(state, settings, folder / "nonfinite_step.pt")
                if validation.is_due(state, schedule):
                    validation.run(state)
                    progress.restart(state.step)
                elif settings.checkpoint_freq is not None and state.step % settings.checkpoint_freq == 0:
                    state.save(folder / LAST)
                stop.check()
            LOGGER.info("finished; ddpm_eval.py evaluates the checkpoints in %s", folder)
        except StopRequestedError:
            state.save(folder / LAST)
            LOGGER.info("stopped after step %d of %d; load_from: auto resumes", state.step, total_steps)
            return False
    return True


def train_step(
    state: TrainState, batch: TrainingBatch, schedule: Schedule, class_weights: Tensor | None, settings: TrainSettings
) -> Tensor:
    """One step of the optimiser and of the average; returns the loss without waiting for the device."""
    state.set_learning_rate(schedule.learning_rate(state.step))
    torch.manual_seed(seed_from("dropout", settings.seed, state.step, rank()))
    state.model.train()

    # Noise is a function of the keys, so of seed, epoch, image and draw
    draws = torch.arange(settings.draws_per_image)
    keys = derive_key("training", settings.seed, batch.epochs, batch.indices)[:, None]
    keys = keys if len(draws) == 1 else derive_key(keys, draws)  # a single draw has the key of the image
    rater = (batch.rater[:, None] + draws) % batch.present.sum(1, keepdim=True)
    step_key, number = derive_key("times", settings.seed, state.step), torch.tensor(state.step + 1)
    arguments = (
        tensor.to(state.model.device, non_blocking=True)
        for tensor in (batch.images, batch.labels, batch.present, rater, keys, step_key, number)
    )
    loss = state.cuda_graph.run(functools.partial(_optimise, state, settings), *arguments, class_weights)
    state.step += 1
    return loss


def _optimise(
    state: TrainState, settings: TrainSettings,
    images: Tensor, labels: Tensor, present: Tensor, rater: Tensor, keys: Tensor, step_key: Tensor, number: Tensor,
    class_weights: Tensor | None,
) -> Tensor:  # fmt: skip
    """What a step computes on the device, from tensors alone; `number` counts the steps from 1."""
    # Times may depend on the whole batch
    device, size = state.model.device, settings.batch_size * settings.draws_per_image
    positions = torch.arange(size, device=device).view(-1, settings.batch_size)[:, shard()].T
    times, weights = state.times.draw(keys, step_key, positions, size)
    losses, loss = [], torch.zeros((), device=device)
    buffers = [buffer for buffer in state.model.network.buffers() if buffer.is_floating_point()]
    before = [buffer.clone() for buffer in buffers]
    state.optimizer.zero_grad()
    parts = (x.chunk(settings.gradient_accumulation) for x in (images, labels, keys, times, present, rater, weights))
    for images, labels, keys, t, present, rater, weight in zip(*parts, strict=True):
        part_losses = state.model.loss(
            images, labels, keys, class_weights, config=settings.loss, t=t, present=present, rater=rater
        )
        part_loss = (weight * part_losses).sum() / size
        part_loss.backward()
        loss += part_loss.detach()
        losses.append(part_losses.detach())
    state.times.update(times, torch.cat(losses))

    trained = [parameter for parameter in state.model.parameters() if parameter.grad is not None]
    gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
    all_reduce_sum([loss, *gradients])
    norm = state.guard.inspect(state.optimizer, loss, gradients, number)
    if settings.optim.max_grad_norm is not None:
        clip_grads_with_norm_(trained, settings.optim.max_grad_norm, norm)
    state.optimizer.step()
    for buffer, old in zip(buffers, before, strict=True):  # such as the statistics of a batch normalisation
        buffer.copy_(torch.where(state.guard.found_inf.bool(), old, buffer))
    state.average.update(state.model, skip=state.guard.found_inf)
    return loss


def check_finite(state: TrainState, settings: TrainSettings, path: Path) -> None:
    """End the training if too many steps had to be skipped; their state is saved, with weights that are finite.

    Raises:
        UserError: naming the first of these steps, and `path`.
    """
    skipped = state.guard.read()
    if skipped.number > settings.max_nonfinite_steps:
        state.guard.restore(NonFiniteSteps())  # so that the training can be resumed
        state.save(path)
        raise UserError(
            f"{skipped}. These steps were skipped, but max_nonfinite_steps is {settings.max_nonfinite_steps}. "
            f"load_from={path} continues from here, for example with a lower optim.learning_rate"
        )


if __name__ == "__main__":
    run_script(main, __doc__)
