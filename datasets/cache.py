"""A data set read once and kept, in memory that the worker processes share, or on the device."""

from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from datasets.loading import AnnotatedDataset, evaluation_batches
from datasets.normalisation import Normalisation
from utils.errors import UserError

_BATCH = 16


class CachedImages:
    """The images and label maps of a whole data set, ready to be drawn in batches.

    Images are kept as 8-bit codes with a table of the values that they stand for where that gives every image back to
    the bit, and otherwise as float32. Worker processes share the memory: it is read-only after it was filled.

    Args:
        dataset: what is read, item by item.
        device: where it is kept.
        workers: processes that read.

    Raises:
        UserError: for an item that breaks the contract of data sets, and for images of different sizes.
    """

    def __init__(self, dataset: AnnotatedDataset, device: torch.device, workers: int) -> None:
        self.device, self.normalisation = device, Normalisation.from_dataset(dataset)
        images = _GrowingImages(self.normalisation, dataset.image_channels)
        labels: NDArray[Any] | None = None
        counts = []
        batches = evaluation_batches(dataset, list(range(len(dataset))), _BATCH, workers)
        for batch in tqdm(batches, desc="caching", unit="batch", leave=False):
            images.append(batch.images)
            labels = _grown(labels, batch.labels[batch.present].numpy())
            counts.append(batch.present.sum(1))
        self._images, self._values = images.finish(device)
        self._labels = torch.from_numpy(labels).to(device)
        self._num_annotators = torch.cat(counts)
        self._first_row = self._num_annotators.cumsum(0) - self._num_annotators

    def __len__(self) -> int:
        return len(self._images)

    @property
    def num_bytes(self) -> int:
        """Memory of images and label maps."""
        return self._images.nbytes + self._labels.nbytes

    def draw(self, indices: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
        """Images of those indices (B) and of each the label map of one annotator, chosen by a uniform number (B)."""
        chosen = (uniforms.double() * self._num_annotators[indices]).long()
        rows = (self._first_row[indices] + chosen).to(self.device)
        images = self._images[indices.to(self.device)]
        return images if self._values is None else self._values.decode(images), self._labels[rows]


def cached(
    dataset: AnnotatedDataset, cache: Literal["memory", "device"] | None, device: torch.device, workers: int
) -> AnnotatedDataset | CachedImages:
    """The data set to train on, kept as the setting `cache` says: in memory, on the device, or not at all."""
    if cache is None:
        return dataset
    return CachedImages(dataset, device if cache == "device" else torch.device("cpu"), workers)


class _Values:
    """The float32 values that 8-bit codes stand for, one table a channel (channels x 256); NaN where none was seen."""

    def __init__(self, normalisation: Normalisation, table: Tensor) -> None:
        self.normalisation, self.table = normalisation, table
        self._offsets = 256 * torch.arange(len(table), dtype=torch.int32, device=table.device).view(-1, 1, 1)

    def to(self, device: torch.device) -> "_Values":
        return _Values(self.normalisation.to(device), self.table.to(device))

    def decode(self, codes: Tensor) -> Tensor:
        return self.table.view(-1).index_select(0, (codes.int() + self._offsets).view(-1)).view(codes.shape)

    def encode(self, images: Tensor) -> Tensor | None:
        """The codes, uint8, or None where they do not give the images back to the bit."""
        codes = (self.normalisation.undo(images) * 255).round_().clamp_(0, 255).to(torch.uint8)
        unseen = self.decode(codes).isnan()
        if unseen.any():
            rows = (codes.int() + self._offsets)[unseen]
            self.table.view(-1)[rows] = images[unseen]
        return codes if torch.equal(self.decode(codes), images) else None


class _GrowingImages:
    def __init__(self, normalisation: Normalisation, channels: int) -> None:
        self._values: _Values | None = _Values(normalisation, torch.full((channels, 256), torch.nan))
        self._stored: NDArray[Any] | None = None

    def append(self, images: Tensor) -> None:
        if self._stored is not None and self._stored.shape[1:] != images.shape[1:]:
            raise UserError(
                f"the images have different sizes: {self._stored.shape[1:]} and {tuple(images.shape[1:])}; "
                f"expected one size"
            )
        if self._values is not None:
            codes = self._values.encode(images)
            if codes is not None:
                self._stored = _grown(self._stored, codes.numpy())
                return
            if self._stored is not None:
                self._stored = self._values.decode(torch.from_numpy(self._stored)).numpy().copy()  # one that can grow
            self._values = None
        self._stored = _grown(self._stored, images.numpy())

    def finish(self, device: torch.device) -> tuple[Tensor, _Values | None]:
        return torch.from_numpy(self._stored).to(device), self._values and self._values.to(device)


def _grown(stored: NDArray[Any] | None, rows: NDArray[Any]) -> NDArray[Any]:
    """`stored` with more rows, in place: a large block of memory is remapped, never copied or held twice."""
    if stored is None:
        return rows.copy()
    length = len(stored)
    stored.resize((length + len(rows), *rows.shape[1:]), refcheck=False)
    stored[length:] = rows
    return stored
