"""A dataset that is read once and kept in memory shared by the worker processes, or on the device."""

from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from datasets.contract import AnnotatedDataset
from datasets.loading import evaluation_batches
from datasets.normalisation import Normalisation
from utils.errors import UserError


class CachedImages:
    """`TrainingImages` that keeps all images and label maps of a dataset on `device`, read by `workers` processes.

    Images are stored as 8-bit codes with a table of the values they stand for if that is lossless, else as float32.
    Worker processes share the memory, which is read-only once filled. Raises UserError for an item that violates the
    contract of datasets, and for images of different sizes.
    """

    def __init__(self, dataset: AnnotatedDataset, device: torch.device, workers: int) -> None:
        self.device, self.normalisation = device, Normalisation.from_dataset(dataset)
        table: _ValueTable | None = _ValueTable(self.normalisation, dataset.image_channels)
        images: NDArray[Any] | None = None
        labels: NDArray[Any] | None = None
        counts = []
        batches = evaluation_batches(dataset, list(range(len(dataset))), batch_size=16, workers=workers)
        for batch in tqdm(batches, desc="caching", unit="batch", leave=False):
            if images is not None and images.shape[1:] != batch.images.shape[1:]:
                sizes = f"{images.shape[1:]} and {tuple(batch.images.shape[1:])}"
                raise UserError(f"the images have different sizes: {sizes}; expected one size")
            codes = None if table is None else table.encode(batch.images)
            if table is not None and codes is None:  # 8 bits are not enough
                images = None if images is None else table.decode(torch.from_numpy(images)).numpy().copy()
                table = None
            images = _append(images, (batch.images if codes is None else codes).numpy())
            labels = _append(labels, batch.labels[batch.present].numpy())
            counts.append(batch.present.sum(1))
        self._images, self._labels = torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)
        self._table = None if table is None else table.to(device)
        self._num_annotators = torch.cat(counts)
        self._first_row = self._num_annotators.cumsum(0) - self._num_annotators

    def __len__(self) -> int:
        return len(self._images)

    def draw(self, indices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `TrainingImages`."""
        counts = self._num_annotators[indices][:, None]
        raters = torch.arange(int(counts.max()))
        present = raters < counts
        labels = self._labels[(self._first_row[indices][:, None] + raters.clamp(max=counts - 1)).to(self.device)]
        if not present.all():
            labels = labels.masked_fill(~present[:, :, None, None].to(self.device), 0)
        images = self._images[indices.to(self.device)]
        return images if self._table is None else self._table.decode(images), labels, present


def cached(
    dataset: AnnotatedDataset, cache: Literal["memory", "device"] | None, device: torch.device, workers: int
) -> AnnotatedDataset | CachedImages:
    """Cache the dataset as the setting `cache` says: in memory, on the device, or not at all."""
    if cache is None:
        return dataset
    return CachedImages(dataset, device if cache == "device" else torch.device("cpu"), workers)


class _ValueTable:
    """The float32 values of 8-bit codes, for each channel (channels x 256); NaN for codes that were not used yet."""

    def __init__(self, normalisation: Normalisation, channels: int) -> None:
        self.normalisation, self.values = normalisation, torch.full((channels * 256,), torch.nan)
        self._offsets = 256 * torch.arange(channels, dtype=torch.int32).view(-1, 1, 1)

    def to(self, device: torch.device) -> "_ValueTable":
        self.values, self._offsets = self.values.to(device), self._offsets.to(device)
        return self

    def decode(self, codes: Tensor) -> Tensor:
        return self.values.index_select(0, (codes.int() + self._offsets).view(-1)).view(codes.shape)

    def encode(self, images: Tensor) -> Tensor | None:
        """The codes, uint8, or None if decoding them would not return exactly the same images."""
        codes = (self.normalisation.undo(images) * 255).round_().clamp_(0, 255).to(torch.uint8)
        new = self.decode(codes).isnan()
        self.values[(codes.int() + self._offsets)[new]] = images[new]
        return codes if torch.equal(self.decode(codes), images) else None


def _append(stored: NDArray[Any] | None, rows: NDArray[Any]) -> NDArray[Any]:
    """Append rows in place: the system remaps a large block of memory, so that it is never held twice."""
    if stored is None:
        return rows.copy()
    length = len(stored)
    stored.resize((length + len(rows), *rows.shape[1:]), refcheck=False)
    stored[length:] = rows
    return stored
