"""Read ground truth and detections in COCO form, from files or from dicts, with every doubt named in one line.

COCO boxes are (x, y, width, height) px. Image ids may be integers or strings; "17" in a detection
file finds image 17.
"""

import gc
import gzip
import json
import zlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rfla.errors import MetricError
from rfla.metrics.arrays import REGION, Detections, FloatArray, GroundTruth

FARTHEST = 1e9
"""px beyond which no coordinate is believed."""

Record = Mapping[str, Any]
GroundTruthSource = GroundTruth | Record | str | Path
DetectionSource = Detections | Sequence[Record] | Record | str | Path


def read_ground_truth(source: GroundTruthSource) -> GroundTruth:
    """Return ground truth from a COCO dict or JSON file (.json or .json.gz), or pass arrays on.

    Annotations may carry `iscrowd`, `ignore` and `uncertain` (TinyPerson; taken as ignore). A
    category of the name "ignored regions" (VisDrone), or an annotation of category 0 that no
    category names, is a region without class.

    Raises:
        MetricError: the file is not COCO ground truth, or an entry cannot be used.
    """
    if isinstance(source, GroundTruth):
        return source
    data, where = _load(source)
    lists = ("images", "annotations", "categories")
    if not isinstance(data, Mapping) or not all(isinstance(data.get(key), list) for key in lists):
        raise MetricError(
            f"{where}: not COCO ground truth; it needs lists of images, annotations and categories"
        )
    image_ids = tuple(
        _field(image, "id", where, "image", n) for n, image in enumerate(data["images"])
    )
    odd = [image for image in image_ids if not isinstance(image, int | str)]
    if odd:
        raise MetricError(
            f"{where}: an image has the id {_short(odd[0])}; ids are integers or text"
        )
    if len(set(image_ids)) < len(image_ids):
        raise MetricError(f"{where}: an image id is given twice")
    category_ids = [_field(c, "id", where, "category", n) for n, c in enumerate(data["categories"])]
    if not all(isinstance(c, int) for c in category_ids) or len(set(category_ids)) < len(
        category_ids
    ):
        raise MetricError(
            f"{where}: category ids must be integers, each given once; they are {_short(category_ids)}"
        )
    named = [c for c in data["categories"] if not _is_region(c)]
    labels = dict.fromkeys((c["id"] for c in data["categories"] if _is_region(c)), REGION)
    labels |= {REGION: REGION, 0: REGION} | {c["id"]: label for label, c in enumerate(named)}
    annotations = data["annotations"]
    boxes, sides = _boxes(annotations, where, "annotation")
    stated = [
        {"area": w * h} if a.get("area") is None else a
        for a, (w, h) in zip(annotations, sides, strict=True)
    ]
    return GroundTruth(
        image_ids=image_ids,
        image_index=_positions(annotations, "image_id", lookup(image_ids), where, "annotation"),
        boxes=boxes,
        labels=_positions(annotations, "category_id", labels, where, "annotation"),
        area=_numbers(stated, "area", where, "annotation"),
        ignore=np.array(
            [bool(a.get("ignore") or a.get("uncertain")) for a in annotations], np.bool_
        ),
        crowd=np.array([bool(a.get("iscrowd")) for a in annotations], np.bool_),
        names=tuple(str(c.get("name", c["id"])) for c in named),
        category_ids=tuple(c["id"] for c in named),
        sides=sides,
        files=tuple(str(image.get("file_name", "")) for image in data["images"]),
    )


def read_detections(source: DetectionSource, gt: GroundTruth) -> Detections:
    """Return detections from a COCO result list or JSON file, or pass arrays on after a check against `gt`.

    Raises:
        MetricError: not a COCO result list, a score that is NaN or infinite, or an image or
            category that `gt` does not have.
    """
    if isinstance(source, Detections):
        source.check_against(gt)
        return source
    data, where = _load(source)
    if isinstance(data, Mapping):
        data = data.get("annotations", data.get("predictions"))
    if not isinstance(data, list):
        raise MetricError(
            f"{where}: not COCO detections; a list of image_id, category_id, bbox, score is needed"
        )
    scores = _numbers(data, "score", where, "detection")
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
    rows = zip(
        detections.image_index, detections.labels, boxes, detections.scores.tolist(), strict=True
    )
    return [
        {
            "image_id": gt.image_ids[image],
            "category_id": gt.category_ids[label],
            "bbox": box,
            "score": score,
        }
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
    except (OSError, EOFError, zlib.error) as error:
        raise MetricError(
            f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})"
        ) from None
    except (ValueError, RecursionError) as error:
        raise MetricError(f"{path}: not JSON ({error})") from None
    except MemoryError:
        raise MetricError(f"{path}: too large for the memory of this machine") from None


def _parse(raw: bytes) -> Any:
    """Parse JSON with the garbage collector at rest: it would look through millions of new dicts again and again."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        data = json.loads(raw)
        entries = (
            data
            if isinstance(data, list)
            else data.get("annotations")
            if isinstance(data, dict)
            else None
        )
        if isinstance(entries, list) and any(
            raw.count(key) > len(entries) for key in (b'"bbox"', b'"score"')
        ):
            json.loads(
                raw, object_pairs_hook=_each_once
            )  # rare: this check alone takes half as long as reading
        return data
    finally:
        if collecting:
            gc.enable()


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object as a dict, of which no key was given twice."""
    entry = dict(pairs)
    if len(entry) < len(pairs):
        raise ValueError(f"a key is given twice in {_short(dict(pairs))}")
    return entry


def _is_region(category: Record) -> bool:
    return str(category.get("name", "")).lower().replace("-", " ").replace("_", " ") in {
        "ignored regions",
        "ignored",
    }


def _field(entry: Any, key: str, where: str, what: str, number: int) -> Any:
    if not isinstance(entry, Mapping) or entry.get(key) is None:
        raise MetricError(f"{where}: {what} {number} has no '{key}'")
    return entry[key]


def _numbers(entries: Sequence[Record], key: str, where: str, what: str) -> FloatArray:
    """Return one finite number of every entry."""
    try:
        values = np.array(
            [entry[key] for entry in entries]
        )  # of no given type: a text must not become a number
    except (KeyError, TypeError, ValueError):
        values = np.array(None)
    if len(entries) and (values.dtype.kind not in "fiu" or values.ndim != 1):
        values = np.array([_number(entry, key, where, what, n) for n, entry in enumerate(entries)])
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        value = "NaN" if np.isnan(values[bad[0]]) else "infinite"
        image = entries[bad[0]].get("image_id")
        more = f"; {len(bad)} such entries" if len(bad) > 1 else ""
        raise MetricError(
            f"{where}: the {key} of {what} {bad[0]} (image {_short(image)}) is {value}{more}"
        )
    return values.astype(np.float64, copy=False)


def _number(entry: Record, key: str, where: str, what: str, number: int) -> float:
    value = _field(entry, key, where, what, number)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise MetricError(f"{where}: {what} {number}: '{key}' is {_short(value)}, not a number")
    try:
        return float(value)
    except OverflowError:
        raise MetricError(
            f"{where}: {what} {number}: '{key}' is {_short(value)}, which is too large"
        ) from None


def _boxes(entries: Sequence[Record], where: str, what: str) -> tuple[FloatArray, FloatArray]:
    """Return (M, 4) xyxy px and (M, 2) sides from COCO boxes (x, y, w, h)."""
    try:
        given = np.array([entry["bbox"] for entry in entries])
    except (KeyError, TypeError, ValueError):
        given = np.array(None)
    if not len(entries):
        given = np.zeros((0, 4))
    elif given.dtype.kind not in "fiu" or given.shape != (len(entries), 4):
        given = np.array([_box(entry, where, what, number) for number, entry in enumerate(entries)])
    boxes: FloatArray = given.astype(np.float64, copy=False)
    bad = np.flatnonzero(~(np.abs(boxes) <= FARTHEST).all(axis=1) | (boxes[:, 2:] < 0).any(axis=1))
    if len(bad):
        number, box = int(bad[0]), boxes[bad[0]]
        wrong = "not finite" if not np.isfinite(box).all() else "farther than 1e9 px out"
        wrong = (
            "of a negative side; boxes are x, y, width, height" if (box[2:] < 0).any() else wrong
        )
        raise MetricError(
            f"{where}: {what} {number}: bbox {_short(entries[number]['bbox'])} is {wrong}"
        )
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1), boxes[:, 2:]


def _box(entry: Record, where: str, what: str, number: int) -> list[float]:
    box = _field(entry, "bbox", where, what, number)
    if not isinstance(box, list | tuple | np.ndarray) or len(box) != 4:
        raise MetricError(
            f"{where}: {what} {number}: bbox {_short(box)} is not [x, y, width, height]"
        )
    return [_number({"bbox": side}, "bbox", where, what, number) for side in box]


def _positions(
    entries: Sequence[Record], key: str, table: Mapping[Any, int], where: str, what: str
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return (M,) the position of each entry's id in a table."""
    try:
        return np.array([table[entry[key]] for entry in entries], np.int64)
    except (KeyError, TypeError):
        raise MetricError(_unknown(entries, key, table, where, what)) from None


def _unknown(
    entries: Iterable[Record], key: str, table: Mapping[Any, int], where: str, what: str
) -> str:
    """Name the first id that the ground truth does not have and count the others."""
    ids = [_field(entry, key, where, what, n) for n, entry in enumerate(entries)]
    missing = [
        (n, value)
        for n, value in enumerate(ids)
        if not isinstance(value, Hashable) or value not in table
    ]
    number, value = missing[0]
    known = sorted({str(k) for k in table})
    shown = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
    count = f"{len(missing)} such entries" if len(missing) > 1 else "the only such entry"
    return f"{where}: {what} {number}: {key} {_short(value)} is not in the ground truth, which has {shown} ({count})"


def _short(value: Any) -> str:
    """Return what was found, in a length that fits a line."""
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        return "a huge number"
    return text if len(text) <= 60 else text[:57] + "..."
