"""How a training is validated: draws of the averaged model on the validation split, with the same noise every time."""

from collections.abc import Callable

from matplotlib.figure import Figure

from datasets import AnnotatedDataset
from datasets.loading import evaluation_batches, evenly_spaced_indices
from evaluation import Predictor, Scores, model_samples, references, sample_panel, score
from models import CCDM
from utils.schema import TrainSettings


class Validation:
    """The validation split and how it is scored.

    Args:
        data: the split.
        settings: of the training.
        between: called before every batch by all processes alike; what it raises ends the validation.
    """

    def __init__(self, data: AnnotatedDataset, settings: TrainSettings, between: Callable[[], None]) -> None:
        self.data, self.settings, self.between = data, settings, between

    def draws_of(self, model: CCDM) -> Predictor:
        """Label maps drawn as the settings say."""
        settings = self.settings
        return model_samples(model.eval(), settings.samples, settings.sampling, settings.seed, settings.max_batch_size)

    def on_subset(self, model: CCDM) -> Scores:
        """Scores on the images that every validation sees."""
        return self._score(self.draws_of(model), self.settings.dataset_val_max_size)

    def panel(self, model: CCDM) -> Figure:
        """Some images with their annotators and draws."""
        indices = evenly_spaced_indices(len(self.data), self.settings.n_validation_images)
        (batch,) = evaluation_batches(self.data, indices, len(indices), workers=0)
        return sample_panel(batch, self.draws_of(model)(batch))

    def table(self, model: CCDM) -> str:
        """Scores on the whole split, beside the oracle (where there is one) and the baselines."""
        lines = [f"validation split, all {len(self.data)} images:"]
        for name, predictor in {"model": self.draws_of(model), **references(self.data, self.settings.samples)}.items():
            scores = self._score(predictor, None)
            (n,) = scores.counts
            ged, hm_iou = scores.mean("ged", n), scores.mean("hm_iou", n)
            lines.append(f"  {name:14s} GED{n:<3d} {ged:.4f}   HM-IoU{n:<3d} {hm_iou:.4f}")
        return "\n".join(lines)

    def _score(self, predictor: Predictor, limit: int | None) -> Scores:
        indices = evenly_spaced_indices(len(self.data), limit)
        return score(predictor, self.data, indices, [self.settings.samples], between=self.between)
