"""TinyPerson: COCO JSON with flags, and with `corner` where an image entry is a tile of a picture.

`ignore`, `uncertain` and `logo` (regions that are no single person) become ignored boxes. `corner`
is x1, y1, x2, y2 of the tile in its picture, whatever the README's words say: the printed data and
the authors' loader agree on that. The boxes of a tile are relative to its corner. Several entries
share one `file_name`. (ucas-vg/TinyBenchmark.)

Written are the flags, and no corners: a conversion makes each tile a picture of its own.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rfla.data.annotations import LARGEST_SIDE, Annotations
from rfla.data.formats import coco, coco_write
from rfla.data.formats.coco_file import FullFile, four_numbers, load
from rfla.data.formats.images import require_directory
from rfla.data.record import Classes, ImageRecord, Part
from rfla.errors import DataError
from rfla.json_file import collector_at_rest

FLAGS = ("ignore", "uncertain", "logo")
ERASED = "erase_with_uncertain_dataset"  # the training images with uncertain regions painted out
# In the order of preference; the first that exists is taken. Training on tiles, testing on whole
# pictures.
TRAIN = (
    f"{ERASED}/annotations/corner/task/tiny_set_train_sw640_sh512_all.json",
    "annotations/corner/task/tiny_set_train_sw640_sh512_all.json",
    "annotations/task/tiny_set_train_all.json",
    "annotations/tiny_set_train.json",
)
TEST = (
    "mini_annotations/tiny_set_test_all.json",
    "annotations/task/tiny_set_test_all.json",
    "annotations/tiny_set_test.json",
)


def find(source: Path) -> dict[str, Part]:
    """Find the splits of `tiny_set`, or take one JSON file."""
    if source.is_file():
        return {
            split: Part(part.annotations, _images(source.parent, split))
            for split, part in coco.find(source).items()
        }
    parts: dict[str, Part] = {}
    for split, names in (("train", TRAIN), ("test", TEST)):
        file = next(
            (source / name for name in names if (require_directory(source) / name).is_file()), None
        )
        if file is not None:
            erased = ERASED in file.parts
            parts[split] = Part((file,), _images(source / ERASED if erased else source, split))
    return parts or coco.find(source)


def _images(folder: Path, split: str) -> tuple[Path, ...]:
    """Return the image directories of a split, at `folder` or above it, the nearest first."""
    found: list[Path] = []
    for root in (folder, *folder.parents[:3]):
        found += [root / name for name in (split, "images") if (root / name).is_dir()]
    return tuple(found) or (folder,)


classes_of = coco.classes_of


def read(
    part: Part, classes: Classes | None, *, to_write: bool = True, strict: bool = True
) -> Annotations:
    """Read the images of a split; those with a `corner` have a window.

    Args:
        part: The files of the split.
        classes: The class table; None: the categories of the files.
        to_write: As in `coco.Rules`.
        strict: As in `coco.Rules`.

    Raises:
        DataError: An entry that is malformed.
    """
    rules = coco.Rules(FLAGS, to_write=to_write, strict=strict)
    with collector_at_rest():
        return coco.join_files([_read_file(path, classes, rules) for path in part.annotations])


def _read_file(path: Path, classes: Classes | None, rules: coco.Rules) -> Annotations:
    content = load(path, FullFile)
    read = coco.annotations(content, str(path), classes, rules)
    windows = np.zeros((len(read), 4), np.int32)
    for row, entry in enumerate(content.images or []):
        if entry.corner is not None:
            windows[row] = _corner(entry.corner, f"{path}: images[{row}]")
    return replace(read, crowd=read.crowd | read.ignore, windows=windows if windows.any() else None)


def _corner(value: Any, where: str) -> tuple[int, int, int, int]:
    x1, y1, x2, y2 = four_numbers(value, where, "corner", "x1, y1, x2, y2")
    whole = all(value == int(value) <= LARGEST_SIDE for value in (x1, y1, x2, y2))
    if not whole or min(x1, y1) < 0 or x2 <= x1 or y2 <= y1:
        raise DataError(
            f"{where}: corner must be whole x1, y1, x2, y2 with x1 < x2 and y1 < y2, not {value}"
        )
    return int(x1), int(y1), int(x2), int(y2)


def write(path: Path, records: Iterable[ImageRecord], classes: Classes) -> Counter[str]:
    """Write one COCO file with the flags at every annotation, as in the published ones.

    Returns:
        What could not be held, counted (nothing).
    """
    return coco_write.write(path, records, classes, flags=FLAGS[1:])
