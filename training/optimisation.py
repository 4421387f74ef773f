"""How the learning rate decays."""


def polynomial_decay(step: int, total_steps: int, start: float, floor: float, power: float) -> float:
    """The learning rate at `step`, counted from 0: from `start` down to `floor`, reached at `total_steps`."""
    left = max(0.0, 1 - step / total_steps)
    return floor + (start - floor) * left**power
