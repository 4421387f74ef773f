"""Results image by image on disk, so that an evaluation that was interrupted continues where it stopped."""

import json
import os
from pathlib import Path
from typing import Any

from utils.distributed import broadcast_from_main, is_main
from utils.errors import UserError
from utils.paths import write_text

Row = dict[str, Any]


class RowStore:
    """A file of JSON lines, one an image; a batch is added in one piece.

    The first line is the fingerprint of what the rows were made with: a file of another fingerprint is started anew,
    and a line that was cut off is forgotten. Without a path nothing is kept. Of several processes all have the
    rows, and process 0 has the file.
    """

    def __init__(self, path: Path | None = None, fingerprint: str = "") -> None:
        self.path = path
        self.rows: dict[int, Row] = {}
        if path is not None:
            self.rows = broadcast_from_main(lambda: self._open(path, fingerprint))

    def _open(self, path: Path, fingerprint: str) -> dict[int, Row]:
        header = json.dumps({"fingerprint": fingerprint})
        batches = _complete_lines(path)
        kept = batches if batches and batches[0] == header else [header]
        for line in kept[1:]:
            self._remember(json.loads(line))
        text = "".join(f"{line}\n" for line in kept)
        write_text(path, text)
        return self.rows

    def add(self, batch: list[Row]) -> None:
        """Keep the rows of a batch, each with its `index`.

        Raises:
            UserError: where the disk is full or the file cannot be written.
        """
        self._remember(batch)
        if self.path is None or not is_main():
            return
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(batch) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"{self.path} cannot be written: {error.strerror or error}") from error

    def _remember(self, batch: list[Row]) -> None:
        self.rows.update({row["index"]: row for row in batch})


def _complete_lines(path: Path) -> list[str]:
    """The lines of the file that were written to their end."""
    if not path.is_file():
        return []
    *lines, _ = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return lines
