"""The decay of the learning rate, the average of the weights, and the guard of both."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from tests.tiny import same
from training.optimisation import NonFiniteGuard, NonFiniteSteps, SpikeWatch, clip, moving_average, polynomial_decay

CPU = torch.device("cpu")


def test_decay_starts_at_the_start_and_ends_at_the_floor() -> None:
    assert polynomial_decay(0, 100, 1e-3, 1e-5, 1.0) == pytest.approx(1e-3, rel=1e-12)
    assert polynomial_decay(100, 100, 1e-3, 1e-5, 1.0) == 1e-5
    assert polynomial_decay(250, 100, 1e-3, 1e-5, 1.0) == 1e-5


@pytest.mark.parametrize(("power", "share"), [(1.0, 0.75), (2.0, 0.5625), (0.5, 0.75**0.5)])
def test_decay_is_a_power_of_the_steps_that_are_left(power: float, share: float) -> None:
    assert polynomial_decay(25, 100, 3.0, 1.0, power) == pytest.approx(1 + 2 * share, rel=1e-12)


def test_a_straight_line_falls_by_the_same_amount_every_step() -> None:
    rates = torch.tensor([polynomial_decay(step, 10, 1.0, 0.5, 1.0) for step in range(11)], dtype=torch.float64)
    assert torch.allclose(rates.diff(), torch.full((10,), -0.05, dtype=torch.float64), atol=1e-15)


def with_weight(value: float) -> nn.Linear:
    layer = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(layer.weight, value)
    return layer


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.999])
def test_average_follows_its_recurrence(decay: float) -> None:
    model = with_weight(0.0)
    average = moving_average(model, decay, NonFiniteGuard(CPU))
    expected = None
    for step in range(40):
        weight = float(torch.sin(torch.tensor(step * 1.3)))
        nn.init.constant_(model.weight, weight)
        average.update_parameters(model)
        warm = min(decay, step / (step + 9))
        expected = weight if expected is None else warm * expected + (1 - warm) * weight
        assert average.module.weight.item() == pytest.approx(expected, abs=1e-6)
    assert int(average.n_averaged) == 40


def test_average_of_a_constant_is_that_constant() -> None:
    model = with_weight(0.7)
    average = moving_average(model, 0.99, NonFiniteGuard(CPU))
    for _ in range(30):
        average.update_parameters(model)
    assert average.module.weight.item() == 0.7


class Setting:
    """A linear layer, its optimiser, its average and their guard, in training."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(3, 2)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.1, fused=True)
        self.guard = NonFiniteGuard(CPU)
        self.average: AveragedModel = moving_average(self.model, 0.9, self.guard)
        self.steps = 0

    def step(self, loss_factor: float = 1.0, gradient_factor: float = 1.0) -> None:
        loss: Tensor = self.model(torch.ones(1, 3)).square().sum() * loss_factor
        self.optimizer.zero_grad()
        loss.backward()
        for parameter in self.model.parameters():
            assert parameter.grad is not None
            parameter.grad *= gradient_factor
        self.steps += 1
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        self.guard.inspect(self.optimizer, loss.detach(), gradients, self.steps)
        self.optimizer.step()
        self.average.update_parameters(self.model)

    def state(self) -> list[Any]:
        states = [self.model.state_dict(), self.optimizer.state_dict(), self.average.module.state_dict()]
        return copy.deepcopy(states)


BAD = {
    "loss is NaN": ({"loss_factor": float("nan")}, "loss"),
    "loss is infinite": ({"loss_factor": float("inf")}, "loss"),
    "gradient is NaN": ({"gradient_factor": float("nan")}, "gradient"),
    "gradient is infinite": ({"gradient_factor": float("inf")}, "gradient"),
}
per_bad_step = pytest.mark.parametrize(("factors", "quantity"), BAD.values(), ids=BAD.keys())


@per_bad_step
def test_bad_step_changes_nothing_and_is_counted(factors: dict[str, float], quantity: str) -> None:
    setting = Setting()
    setting.step()
    setting.step()
    before = setting.state()
    setting.step(**factors)
    assert same(setting.state(), before)
    assert setting.guard.read() == NonFiniteSteps(1, 3, quantity)


@per_bad_step
def test_bad_first_step_leaves_the_weights_and_counts_no_step_of_the_optimiser(
    factors: dict[str, float], quantity: str
) -> None:
    setting = Setting()
    weights = copy.deepcopy(setting.model.state_dict())
    setting.step(**factors)
    assert same(setting.model.state_dict(), weights)
    assert same(setting.average.module.state_dict(), weights)
    assert all(float(state["step"]) == 0 for state in setting.optimizer.state.values())
    assert setting.guard.read() == NonFiniteSteps(1, 1, quantity)


def test_training_goes_on_after_a_bad_step_as_if_it_had_not_been() -> None:
    disturbed, undisturbed = Setting(), Setting()
    disturbed.step()
    disturbed.step(loss_factor=float("nan"))
    disturbed.step()
    undisturbed.step()
    undisturbed.step()
    assert same(disturbed.model.state_dict(), undisturbed.model.state_dict())
    assert same(disturbed.optimizer.state_dict(), undisturbed.optimizer.state_dict())


def test_guard_remembers_the_first_of_many() -> None:
    setting = Setting()
    setting.step()
    assert setting.guard.read().number == 0
    setting.step(gradient_factor=float("inf"))
    setting.step()
    setting.step(loss_factor=float("nan"))
    setting.step(loss_factor=float("nan"))
    assert setting.guard.read() == NonFiniteSteps(3, 2, "gradient")


def test_gradients_are_scaled_down_to_the_largest_norm_and_never_up() -> None:
    for norm, scale in ((0.5, 1.0), (2.0, 1.0), (8.0, 0.25), (0.0, 1.0)):
        gradients = [torch.ones(2), torch.full((1, 3), 2.0)]
        clip(gradients, torch.tensor(norm), largest=2.0)
        assert torch.allclose(gradients[0], torch.full((2,), scale))
        assert torch.allclose(gradients[1], torch.full((1, 3), 2 * scale))


def test_loss_far_above_its_running_median_is_noted_with_its_step() -> None:
    watch = SpikeWatch()
    assert watch.look([9.0, 1.0] * 5, 10) == []  # too few to tell
    assert watch.look([1.0] * 30, 40) == []
    assert watch.look([4.9, math.nan, math.inf, 5.1, 1.0], 45) == [
        "step 44: the loss is 5.1, far above its running median 1"
    ]


def test_guard_goes_on_counting_where_it_was() -> None:
    guard = NonFiniteGuard(CPU)
    guard.restore(NonFiniteSteps(2, 7, "gradient"))
    assert guard.read() == NonFiniteSteps(2, 7, "gradient")
