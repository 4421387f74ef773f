"""Validation: the averaged model on the validation split, with the same noise every time."""

from collections.abc import Callable
from pathlib import Path

from checkpoints.files import LAST
from datasets import AnnotatedDataset
from datasets.loading import evenly_spaced_indices
from evaluation.evaluate import score_model
from evaluation.image_metrics import METRICS
from evaluation.panels import sample_panel
from evaluation.predictors import model_samples
from evaluation.results import Result
from models import CCDM
from training.schedule import Schedule
from training.settings import TrainSettings
from training.signals import StopRequestedError
from training.state import TrainState
from training.tensorboard import TensorBoard
from utils.distributed import is_main
from utils.logs import LOGGER


class Validation:
    """Validates a training on its validation split.

    Args:
        data: the split.
        settings: of the training.
        board: receives the curves and the panel of samples.
        folder: of the run, for checkpoints.
        before_batch: called by all ranks before every batch; an exception of it ends the validation.
    """

    def __init__(
        self,
        data: AnnotatedDataset,
        settings: TrainSettings,
        board: TensorBoard,
        folder: Path,
        before_batch: Callable[[], None],
    ) -> None:
        self.data, self.settings, self.before_batch = data, settings, before_batch
        self.board, self.folder = board, folder

    def is_due(self, state: TrainState, schedule: Schedule) -> bool:
        """Whether a validation is scheduled after this step and has not been done; the last step has one."""
        scheduled = state.step % schedule.validation_freq == 0 or state.step == schedule.total_steps
        return scheduled and state.validated < state.step

    def run(self, state: TrainState) -> None:
        """Score the averaged model on a fixed subset; save the checkpoint, also as one of the best if it is.

        An error does not lose the training: the state is saved as not validated.
        """
        try:
            result = self._score(state.average.model)
        except StopRequestedError:
            raise
        except Exception:
            state.save(self.folder / LAST)
            raise
        state.validated, files = state.step, [self.folder / LAST]
        for name, better in result.headline_metrics:
            value = result.mean(name, result.num_samples[-1])
            self.board.add_scalars({f"val/{name}_{result.num_samples[-1]}": value}, state.step)
            if name not in state.best or better * value > better * state.best[name]:
                state.best[name] = value
                files.insert(0, self.folder / f"best_{name}.pt")  # before the file that a killed run resumes from
        state.save(*files)
        LOGGER.info("step %d: %s  on %d validation images", state.step, _headline(result), len(result.images))
        if self.settings.n_validation_images > 0 and is_main():
            self.board.add_figure("val/samples", self._panel(state.average.model), state.step)

    def _score(self, model: CCDM) -> Result:
        settings = self.settings
        indices = evenly_spaced_indices(len(self.data), settings.dataset_val_max_size)
        return score_model(
            model, self.data, indices, [settings.num_samples], settings.sampling, settings.seed,
            max_batch_size=settings.max_batch_size, before_batch=self.before_batch,
        )  # fmt: skip

    def _panel(self, model: CCDM) -> object:
        settings = self.settings
        predictor = model_samples(
            model, settings.num_samples, settings.sampling, settings.seed, settings.max_batch_size
        )
        return sample_panel(self.data, evenly_spaced_indices(len(self.data), settings.n_validation_images), predictor)


def _headline(result: Result) -> str:
    """The metrics that select checkpoints, as one line."""
    n = result.num_samples[-1]
    texts = []
    for name, _ in result.headline_metrics:
        title = METRICS[name].title
        title = f"{title} ({n} samples)" if " " in title else f"{title}{n}"
        texts.append(f"{title} {result.mean(name, n):.4f}")
    return "  ".join(texts)
