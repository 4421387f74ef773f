"""The diffusion process over label maps: schedules, process, samplers. It knows nothing of networks or files."""

from diffusion.samplers import SAMPLERS, reverse_process, time_grid
from diffusion.schedules import SCHEDULES, alpha_bar_table
from diffusion.uniform import UniformDiffusion

__all__ = ["SAMPLERS", "SCHEDULES", "UniformDiffusion", "alpha_bar_table", "reverse_process", "time_grid"]
