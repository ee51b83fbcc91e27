"""Annotation formats: one file for each, all read into `ImageRecord` and written from it."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rfla.data.formats import (
    coco,
    coco_write,
    csv,
    dota,
    soda,
    tinyperson,
    visdrone,
    voc,
    xview,
    yolo,
)
from rfla.data.formats.record import Classes, ImageRecord, Part


@dataclass(frozen=True)
class Format:
    """How to read and write one annotation format.

    Attributes:
        find: Source directory or file -> its splits.
        classes: The splits -> the class table.
        read: One split -> its records.
        write: Records -> the file or directory `target`; returns what it could not hold, counted.
        target: What is written for one split, relative to the data set.
        needs_names: The files may lack class names, so that `names=` may give them.
    """

    find: Callable[[Path], dict[str, Part]]
    classes: Callable[[Iterable[Part]], Classes]
    read: Callable[[Part, Classes], Iterator[ImageRecord]]
    write: Callable[[Path, Iterable[ImageRecord], Classes], Counter[str]]
    target: str = "annotations/{split}"
    needs_names: bool = False

    @property
    def label_file_of_each_image(self) -> bool:
        """Whether `target` is a directory."""
        return not Path(self.target).suffix


JSON = "annotations/{split}.json"
FORMATS = {
    "coco": Format(coco.find, coco.classes, coco.read, coco_write.write, JSON),
    "yolo": Format(
        yolo.find, yolo.classes, yolo.read, yolo.write, "labels/{split}", needs_names=True
    ),
    "voc": Format(voc.find, voc.classes, voc.read, voc.write, needs_names=True),
    "visdrone": Format(visdrone.find, visdrone.classes, visdrone.read, visdrone.write),
    "dota": Format(dota.find, dota.classes, dota.read, dota.write, needs_names=True),
    "tinyperson": Format(
        tinyperson.find, tinyperson.classes, tinyperson.read, tinyperson.write, JSON
    ),
    "xview": Format(
        xview.find, xview.classes, xview.read, xview.write, "annotations/{split}.geojson"
    ),
    "csv": Format(
        csv.find, csv.classes, csv.read, csv.write, "annotations/{split}.csv", needs_names=True
    ),
    "soda": Format(soda.find, soda.classes, soda.read, soda.write, JSON),
}
