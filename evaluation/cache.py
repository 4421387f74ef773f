"""Scores of images on disk, so that an interrupted evaluation continues where it stopped."""

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from evaluation.image_metrics import Task, task_metrics
from evaluation.results import ImageScores
from utils.distributed import broadcast_from_main, is_main
from utils.errors import UserError
from utils.logs import LOGGER
from utils.paths import write_text


class ResultCache:
    """A file of lines, each with the `ImageScores` of one batch as JSON after its digest.

    The first line is a fingerprint of everything that the scores depend on. A file with another fingerprint is
    overwritten, and lines that are incomplete or damaged are dropped, so that their images are scored again. All
    processes of a run have the scores; process 0 writes the file.

    Args:
        path: the file; None caches in memory only.
        fingerprint: see `fingerprint`.
    """

    def __init__(self, path: Path | None = None, fingerprint: str = "") -> None:
        self.path, self.fingerprint = path, fingerprint
        self.scores: dict[int, ImageScores] = {}
        if path is not None:
            self.scores = broadcast_from_main(lambda: self._open(path, fingerprint))

    def _open(self, path: Path, fingerprint: str) -> dict[int, ImageScores]:
        header = _with_digest(fingerprint)
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1] if path.is_file() else []
        kept, damaged = [header], 0
        for line in lines[1:] if lines[:1] == [header] else []:
            batch = _read_batch(line)
            if batch is None:
                damaged += 1
            else:
                kept.append(line)
                self._remember(batch)
        if damaged:
            LOGGER.warning("%s: %d batches are damaged; their images are scored again", path, damaged)
        write_text(path, "".join(f"{line}\n" for line in kept))
        return self.scores

    def add(self, batch: list[ImageScores]) -> None:
        """Add the scores of a batch. Raises UserError if the file cannot be written, for example because the disk is
        full."""
        self._remember(batch)
        if self.path is None or not is_main():
            return
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(_with_digest(json.dumps([dataclasses.asdict(scores) for scores in batch])) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"{self.path} cannot be written: {error.strerror or error}") from error

    def _remember(self, batch: list[ImageScores]) -> None:
        self.scores.update({scores.index: scores for scores in batch})


def fingerprint(task: Task, dependencies: Any) -> str:
    """A digest of the metrics and their versions, and of everything else that scores depend on."""
    metrics = [(metric.name, metric.version) for metric in task_metrics(task)]
    return hashlib.sha256(json.dumps([metrics, dependencies]).encode()).hexdigest()


_BATCH = TypeAdapter(list[ImageScores])


def _with_digest(text: str) -> str:
    return f"{hashlib.sha256(text.encode()).hexdigest()[:16]} {text}"


def _read_batch(line: str) -> list[ImageScores] | None:
    """The scores in a line of the file; None if it is damaged."""
    text = line.partition(" ")[2]
    if line != _with_digest(text):
        return None
    try:
        return _BATCH.validate_json(text)
    except ValidationError:
        return None
