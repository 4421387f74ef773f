import math

import numpy as np
import pytest

from metrics import bootstrap_interval, intervals, paired_bootstrap_interval


def test_width_is_that_of_the_normal_approximation():
    values = np.random.default_rng(0).normal(3, 2, 400)
    mean, low, high = bootstrap_interval(values, num_resamples=5000)
    assert mean == pytest.approx(values.mean())
    half = 1.96 * values.std() / math.sqrt(400)
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.1 * half)


def test_images_of_one_patient_are_drawn_together():
    """Four copies of every image tell no more than one: the interval must not shrink."""
    values = np.random.default_rng(1).normal(size=50)
    once = bootstrap_interval(values)
    copies = bootstrap_interval(np.repeat(values, 4), np.repeat(np.arange(50), 4))
    assert tuple(copies) == pytest.approx(tuple(once))
    naive = bootstrap_interval(np.repeat(values, 4))
    assert naive.high - naive.low < 0.6 * (once.high - once.low)


def test_groups_of_different_sizes_keep_the_mean_of_images():
    values, groups = [0.0, 0.0, 0.0, 1.0], ["a", "a", "a", "b"]
    assert bootstrap_interval(values, groups) == (0.25, 0.0, 1.0)


def test_order_of_images_does_not_matter():
    rng = np.random.default_rng(2)
    values, groups, order = rng.normal(size=60), rng.integers(0, 12, 60), rng.permutation(60)
    assert tuple(bootstrap_interval(values[order], groups[order])) == pytest.approx(
        tuple(bootstrap_interval(values, groups))
    )


def test_blocks_of_resamples_do_not_change_the_result(monkeypatch):
    values = np.random.default_rng(3).normal(size=30)
    whole = bootstrap_interval(values)
    monkeypatch.setattr(intervals, "_BATCH_ELEMENTS", 100)
    assert bootstrap_interval(values) == whole


def test_seed():
    values = np.random.default_rng(4).normal(size=40)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values)


def test_pairing_removes_the_spread_of_the_images():
    a = np.random.default_rng(5).normal(size=40)
    mean, low, high = paired_bootstrap_interval(a, a - 0.5)
    assert (mean, low, high) == pytest.approx((0.5, 0.5, 0.5))


def test_one_patient_has_no_interval():
    mean, low, high = bootstrap_interval([1.0, 2.0], groups=[7, 7])
    assert mean == 1.5
    assert math.isnan(low) and math.isnan(high)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": []}, "non-empty vector"),
        ({"values": [[1.0]]}, "non-empty vector"),
        ({"values": [1.0, float("nan")]}, r"values\[1\] is nan"),
        ({"values": [1.0, 2.0], "groups": [1]}, r"groups has shape \(1,\)"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(**arguments)


def test_refuses_pairs_of_different_length():
    with pytest.raises(ValueError, match="a has 2 values and b 1"):
        paired_bootstrap_interval([1.0, 2.0], [1.0])
