"""Detections as text: COCO JSON of the run, one CSV of the run, YOLO rows of each image."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rfla.cfg import Config
from rfla.data.formats.csv import as_cell, as_path
from rfla.files import write_atomically
from rfla.predict.names import Name
from rfla.predict.outputs.output import Output, Row, parts_of
from rfla.results import Results


class Predictions(Output):
    """`predictions.json`: COCO detections of all images, which `rfla val predictions=` reads.

    Images are named by their place below the source, suffix included (`town/a.png`).
    """

    @classmethod
    def wanted(cls, cfg: Config) -> bool:
        """Every run writes it."""
        return True

    def finish(self, rows: Sequence[Row]) -> None:
        """Write the file."""
        write_atomically(self.run_dir / "predictions.json", _coco_text(rows))


def _coco_text(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the text of a JSON list of the detections of all images, in parts."""
    before = "["
    for row in rows:
        for part in parts_of(row.results):
            if found := part.to_coco(row.name.image_id):
                yield before + json.dumps(found)[1:-1]
                before = ", "
    yield "[]" if before == "[" else "]"


class Text(Output):
    """`labels/town/a.txt`: YOLO rows."""

    key = "save_txt"

    def add(self, name: Name, results: Results) -> None:
        """Write the rows of one image."""
        results.save_txt(self.path_of(name, ".txt", "labels"), self.cfg.save_conf)


class Table(Output):
    """`predictions.csv`: a row for each detection, in px of its image.

    No cell is one that a spreadsheet would run as a formula.
    """

    key = "save_csv"
    COLUMNS = (*("image", "frame", "time", "x1", "y1", "x2", "y2", "confidence", "class", "name"),)

    def finish(self, rows: Sequence[Row]) -> None:
        """Write the file."""
        write_atomically(self.run_dir / "predictions.csv", self._text(rows))

    def _text(self, rows: Sequence[Row]) -> Iterator[str]:
        """Yield the text of the file, in parts."""
        yield _as_csv([self.COLUMNS])
        for row in rows:
            for part in parts_of(row.results):
                yield _as_csv(_cells(row.name, part))


def _as_csv(rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _cells(of: Name, results: Results) -> Iterator[list[Any]]:
    """Yield the cells of each detection of an image."""
    boxes = results.boxes
    image = as_path(of.image_id)
    frame = "" if results.frame is None else results.frame
    time = "" if results.time is None else f"{results.time:.3f}"
    names = [as_cell(name) for name in results.names]
    columns = (boxes.xyxy.tolist(), boxes.conf.tolist(), boxes.cls.tolist())
    for corners, score, label in zip(*columns, strict=True):
        sides = [f"{side:.3f}" for side in corners]
        yield [image, frame, time, *sides, f"{score:.6f}", label, names[label]]
