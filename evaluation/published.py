"""The paper's results, for comparison (Zbinden et al., ICCV 2023, Tables 1 to 3)."""

from typing import Any

_LIDC = {
    "LIDCv1": (
        {"ged": {16: 0.212, 32: 0.194, 50: 0.187, 100: 0.183}, "hm_iou": {16: 0.623, 32: 0.631}},
        "The paper's split of 15,096 slices was never published by patient; its samples take 250 steps.",
    ),
    "LIDCv2": (
        {"ged": {16: 0.239, 50: 0.216, 100: 0.210}, "hm_iou": {16: 0.598}},
        "The paper's samples take 250 steps.",
    ),
}
_CITYSCAPES = {
    "128x256": {1: 0.532, 5: 0.554, 10: 0.562},
    "128x256 with DINO": {1: 0.555, 5: 0.569, 10: 0.573},
    "256x512": {1: 0.603, 5: 0.620, 10: 0.624},
    "256x512 with DINO": {1: 0.640, 5: 0.654, 10: 0.658},
}


def published_results(benchmark: str | None, size: tuple[int, int], with_encoder: bool) -> dict[str, Any] | None:
    """The paper's results on a benchmark in the form of those in `results.json`, with a `note`; None if there are none.

    Results on Cityscapes depend on the height and width of the network's images, and on whether it has a DINO encoder.
    """
    network = f"{size[0]}x{size[1]}{' with DINO' if with_encoder else ''}"
    if benchmark == "Cityscapes" and network in _CITYSCAPES:
        note = "The paper evaluates the 500 images of the validation split at the size of the network's images."
        name, values, note = f"Cityscapes {network}", {"miou": _CITYSCAPES[network]}, note
    elif benchmark in _LIDC:
        name, (values, note) = benchmark, _LIDC[benchmark]
    else:
        return None
    cells = [(metric, n, mean) for metric, means in values.items() for n, mean in means.items()]
    rows = [{"metric": metric, "num_samples": n, "mean": mean} for metric, n, mean in cells]
    counts = sorted({n for _, n, _ in cells})
    return {"name": f"paper, {name}", "kind": "paper", "num_samples": counts, "metrics": rows, "note": note}
