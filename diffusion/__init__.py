"""Diffusion processes over label maps: schedules, processes, samplers, likelihood. Independent of any network."""

from diffusion.classifier import PixelwiseClassifier
from diffusion.process import Process
from diffusion.samplers import SAMPLERS, SamplingConfig, reverse_process, time_grid
from diffusion.schedules import SCHEDULES, alpha_bar_table
from diffusion.uniform import UniformConfig, UniformDiffusion

__all__ = [
    "SAMPLERS",
    "SCHEDULES",
    "PixelwiseClassifier",
    "Process",
    "SamplingConfig",
    "UniformConfig",
    "UniformDiffusion",
    "alpha_bar_table",
    "reverse_process",
    "time_grid",
]
