"""Annotation formats: one reader and writer for each, into one flat store (`Annotations`)."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rfla.data.annotations import Annotations
from rfla.data.formats import (
    coco,
    coco_write,
    csv,
    cvat,
    dota,
    soda,
    tinyperson,
    visdrone,
    voc,
    xview,
    yolo,
)
from rfla.data.formats.recognize import LOOKS
from rfla.data.record import Classes, ImageRecord, Part
from rfla.errors import DataError


class Reader(Protocol):
    """Reads one split.

    Raises:
        DataError: With file and line, for what is malformed.
    """

    def __call__(
        self, part: Part, classes: Classes | None, *, to_write: bool = True, strict: bool = True
    ) -> Annotations:
        """Read the images of a split.

        Args:
            part: Its files.
            classes: The class table; None: what the files of this split name.
            to_write: Read all that can be written back, and refuse a box that is none; otherwise
                what training and evaluation need, where a box that is none is NaN.
            strict: Refuse a malformed row; otherwise leave it out and count it.
        """
        ...


@dataclass(frozen=True)
class Format:
    """How to read and write one annotation format.

    Attributes:
        find: Source directory or file -> its splits.
        classes: The splits -> the class table.
        read: One split -> its images and boxes.
        write: Records -> the file or directory `target`; returns what it could not hold, counted.
        target: What is written for one split, relative to the data set.
        needs_names: The files may lack class names, so that `names=` may give them.
        states_classes: Each annotation file lists its classes itself.
    """

    find: Callable[[Path], dict[str, Part]]
    classes: Callable[[Iterable[Part]], Classes]
    read: Reader
    write: Callable[[Path, Iterable[ImageRecord], Classes], Counter[str]]
    target: str = "annotations/{split}"
    needs_names: bool = False
    states_classes: bool = False

    @property
    def label_file_of_each_image(self) -> bool:
        """Whether `target` is a directory."""
        return not Path(self.target).suffix


JSON = "annotations/{split}.json"
FORMATS = {
    "coco": Format(
        coco.find, coco.classes_of, coco.read, coco_write.write, JSON, states_classes=True
    ),
    "yolo": Format(
        yolo.find, yolo.classes_of, yolo.read, yolo.write, "labels/{split}", needs_names=True
    ),
    "voc": Format(voc.find, voc.classes_of, voc.read, voc.write, needs_names=True),
    "visdrone": Format(visdrone.find, visdrone.classes_of, visdrone.read, visdrone.write),
    "dota": Format(dota.find, dota.classes_of, dota.read, dota.write, needs_names=True),
    "tinyperson": Format(
        tinyperson.find,
        tinyperson.classes_of,
        tinyperson.read,
        tinyperson.write,
        JSON,
        states_classes=True,
    ),
    "xview": Format(
        xview.find, xview.classes_of, xview.read, xview.write, "annotations/{split}.geojson"
    ),
    "csv": Format(
        csv.find, csv.classes_of, csv.read, csv.write, "annotations/{split}.csv", needs_names=True
    ),
    "cvat": Format(cvat.find, cvat.classes_of, cvat.read, cvat.write, "annotations/{split}.xml"),
    "soda": Format(soda.find, soda.classes_of, soda.read, soda.write, JSON, states_classes=True),
}


def recognise(source: Path) -> tuple[str, dict[str, Part]]:
    """Return the format of a directory or an annotation file, and its splits, by what is in it.

    Raises:
        DataError: No format knows it, or one does and its files are ambiguous.
    """
    for name, holds in LOOKS.items():
        try:
            parts = FORMATS[name].find(source)
        except DataError:
            continue
        if any(holds(part) for part in parts.values()):
            return name, parts
    raise DataError(
        f"{source}: neither data.yaml nor images/ with annotations/{{split}}.json is in this "
        f"directory, nor annotations of a known format ({', '.join(FORMATS)})"
    )
