"""Read ground truth and detections in COCO form, from files or from dicts, with every doubt named in one line.

COCO boxes are (x, y, width, height) px. Image ids may be integers or strings; "17" in a detection file finds image 17.
"""

import gc
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rfla.errors import MetricError
from rfla.metrics.arrays import REGION, Detections, FloatArray, GroundTruth

Record = Mapping[str, Any]
GroundTruthSource = GroundTruth | Record | str | Path
DetectionSource = Detections | Sequence[Record] | Record | str | Path


def read_ground_truth(source: GroundTruthSource) -> GroundTruth:
    """Return ground truth from a COCO dict or JSON file (.json or .json.gz), or pass arrays on.

    Annotations may carry `iscrowd`, `ignore` and `uncertain` (TinyPerson; taken as ignore). A category of the name
    "ignored regions" (VisDrone), or an annotation of category 0 that no category names, is a region without class.

    Raises:
        MetricError: the file is not COCO ground truth, or an entry cannot be used.
    """
    if isinstance(source, GroundTruth):
        return source
    data, where = _load(source)
    if not isinstance(data, Mapping) or not isinstance(data.get("images"), list) or "categories" not in data:
        raise MetricError(f"{where}: not COCO ground truth; it needs 'images', 'annotations' and 'categories'")
    image_ids = tuple(_field(image, "id", where, "image", n) for n, image in enumerate(data["images"]))
    if len(set(image_ids)) < len(image_ids):
        raise MetricError(f"{where}: an image id is given twice")
    named = [c for c in data["categories"] if not _is_region(c)]
    category_ids = tuple(_field(c, "id", where, "category", n) for n, c in enumerate(named))
    if not all(isinstance(c, int) for c in category_ids) or len(set(category_ids)) < len(category_ids):
        raise MetricError(f"{where}: category ids must be integers, each given once; they are {list(category_ids)}")
    labels = dict.fromkeys((c["id"] for c in data["categories"] if _is_region(c)), REGION)
    labels |= {REGION: REGION, 0: REGION} | {c: label for label, c in enumerate(category_ids)}
    annotations = data.get("annotations", [])
    boxes, sides = _boxes(annotations, where, "annotation")
    area = [a["area"] if a.get("area") is not None else w * h for a, (w, h) in zip(annotations, sides, strict=True)]
    return GroundTruth(
        image_ids=image_ids,
        image_index=_positions(annotations, "image_id", lookup(image_ids), where, "annotation"),
        boxes=boxes,
        labels=_positions(annotations, "category_id", labels, where, "annotation"),
        area=np.array(area, np.float64),
        ignore=np.array([bool(a.get("ignore") or a.get("uncertain")) for a in annotations], np.bool_),
        crowd=np.array([bool(a.get("iscrowd")) for a in annotations], np.bool_),
        names=tuple(str(c.get("name", c["id"])) for c in named),
        category_ids=category_ids,
        sides=sides,
        files=tuple(str(image.get("file_name", "")) for image in data["images"]),
    )


def read_detections(source: DetectionSource, gt: GroundTruth) -> Detections:
    """Return detections from a COCO result list or JSON file, or pass arrays on after a check against `gt`.

    Raises:
        MetricError: not a COCO result list, a score that is NaN, or an image or category that `gt` does not have.
    """
    if isinstance(source, Detections):
        source.check_against(gt)
        return source
    data, where = _load(source)
    if isinstance(data, Mapping):
        data = data.get("annotations", data.get("predictions"))
    if not isinstance(data, list):
        raise MetricError(f"{where}: not COCO detections; a list of image_id, category_id, bbox, score is needed")
    scores = _numbers(data, "score", where, "detection")
    bad = np.flatnonzero(np.isnan(scores))
    if len(bad):
        image = data[bad[0]].get("image_id")
        raise MetricError(f"{where}: the score of detection {bad[0]} (image {image}) is NaN; {len(bad)} such score(s)")
    boxes, sides = _boxes(data, where, "detection")
    labels = {c: label for label, c in enumerate(gt.category_ids)}
    return Detections(
        image_index=_positions(data, "image_id", lookup(gt.image_ids), where, "detection"),
        boxes=boxes,
        scores=scores,
        labels=_positions(data, "category_id", labels, where, "detection"),
        sides=sides,
    )


def to_coco(detections: Detections, gt: GroundTruth) -> list[dict[str, Any]]:
    """Return the detections as a COCO result list, boxes (x, y, w, h) px."""
    assert detections.sides is not None
    boxes = np.concatenate([detections.boxes[:, :2], detections.sides], axis=1).tolist()
    rows = zip(detections.image_index, detections.labels, boxes, detections.scores.tolist(), strict=True)
    return [
        {"image_id": gt.image_ids[image], "category_id": gt.category_ids[label], "bbox": box, "score": score}
        for image, label, box, score in rows
    ]


def lookup(image_ids: Sequence[int | str]) -> dict[Any, int]:
    """Return id -> position, where an integer is also found by its string and a string of digits by its integer."""
    table: dict[Any, int] = {}
    for position, image in enumerate(image_ids):
        table.setdefault(str(image), position)
        if isinstance(image, str) and image.isdecimal():
            table.setdefault(int(image), position)
    return table | {image: position for position, image in enumerate(image_ids)}


def _load(source: Any) -> tuple[Any, str]:
    """Return the parsed data and a word for where it came from."""
    if not isinstance(source, str | Path):
        return source, "detections" if isinstance(source, Sequence) else "ground truth"
    path = Path(source)
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return _parse(raw), str(path)
    except FileNotFoundError:
        raise MetricError(f"{path}: no such file") from None
    except (OSError, EOFError) as error:
        raise MetricError(f"{path}: cannot be read ({error})") from None
    except ValueError as error:
        raise MetricError(f"{path}: not JSON ({error})") from None


def _parse(raw: bytes) -> Any:
    """Parse JSON with the garbage collector at rest: it would look through millions of new dicts again and again."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        return json.loads(raw)
    finally:
        if collecting:
            gc.enable()


def _is_region(category: Record) -> bool:
    return str(category.get("name", "")).lower().replace("-", " ").replace("_", " ") in {"ignored regions", "ignored"}


def _field(entry: Any, key: str, where: str, what: str, number: int) -> Any:
    if not isinstance(entry, Mapping) or entry.get(key) is None:
        raise MetricError(f"{where}: {what} {number} has no '{key}'")
    return entry[key]


def _numbers(entries: Sequence[Record], key: str, where: str, what: str) -> FloatArray:
    """Return one number of every entry."""
    try:
        return np.array([entry[key] for entry in entries], np.float64)
    except (KeyError, TypeError, ValueError):
        for number, entry in enumerate(entries):
            value = _field(entry, key, where, what, number)
            if not isinstance(value, int | float):
                raise MetricError(f"{where}: {what} {number}: '{key}' is {value!r}, not a number") from None
        raise


def _boxes(entries: Sequence[Record], where: str, what: str) -> tuple[FloatArray, FloatArray]:
    """Return (M, 4) xyxy px and (M, 2) sides from COCO boxes (x, y, w, h)."""
    try:
        given = np.array([entry["bbox"] for entry in entries], np.float64).reshape(len(entries), 4)
    except (KeyError, TypeError, ValueError):
        for number, entry in enumerate(entries):
            box = _field(entry, "bbox", where, what, number)
            if len(box) != 4 or not all(isinstance(side, int | float) for side in box):
                raise MetricError(f"{where}: {what} {number}: bbox {box!r} is not [x, y, width, height]") from None
        raise
    bad = np.flatnonzero(~np.isfinite(given).all(axis=1) | (given[:, 2:] < 0).any(axis=1))
    if len(bad):
        number = int(bad[0])
        raise MetricError(
            f"{where}: {what} {number}: bbox {entries[number]['bbox']} is not finite or has a negative side"
        )
    return np.concatenate([given[:, :2], given[:, :2] + given[:, 2:]], axis=1), given[:, 2:]


def _positions(
    entries: Sequence[Record], key: str, table: Mapping[Any, int], where: str, what: str
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return (M,) the position of each entry's id in a table."""
    try:
        return np.array([table[entry[key]] for entry in entries], np.int64)
    except (KeyError, TypeError):
        raise MetricError(_unknown(entries, key, table, where, what)) from None


def _unknown(entries: Iterable[Record], key: str, table: Mapping[Any, int], where: str, what: str) -> str:
    """Name the first id that the ground truth does not have and count the others."""
    ids = [_field(entry, key, where, what, n) for n, entry in enumerate(entries)]
    missing = [(n, value) for n, value in enumerate(ids) if value not in table]
    number, value = missing[0]
    known = sorted({str(k) for k in table})
    shown = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
    count = f"{len(missing)} such entries" if len(missing) > 1 else "the only such entry"
    return f"{where}: {what} {number}: {key} {value!r} is not in the ground truth, which has {shown} ({count})"
