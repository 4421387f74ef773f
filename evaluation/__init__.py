"""Scoring what is drawn for a split: the model's samples, the baselines and the oracle, all by the same functions."""

from evaluation.evaluate import Entry, bits_per_pixel, evaluate, references
from evaluation.panels import sample_panel
from evaluation.predictors import Prediction, Predictor, always_empty, majority_vote, model_samples, oracle
from evaluation.scores import Scores, score

__all__ = [
    "Entry",
    "Prediction",
    "Predictor",
    "Scores",
    "always_empty",
    "bits_per_pixel",
    "evaluate",
    "majority_vote",
    "model_samples",
    "oracle",
    "references",
    "sample_panel",
    "score",
]
