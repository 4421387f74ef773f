"""The progress of sampling, in label maps."""

from collections.abc import Callable


class Progress:
    """Reports fractions of label maps as network calls advance them.

    Args:
        report: called with the label maps finished since the last call, a fraction; what it receives sums to their
            number. None: nothing is reported.
        num_steps: steps of a label map.
    """

    def __init__(self, report: Callable[[float], object] | None, num_steps: int) -> None:
        self._report, self._num_steps, self._ahead = report, num_steps, 0.0

    def advance(self, num_maps: float) -> None:
        """That many label maps, or the same share of a label map's tiles, are a step further."""
        self._add(num_maps / self._num_steps)

    def finish(self, num_maps: int) -> None:
        """That many label maps are finished. Steps that were repeated, or computed only to fill a chunk, are taken
        back."""
        self._add(num_maps - self._ahead)
        self._ahead = 0.0

    def _add(self, share: float) -> None:
        self._ahead += share
        if self._report is not None:
            self._report(share)
