import pytest
import torch

from metrics import (
    brier_score,
    calibration_bins,
    expected_calibration_error,
    label_frequencies,
    reliability,
)
from tests.metrics import reference


def maps(seed):
    return label_frequencies(reference.random_maps(3, (4, 7, 6, 5), seed), 3)


def ece(probabilities, frequencies):
    return expected_calibration_error(calibration_bins(probabilities, frequencies)).item()


def test_agrees_with_loops():
    probabilities, frequencies = maps(1), maps(2)
    bins = [[] for _ in range(10)]
    for p, f in zip(probabilities.flatten().tolist(), frequencies.flatten().tolist(), strict=True):
        bins[min(int(p * 10), 9)].append((p, f))
    error = sum(abs(sum(p for p, _ in pairs) - sum(f for _, f in pairs)) for pairs in bins) / probabilities.numel()
    assert ece(probabilities, frequencies) == pytest.approx(error)
    curve = reliability(calibration_bins(probabilities, frequencies))
    assert curve.count.tolist() == [len(pairs) for pairs in bins]
    for i, pairs in enumerate(bins):
        if pairs:
            assert curve.confidence[i].item() == pytest.approx(sum(p for p, _ in pairs) / len(pairs))
            assert curve.frequency[i].item() == pytest.approx(sum(f for _, f in pairs) / len(pairs))
        else:
            assert curve.confidence[i].isnan()


def test_bins_add_up_over_batches():
    probabilities, frequencies = maps(1), maps(2)
    parts = calibration_bins(probabilities[:1], frequencies[:1]) + calibration_bins(probabilities[1:], frequencies[1:])
    torch.testing.assert_close(parts, calibration_bins(probabilities, frequencies))


def test_right_probabilities_have_no_error():
    frequencies = maps(1)
    assert ece(frequencies, frequencies) == 0
    assert brier_score(frequencies, frequencies).tolist() == [0, 0, 0, 0]


def test_sure_and_wrong_everywhere_has_the_largest_error():
    sure = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 3, 3)
    assert ece(sure, sure.flip(1)) == 1
    assert brier_score(sure, sure.flip(1)).item() == 2


def test_brier_score_of_each_image():
    probabilities, frequencies = maps(1), maps(2)
    expected = ((probabilities - frequencies) ** 2).sum(1).mean((1, 2))
    torch.testing.assert_close(brier_score(probabilities, frequencies).float(), expected)


def test_refuses_logits_and_wrong_shapes():
    probabilities = torch.full((1, 2, 3, 3), 0.5)
    with pytest.raises(ValueError, match="probabilities range from -1 to 3"):
        brier_score(torch.tensor([-1.0, 3.0]).view(1, 2, 1, 1).expand(1, 2, 3, 3), probabilities)
    with pytest.raises(ValueError, match="frequencies range from nan"):
        brier_score(probabilities, probabilities * float("nan"))
    with pytest.raises(ValueError, match="expected the same B x C x H x W"):
        calibration_bins(probabilities, probabilities[:, :, :2])
