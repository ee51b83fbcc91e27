"""Annotation formats: one file for each, all read into `ImageRecord` and written from it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rfla.data.formats import coco, csv, dota, soda, tinyperson, visdrone, voc, xview, yolo
from rfla.data.formats.record import Classes, ImageRecord, Part


@dataclass(frozen=True)
class Format:
    """How to read one annotation format.

    Attributes:
        find: Source directory or file -> its splits.
        classes: The splits -> the class table.
        read: One split -> its records.
        needs_names: The files may lack class names, so that `names=` may give them.
    """

    find: Callable[[Path], dict[str, Part]]
    classes: Callable[[Iterable[Part]], Classes]
    read: Callable[[Part, Classes], Iterator[ImageRecord]]
    needs_names: bool = False


FORMATS = {
    "coco": Format(coco.find, coco.classes, coco.read),
    "yolo": Format(yolo.find, yolo.classes, yolo.read, needs_names=True),
    "voc": Format(voc.find, voc.classes, voc.read, needs_names=True),
    "visdrone": Format(visdrone.find, visdrone.classes, visdrone.read),
    "dota": Format(dota.find, dota.classes, dota.read, needs_names=True),
    "tinyperson": Format(tinyperson.find, tinyperson.classes, tinyperson.read),
    "xview": Format(xview.find, xview.classes, xview.read),
    "csv": Format(csv.find, csv.classes, csv.read, needs_names=True),
    "soda": Format(soda.find, soda.classes, soda.read),
}
