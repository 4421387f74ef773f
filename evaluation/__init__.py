"""Scoring what is drawn for a split: the model's samples, the baselines and the oracle, all by the same functions."""

from evaluation.panels import sample_panel
from evaluation.predictors import Prediction, Predictor, always_empty, majority_vote, model_samples, oracle
from evaluation.scores import METRICS, Scores, score

__all__ = [
    "METRICS",
    "Prediction",
    "Predictor",
    "Scores",
    "always_empty",
    "majority_vote",
    "model_samples",
    "oracle",
    "sample_panel",
    "score",
]
