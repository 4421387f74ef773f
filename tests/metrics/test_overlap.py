import pytest
import torch

from metrics import overlap
from metrics.overlap import pairwise_dice, pairwise_iou
from tests.metrics import reference


@pytest.mark.parametrize("num_classes", [2, 3, 20])
@pytest.mark.parametrize(("pairwise", "single"), [(pairwise_iou, reference.iou), (pairwise_dice, reference.dice)])
def test_agrees_with_loops(num_classes, pairwise, single):
    a = reference.random_maps(num_classes, (2, 3, 6, 5), seed=1)
    b = reference.random_maps(num_classes, (2, 4, 6, 5), seed=2).to(torch.uint8)
    expected = [[[single(x.numpy(), y.numpy(), num_classes) for y in b[i]] for x in a[i]] for i in range(2)]
    torch.testing.assert_close(pairwise(a, b, num_classes), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("pairwise", [pairwise_iou, pairwise_dice])
def test_empty_masks(pairwise):
    empty, full = torch.zeros(1, 1, 4, 4, dtype=torch.uint8), torch.ones(1, 1, 4, 4, dtype=torch.uint8)
    assert pairwise(empty, empty, 2).item() == 1
    assert pairwise(empty, full, 2).item() == 0
    assert pairwise(full, full, 2).item() == 1
    assert pairwise(full, full, 3).item() == 1  # class 2 is in neither


def test_counts_are_exact_under_autocast_and_low_matmul_precision():
    a = torch.ones(1, 1, 64, 65, dtype=torch.uint8)  # 4160 pixels: bfloat16 would round a count of 4159
    b = a.clone()
    b[..., 0, 0] = 0
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert pairwise_iou(a, b, 2).item() == 4159 / 4160
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("elements", [1, 7, 64])
def test_blocks_of_pixels_do_not_change_the_result(monkeypatch, elements):
    maps = reference.random_maps(3, (2, 4, 5, 7))
    whole = pairwise_iou(maps, maps, 3)
    monkeypatch.setattr(overlap, "_BLOCK_ELEMENTS", elements)
    assert torch.equal(pairwise_iou(maps, maps, 3), whole)
    assert torch.equal(pairwise_iou(maps, maps.clone(), 3), whole)


def test_strided_maps():
    maps = reference.random_maps(3, (2, 4, 6, 5))
    turned = maps.mT
    assert torch.equal(pairwise_iou(turned, turned, 3), pairwise_iou(maps, maps, 3))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_same_counts_on_cuda():
    maps = (torch.rand(1, 8, 512, 512) < 0.5).to(torch.uint8)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        on_device = pairwise_iou(maps.cuda(), maps.cuda(), 2)
    assert torch.equal(on_device.cpu(), pairwise_iou(maps, maps, 2))


@pytest.mark.parametrize(
    ("a", "num_classes", "message"),
    [
        (torch.zeros(1, 1, 2, 2), 2, "a has dtype torch.float32"),
        (torch.zeros(1, 2, 2, dtype=torch.uint8), 2, r"a has shape \(1, 2, 2\)"),
        (torch.full((1, 1, 2, 2), 255), 2, "a holds classes 255 to 255: expected 0 to 1"),
        (torch.zeros(1, 1, 2, 2, dtype=torch.uint8), 1, "num_classes is 1"),
        (torch.zeros(2, 1, 2, 2, dtype=torch.uint8), 2, "same batch size, height and width"),
    ],
)
def test_refuses_what_is_no_label_map(a, num_classes, message):
    with pytest.raises(ValueError, match=message):
        pairwise_iou(a, torch.zeros(1, 1, 2, 2, dtype=torch.uint8), num_classes)
