"""Write COCO detection JSON box by box, without a copy of all of it in memory."""

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from rfla.data.formats.coco_columns import CARRIED
from rfla.data.formats.coco_ids import REGION_ID
from rfla.data.record import Classes, ImageRecord, largest_areas


def write(
    path: Path,
    records: Iterable[ImageRecord],
    classes: Classes,
    region: tuple[int, str] = (REGION_ID, ""),
    flags: Sequence[str] = (),
) -> Counter[str]:
    """Write one COCO file; it appears under its name when it is whole.

    Ids of images and annotations are kept; records without get 1, 2, ... in order. `area` is kept
    where the record states one that its box can hold, else width x height.

    Args:
        path: The file.
        records: What to write.
        classes: Its categories.
        region: Category id and name of a region without a class; without a name `categories` does
            not list it.
        flags: Attributes that are written as true or false beside `ignore`, not under `attributes`.

    Returns:
        What could not be held, counted (nothing: COCO holds all that records have).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.partial")
    images: list[dict[str, Any]] = []
    with beside.open("w", encoding="utf-8") as file:
        file.write('{"annotations": [')
        _write_annotations(file, records, [*classes.ids, region[0]], flags, images)
        table = [*zip(classes.ids, classes.names, strict=True), *([region] if region[1] else [])]
        categories = [{"id": number, "name": name} for number, name in table]
        file.write(f'],\n"images": {_dump(images)},\n"categories": {_dump(categories)}}}\n')
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    return Counter()


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "), allow_nan=False)


def _write_annotations(
    file: IO[str],
    records: Iterable[ImageRecord],
    category_ids: Sequence[int],
    flags: Sequence[str],
    images: list[dict[str, Any]],
) -> None:
    next_id, separator = 1, "\n"
    for record in records:
        image_id = len(images) + 1 if record.image_id is None else record.image_id
        images.append(_image(record, image_id))
        for annotation in _annotations(record, category_ids, flags):
            if annotation["id"] < 0:
                annotation["id"] = next_id
            next_id = annotation["id"] + 1
            file.write(separator + _dump(annotation | {"image_id": image_id}))
            separator = ",\n"


def _image(record: ImageRecord, image_id: int) -> dict[str, Any]:
    entry = {
        "id": image_id,
        "file_name": record.file_name,
        "width": record.width,
        "height": record.height,
    }
    return entry if record.window is None else entry | {"window": list(record.window)}


def _annotations(
    record: ImageRecord, category_ids: Sequence[int], flags: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield the annotation entries of one record.

    `id` -1 where it has none, `image_id` is left out.

    Args:
        record: Its labels are rows of `category_ids`, whose last row stands for `NO_CLASS`.
        category_ids: Category id of each label.
        flags: As in `write`.
    """
    boxes = record.boxes.tolist()
    areas = _areas(record)
    for row, (x1, y1, x2, y2) in enumerate(boxes):
        width, height = x2 - x1, y2 - y1
        extra = {
            name: int(record.attributes[name][row]) for name in CARRIED if name in record.attributes
        }
        entry: dict[str, Any] = {
            "id": int(record.ids[row]),
            "bbox": [_plain(value) for value in (x1, y1, width, height)],
            "area": _plain(areas[row]),
            "iscrowd": int(record.crowd[row]),
        }
        if flags:
            entry |= {"ignore": bool(record.ignore[row])} | {
                flag: bool(extra.pop(flag, 0)) for flag in flags
            }
        elif record.ignore[row]:
            entry["ignore"] = 1
        polygon = _polygon(record, row)
        if polygon:
            entry["segmentation"] = [polygon]
        if extra:
            entry["attributes"] = extra
        yield entry | {"category_id": category_ids[record.labels[row]]}


def _plain(value: float) -> float | int:
    return int(value) if value == int(value) else value


def _areas(record: ImageRecord) -> list[float]:
    """Return the area of each box: the stated one where the box can hold it, else its own."""
    own = (record.boxes[:, 2:] - record.boxes[:, :2]).prod(axis=1)
    if "area" not in record.attributes:
        return [float(area) for area in own]
    stated = record.attributes["area"]
    with np.errstate(invalid="ignore"):
        possible = (stated > 0) & (stated <= largest_areas(record.boxes))
    return [float(area) for area in np.where(possible, stated, own)]


def _polygon(record: ImageRecord, row: int) -> list[float | int]:
    if "polygon" not in record.attributes:
        return []
    corners = record.attributes["polygon"][row].tolist()
    return [_plain(value) for value in corners] if all(map(math.isfinite, corners)) else []
