"""The images that a prediction is through with, on disk, so that a run can be taken up again.

Each process appends a line of JSON for each image to a file of its own, once the image's outputs
are written; its boxes are the bytes of their arrays, since a scene has hundreds of thousands. A run
that ends well removes the files.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from rfla.errors import ExistingRunError
from rfla.results import Boxes, Results

PATTERN = ".done.*.jsonl"


def restore(run_dir: Path, names: tuple[str, ...]) -> list[Results]:
    """Return the results of the images that were done, without pixels.

    A last line that was cut off is left out: its image is predicted again.

    Args:
        run_dir: Of a run that was stopped.
        names: Classes of the model.

    Raises:
        ExistingRunError: There is nothing to go on from.
    """
    files = sorted(run_dir.glob(PATTERN))
    if not files:
        raise ExistingRunError(
            f"resume={run_dir}: nothing to resume; the run is complete, or never started"
        )
    done = {results.path: results for file in files for results in _read(file, names)}
    return list(done.values())


def _read(file: Path, names: tuple[str, ...]) -> Iterator[Results]:
    for line in file.read_bytes().splitlines():
        with suppress(ValueError, KeyError, TypeError):
            entry = json.loads(line)
            boxes = Boxes(
                _array(entry["boxes"], "<f4").reshape(-1, 4),
                _array(entry["scores"], "<f4"),
                _array(entry["labels"], "<i8"),
                (int(entry["shape"][0]), int(entry["shape"][1])),
            )
            if len(boxes.xyxy) == len(boxes.conf) == len(boxes.cls):
                no_pixels = np.zeros((0, 0, 3), np.uint8)
                yield Results(no_pixels, str(entry["path"]), names, boxes)


def _text(values: np.ndarray, kind: str) -> str:
    """Return numbers as text."""
    return b64encode(values.astype(kind).tobytes()).decode("ascii")


def _array(text: str, kind: str) -> np.ndarray:
    """Return the numbers of `_text`, in memory of their own.

    Raises:
        ValueError: They are none.
    """
    return np.frombuffer(b64decode(text, validate=True), kind).astype(kind[1:])


class ProgressFile:
    """Where one process notes the images that it is through with.

    Args:
        run_dir: Of the run.
        rank: Number of the process.
    """

    def __init__(self, run_dir: Path, rank: int):
        self.run_dir = run_dir
        self._file = open(run_dir / f".done.{rank}.jsonl", "a", encoding="utf-8")  # noqa: SIM115
        self._file.write("\n")  # behind a line that was cut off

    def add(self, results: Results) -> None:
        """Note an image whose outputs are written. Frames are not: a video is done as a whole."""
        if results.frame is not None:
            return
        boxes = results.boxes
        entry: dict[str, Any] = {
            "path": results.path,
            "shape": results.orig_shape,
            "boxes": _text(boxes.xyxy, "<f4"),
            "scores": _text(boxes.conf, "<f4"),
            "labels": _text(boxes.cls, "<i8"),
        }
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Keep the file: the run can be taken up."""
        self._file.close()


def forget(run_dir: Path) -> None:
    """Remove the files of all processes: the run is complete."""
    for file in run_dir.glob(PATTERN):
        file.unlink(missing_ok=True)
