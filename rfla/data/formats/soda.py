"""SODA-D and SODA-A: COCO-like JSON, one file for each split (D) or for each image (A, with `poly` for `bbox`).

A category named `ignore` marks regions in which nothing is counted. Polygons become the tight boxes
round them. (Cheng et al., Towards Large-Scale Small Object Detection, TPAMI 2023.)
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rfla.data.formats import coco, coco_write
from rfla.data.formats.images import find_folders, split_of
from rfla.data.formats.record import Classes, Floats, ImageRecord, Part, tight_boxes
from rfla.errors import DataError

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


def classes(parts: Iterable[Part]) -> Classes:
    """Return the categories of the files without `ignore`.

    Raises:
        DataError: Files disagree.
    """
    table: dict[int, str] = {}
    for part in parts:
        for path in part.annotations:
            for number, name in coco.category_names(_load(path), path).items():
                if table.setdefault(number, name) != name:
                    raise DataError(
                        f"{path}: category {number} is '{name}' here but '{table[number]}' in another file"
                    )
    ids = sorted(number for number, name in table.items() if name.lower() != REGION)
    return Classes([table[number] for number in ids], ids)


def read(part: Part, classes: Classes) -> Iterator[ImageRecord]:
    """Read the images of a split.

    With a file for each image the ids of the files are dropped: they repeat.

    Raises:
        DataError: An entry that is malformed.
    """
    for path in part.annotations:
        content = _load(path)
        names = coco.category_names(content, path)
        regions = frozenset(number for number, name in names.items() if name.lower() == REGION)
        for record in coco.records(content, path, classes, regions=regions):
            record.crowd |= record.ignore
            yield record if len(part.annotations) == 1 else coco.without_ids(record)


def _load(path: Path) -> dict[str, Any]:
    """Read a file and give SODA-A's form (one image as an object, `poly`) the form of COCO."""
    content = coco.load_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("images"), dict):
        return coco.load(path)
    image = dict(content["images"])
    image.setdefault("id", 0)
    image.setdefault("file_name", image.get("filename") or path.with_suffix(".jpg").name)
    annotations = content.get("annotations")
    categories = content.get("categories")
    for key, value in (("annotations", annotations), ("categories", categories)):
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise DataError(f"{path}: not a SODA file: '{key}' is no list of objects")
    entries = [
        _annotation(entry, image["id"], f"{path}: annotations[{row}]")
        for row, entry in enumerate(annotations or [])
    ]
    return {"images": [image], "annotations": entries, "categories": categories}


def _annotation(entry: dict[str, Any], image_id: Any, where: str) -> dict[str, Any]:
    plain = entry | {"image_id": image_id}
    if "bbox" in entry or "poly" not in entry:
        return plain
    corners = entry["poly"]
    good = isinstance(corners, list) and len(corners) >= 6 and len(corners) % 2 == 0
    if not good or any(
        isinstance(v, bool) or not isinstance(v, int | float) or v != v or abs(v) > 1e15
        for v in corners
    ):
        raise DataError(f"{where}: poly must be x, y of three or more corners, not {corners!r:.80}")
    polygon: Floats = np.array([corners], np.float64)
    x1, y1, x2, y2 = tight_boxes(polygon)[0].tolist()
    return plain | {"bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": [corners]}


def write(path: Path, records: Iterable[ImageRecord], classes: Classes) -> Counter[str]:
    """Write one file of SODA-D's form; regions without a class get its category `ignore`.

    Returns:
        What could not be held, counted (nothing).
    """
    return coco_write.write(
        path, records, classes, region=(max(classes.ids, default=0) + 1, REGION)
    )
