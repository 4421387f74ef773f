"""Prediction of volumes, slice by slice, and NIfTI files of the results."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.nifti import Array
from datasets.volumes import Volume
from diffusion import SamplingConfig
from models import Samples
from prediction.dicom_seg import write_segmentation
from prediction.outputs import remove_results, write_areas, write_panel
from prediction.reading import to_input
from prediction.summary import Summary
from prediction.trained import Trained
from utils.noise import image_keys
from utils.paths import write_atomically


def sample_volume(
    trained: Trained,
    volume: Volume,
    num_samples: int,
    sampling: SamplingConfig,
    seed: int,
    *,
    tile: tuple[int, int],
    progress: Callable[[float], object],
) -> Samples:
    """Sample label maps of every slice: labels D x S x H x W and probabilities D x C x H x W, on the CPU.

    Sample k has the same noise in all slices, so that it differs less between neighbours than independent ones would.
    `progress` is called with the label maps of slices finished since the last call, a fraction.
    """
    key, drawn = image_keys(torch.from_numpy(volume.slices)[None]), []
    for number in range(len(volume.slices)):
        samples = trained.model.sample(
            slice_image(volume, number, trained), num_samples, sampling, seed, tile=tile, keys=key,
            progress=progress,
        )  # fmt: skip
        drawn.append(Samples(samples.labels.cpu(), samples.probabilities.cpu()))
    return Samples(*(torch.cat(parts) for parts in zip(*drawn, strict=True)))


def slice_image(volume: Volume, number: int, trained: Trained) -> Tensor:
    """One slice, scaled as in training: 1 x channels x H x W. Raises UserError as `to_input`."""
    return to_input(volume.slices[number][..., None], trained.preprocessing, volume.path)


def write_volume(
    folder: Path, volume: Volume, samples: Samples, trained: Trained, about: dict[str, Any]
) -> dict[str, Any]:
    """Write the results of a volume into its folder, on the grid of the file, with its header; earlier ones go.

        samples.nii.gz                  the class of every voxel, X x Y x Z x S
        majority.nii.gz                 the most frequent class; of DICOM also majority.dcm, a DICOM-SEG object
        probability_<class>.nii.gz      the mean probability of a class other than the background
        entropy.nii.gz                  entropy of the mean probabilities in bits
        panel.png                       the slice of the largest entropy at a glance
        areas.json                      as for images, counted in voxels, and the volume of a voxel in mm^3

    Returns the contents of areas.json. Raises UserError if a file cannot be written.
    """
    classes = trained.classes
    depth, num_samples, height, width = samples.labels.shape
    stacked = Summary(  # the slices below each other
        samples.labels.movedim(1, 0).reshape(num_samples, -1, width),
        samples.probabilities.movedim(1, 0).reshape(-1, depth * height, width),
    )
    entropy, majority = stacked.entropy, stacked.majority(classes.void)
    maps = {f"probability_{classes.file_name(label)}": stacked.probabilities[label] for label in classes.shown}
    maps |= {"majority": majority, "entropy": entropy}
    on_grid = {name: volume.restore(values.view(depth, height, width).numpy()) for name, values in maps.items()}
    on_grid["samples"] = np.stack([volume.restore(sample.numpy()) for sample in samples.labels.movedim(1, 0)], -1)
    remove_results(folder)
    for name, values in on_grid.items():
        _write(folder / f"{name}.nii.gz", volume, values)
    if volume.dicom is not None:
        write_segmentation(folder / "majority.dcm", volume, on_grid["majority"], classes)
    shown = int(entropy.view(depth, -1).sum(1).argmax())
    one = Samples(*(part[shown, None] for part in samples))
    write_panel(folder, slice_image(volume, shown, trained), one, classes)
    voxel = abs(float(np.linalg.det(volume.geometry.affine[:3, :3])))
    geometry = {"height": height, "slices": depth, "slice_of_panel": shown, "voxel_mm3": round(voxel, 6)}
    areas = {**about, **stacked.statistics(classes), **geometry}
    write_areas(folder, areas)
    return areas


def _write(path: Path, volume: Volume, values: Array) -> None:
    import nibabel

    header = volume.geometry.header.copy()
    header.set_data_dtype(np.uint8 if values.dtype == np.uint8 else np.float32)
    header["cal_min"], header["cal_max"] = 0, 0
    content = gzip.compress(nibabel.Nifti1Image(values, volume.geometry.affine, header).to_bytes(), 3, mtime=0)
    write_atomically(path, lambda temporary: temporary.write_bytes(content))
