"""The cost of networks, against operations counted by hand."""

import pytest

from benchmarks.cases import WORKLOADS, Workload
from benchmarks.flops import NETWORKS, cost_of, main
from diffusion.samplers import DEFAULT_STEPS
from models import UNet, UNetConfig

PLAIN = UNetConfig(num_classes=2, channel_mult=(1,), attention_resolutions=(), num_res_blocks=1)
SIDE = 8


def by_hand(config: UNetConfig, height: int, width: int) -> int:
    """Two operations per weight and pixel of every convolution, per weight of a linear layer, and the attention."""
    total, pixels = 0, height * width
    for name, parameter in UNet(config).named_parameters():
        if name.endswith("weight") and parameter.dim() > 1:
            total += 2 * parameter.numel() * (1 if parameter.dim() == 2 else pixels)
    middle = config.base_channels * config.channel_mult[-1]
    return total + 2 * 2 * pixels**2 * middle  # q k and the product with v


def test_operations_of_a_network_on_one_level() -> None:
    cost = cost_of(Workload(PLAIN, SIDE, SIDE, batch_size=2, num_samples=1))
    assert cost.call == by_hand(PLAIN, SIDE, SIDE)
    assert cost.sampling == 16 * DEFAULT_STEPS * cost.call
    assert cost.training == pytest.approx(3 * cost.call, rel=0.1)
    assert cost.parameters == sum(parameter.numel() for parameter in UNet(PLAIN).parameters())


def test_small_network_costs_a_fraction_of_the_paper_s() -> None:
    paper, small = (cost_of(WORKLOADS[name]) for name in ("lidc", "lidc-small"))
    assert paper.call / 1e9 == pytest.approx(13.5, abs=0.1)
    assert small.call < 2.5e9
    assert paper.call > 10 * small.call


def test_encoder_of_two_stages_counts_once_for_all_samples_and_steps() -> None:
    cost = cost_of(NETWORKS["lidc-two-stages"])
    encoder = cost.sampling - 16 * DEFAULT_STEPS * cost.call
    assert 0 < cost.call < encoder
    assert cost.training == pytest.approx(3 * (encoder + cost.call), rel=0.1)


def test_table_has_a_line_for_each_network(capsys: pytest.CaptureFixture[str]) -> None:
    main(["quick-start", "lidc-small"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| quick-start | 32 x 32 | 1.08 M | 0.26")


def test_unknown_workload_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["lidc_small"])
    assert "choose from: quick-start, lidc, lidc-small" in capsys.readouterr().err
