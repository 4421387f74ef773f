"""Checkpoints of earlier format versions, converted to the current one."""

from collections.abc import Mapping
from typing import Any

from datasets.cityscapes import Cityscapes

_RENAMED_SETTINGS = {
    "samples": "num_samples",
    "sampling_batch": "max_batch_size",
    "max_bad_steps": "max_nonfinite_steps",
}


def upgrade(contents: Mapping[str, Any]) -> dict[str, Any]:
    """Convert format version 1, in which network and process had no module names, to version 2."""
    if contents["format_version"] != 1:
        return dict(contents)
    network, process = contents["network"], contents["process"]
    num_classes = network.get("num_classes")
    if process.get("beta_schedule") == "single_jump":
        process_part = {"module": "diffusion.classifier", "params": {"num_classes": num_classes}}
    else:
        process_part = {
            "module": "diffusion.uniform",
            "params": {"num_classes": num_classes, "evidence": False, **process},
        }
    upgraded = {
        **contents,
        "format_version": 2,
        "settings": {_RENAMED_SETTINGS.get(name, name): value for name, value in contents["settings"].items()},
        "network": {"module": "models.unet", "params": {"scale_shift_norm": False, **network}},
        "process": process_part,
        "model": _renamed(contents["model"]),
        "average": _renamed(contents["average"]),
    }
    if "bad_steps" in upgraded:
        upgraded["nonfinite_steps"] = upgraded.pop("bad_steps")
    if "preprocessing" not in upgraded:
        mean = std = [0.5] * network.get("image_channels", 1)
        if contents["settings"].get("dataset_file") == "datasets.cityscapes":
            mean, std = list(Cityscapes.image_mean), list(Cityscapes.image_std)
        upgraded["preprocessing"] = {"image_mean": mean, "image_std": std}
    return upgraded


def _renamed(weights: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"network.{name.removeprefix('unet.')}" if name.startswith("unet.") else name: tensor
        for name, tensor in weights.items()
    }
