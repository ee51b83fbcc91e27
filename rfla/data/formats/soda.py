"""SODA-D and SODA-A: COCO-like JSON.

One file for each split (D), or for each image (A, with `poly` for `bbox`).

A category named `ignore` marks regions in which nothing is counted. Polygons become the tight boxes
round them. (Cheng et al., Towards Large-Scale Small Object Detection, TPAMI 2023.)
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rfla.data.annotations import Annotations
from rfla.data.formats import coco, coco_write
from rfla.data.formats.coco_file import (
    FullFile,
    category_names,
    class_table,
    finite_numbers,
    from_memory,
)
from rfla.data.formats.images import find_folders, split_of
from rfla.data.formats.text import tight_boxes
from rfla.data.record import Classes, ImageRecord, Part
from rfla.errors import DataError, shorten
from rfla.json_file import collector_at_rest, read_json

REGION = "ignore"


def find(source: Path) -> dict[str, Part]:
    """Find the splits: `Annotations/{split}.json` (D).

    `Annotations/{split}/*.json` or `{split}/Annotations` (A).
    """
    if source.is_file():
        return coco.find(source)
    try:
        files = coco.annotation_files(source)
    except DataError:
        files = []
    if files and all(split_of(file.stem) for file in files):
        return coco.find(source)
    return find_folders(source, ("Annotations", "annotations"), ("Images", "images"), ".json")


def classes_of(parts: Iterable[Part]) -> Classes:
    """Return the categories of the files without `ignore`.

    Raises:
        DataError: Files disagree.
    """
    table: dict[int, str] = {}
    for path in [path for part in parts for path in part.annotations]:
        for number, name in category_names(_load(path), str(path)).items():
            if table.setdefault(number, name) != name:
                raise DataError(
                    f"{path}: category {number} is '{name}' here "
                    f"but '{table[number]}' in another file"
                )
    return class_table(table, (REGION,))


def read(
    part: Part, classes: Classes | None, *, to_write: bool = True, strict: bool = True
) -> Annotations:
    """Read the images of a split.

    With a file for each image the ids of the files are dropped: they repeat.

    Args:
        part: The files of the split.
        classes: The class table; None: the categories of the files.
        to_write: As in `coco.Rules`.
        strict: As in `coco.Rules`.

    Raises:
        DataError: An entry that is malformed.
    """
    rules = coco.Rules(regions=(REGION,), to_write=to_write, strict=strict)
    with collector_at_rest():
        read = [
            coco.annotations(_load(path), str(path), classes, rules) for path in part.annotations
        ]
        joined = coco.join_files(read)
    return replace(joined, crowd=joined.crowd | joined.ignore)


def _load(path: Path) -> FullFile:
    """Read a file and give SODA-A's form (one image as an object, `poly`) the form of COCO."""
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("images"), dict):
        return from_memory(content, str(path), FullFile)
    image = dict(content["images"])
    image.setdefault("id", 0)
    image.setdefault("file_name", image.get("filename") or path.with_suffix(".jpg").name)
    annotations = content.get("annotations")
    if not isinstance(annotations, list) or not all(isinstance(e, dict) for e in annotations):
        raise DataError(f"{path}: not a SODA file: 'annotations' is no list of objects")
    entries = [
        _annotation(entry, image["id"], f"{path}: annotations[{row}]")
        for row, entry in enumerate(annotations)
    ]
    plain = content | {"images": [image], "annotations": entries}
    return from_memory(plain, str(path), FullFile)


def _annotation(entry: dict[str, Any], image_id: Any, where: str) -> dict[str, Any]:
    plain = entry | {"image_id": image_id}
    if "bbox" in entry or "poly" not in entry:
        return plain
    corners = finite_numbers(entry["poly"])
    if corners is None or len(corners) < 6 or len(corners) % 2:
        raise DataError(
            f"{where}: poly must be x, y of three or more corners, not {shorten(entry['poly'])}"
        )
    x1, y1, x2, y2 = tight_boxes(np.array([corners], np.float64))[0].tolist()
    return plain | {"bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": [corners]}


def write(path: Path, records: Iterable[ImageRecord], classes: Classes) -> Counter[str]:
    """Write one file of SODA-D's form; regions without a class get its category `ignore`.

    Returns:
        What could not be held, counted (nothing).

    Raises:
        DataError: A class is called `ignore`: it would be read as regions.
    """
    if REGION in classes.names:
        raise DataError(f"to=soda: '{REGION}' names ignored regions there, not a class; rename it")
    return coco_write.write(
        path, records, classes, region=(max(classes.ids, default=0) + 1, REGION)
    )
