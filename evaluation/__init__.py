"""Scoring a model, baselines and the oracle on a split by the same metrics, and reports of the results."""

from evaluation.evaluate import Evaluation, baselines, score, score_model
from evaluation.panels import sample_panel
from evaluation.predictors import Prediction, Predictor, always_empty, majority_vote, model_samples, oracle
from evaluation.results import ImageScores, Result
from evaluation.settings import EvalSettings

__all__ = ["EvalSettings", "Evaluation", "ImageScores", "Prediction", "Predictor", "Result", "always_empty"]
__all__ += ["baselines", "majority_vote", "model_samples", "oracle", "sample_panel", "score", "score_model"]
