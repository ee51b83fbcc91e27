"""Detections in COCO form, from files or from lists of dicts; every mistake is one line.

COCO boxes are (x, y, width, height) px. Shapes: D detections of all images.
"""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from rfla.data.formats.coco_columns import corners_of, sides_of
from rfla.errors import MetricError
from rfla.json_columns import parse_number_columns, whole_numbers
from rfla.json_file import collector_at_rest, parse_json, read_json_bytes, refuse_repeated_keys
from rfla.metrics.arrays import Detections, FloatArray, GroundTruth, IntArray
from rfla.metrics.coco_entries import FARTHEST, Record, box_array, field, score_array
from rfla.metrics.coco_ids import category_positions, image_positions

_PART = 10_000  # detections that are written at a time

DetectionSource = Detections | Sequence[Record] | Record | str | Path
Say = Callable[[str], None]


class _Numbers(msgspec.Struct, gc=False):
    """One detection of a file as most tools write it; other keys are passed over."""

    image_id: float
    category_id: float
    bbox: tuple[float, float, float, float]
    score: float


class _Entry(msgspec.Struct, gc=False):
    """One detection that names its image or its class, as those of `rfla predict` do."""

    image_id: int | str | float
    category_id: int | str | float
    bbox: tuple[float, float, float, float]
    score: float
    category_name: str | None = None


class _Columns(NamedTuple):
    """Detections before their ids are looked up."""

    image_ids: Sequence[Any] | IntArray  # (D,)
    category_ids: Sequence[Any] | IntArray  # (D,)
    boxes: FloatArray  # (D, 4) x, y, width, height
    scores: FloatArray  # (D,)
    category_names: Sequence[Any] = ()  # (D,), or none where the source names no categories


def warn(text: str) -> None:
    """Say something about the input as a Python warning."""
    warnings.warn(text, stacklevel=3)


def read_detections(source: DetectionSource, gt: GroundTruth, say: Say = warn) -> Detections:
    """Return detections from a COCO result list or JSON file (.json or .json.gz).

    Arrays are passed on after a check against `gt`. Image ids are integers or strings; "7" and 7.0
    find image 7. An id that is none of those of `gt` is taken for the file name of an image or its
    stem. A `category_name`, which `rfla predict` writes, goes before the category id: a model
    numbers its classes from 1, a data set as it likes.

    Args:
        source: what to read.
        gt: ground truth of the same images.
        say: called once if detections were matched by file name.

    Raises:
        MetricError: not a COCO result list, a score that is NaN or infinite, or an image or
            category that `gt` does not have.
    """
    if isinstance(source, Detections):
        source.check_against(gt)
        return source
    if isinstance(source, str | Path):
        where = str(source)
        read = _columns_of_file(Path(source))
    else:
        where = "detections"
        read = _columns_of_entries(source, where)

    boxes = read.boxes
    return Detections(
        image_index=image_positions(read.image_ids, gt, where, say),
        boxes=corners_of(boxes),
        scores=read.scores,
        labels=_labels(read, gt, where),
        sides=sides_of(boxes),
    )


def _labels(columns: _Columns, gt: GroundTruth, where: str) -> IntArray:
    """Return (D,) the label of each detection, by the name of its category where it has one."""
    label_of = {name: label for label, name in enumerate(gt.names)}
    known = [name in label_of for name in columns.category_names]
    if not any(known) or len(label_of) < len(gt.names):  # other names, or one of two classes
        return category_positions(columns.category_ids, gt.category_ids, where)
    if not all(known):
        number = known.index(False)
        raise MetricError(
            f"{where}: detection {number}: category_name {columns.category_names[number]!r:.60} "
            f"is not in the ground truth, which has {', '.join(gt.names[:8])}"
        )
    return np.array([label_of[name] for name in columns.category_names], dtype=np.int64)


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


def coco_text(detections: Detections, gt: GroundTruth) -> Iterator[str]:
    """Yield the text of `to_coco` as JSON, in parts: a large set is not in memory as objects."""
    before = "["
    for start in range(0, len(detections.scores), _PART):
        rows = slice(start, start + _PART)
        assert detections.sides is not None
        part = Detections(
            detections.image_index[rows],
            detections.boxes[rows],
            detections.scores[rows],
            detections.labels[rows],
            detections.sides[rows],
        )
        yield before + json.dumps(to_coco(part, gt))[1:-1]
        before = ", "
    yield "[]" if before == "[" else "]"


def _columns_of_file(path: Path) -> _Columns:
    """Read a JSON file; the usual form is decoded straight into typed entries."""
    data = read_json_bytes(path, MetricError)
    named = b'"category_name"' in data
    for way in (_columns_of_named,) if named else (_columns_of_numbers, _columns_of_named):
        try:
            with collector_at_rest():
                columns = way(data)
        except (ValueError, RecursionError, MemoryError):
            continue
        if _count_colons(data) != 4 * len(columns.scores):  # there are other keys, or one twice
            _refuse_keys_given_twice(data, len(columns.scores), str(path))
        if _is_usable(columns):
            return columns
        break

    # something is unusual or wrong: the slow way says what
    plain = parse_json(data, str(path), Any, MetricError)
    columns = _columns_of_entries(plain, str(path))
    _refuse_keys_given_twice(data, len(columns.scores), str(path))
    return columns


def _columns_of_numbers(data: bytes) -> _Columns:
    """Read a list whose ids are whole numbers.

    Raises:
        ValueError: It is none.
    """
    numbers = parse_number_columns(data, _Numbers)
    return _Columns(
        whole_numbers(numbers["image_id"]),
        whole_numbers(numbers["category_id"]),
        numbers["bbox"],
        numbers["score"],
    )


def _columns_of_named(data: bytes) -> _Columns:
    """Read a list whose ids may be texts, and that may name the categories.

    Raises:
        ValueError: It is none.
    """
    entries = msgspec.json.decode(data, type=list[_Entry])
    count = len(entries)
    sides = chain.from_iterable([entry.bbox for entry in entries])
    return _Columns(
        [entry.image_id for entry in entries],
        [entry.category_id for entry in entries],
        np.fromiter(sides, np.float64, 4 * count).reshape(count, 4),
        np.fromiter([entry.score for entry in entries], np.float64, count),
        [entry.category_name for entry in entries],
    )


def _is_usable(columns: _Columns) -> bool:
    """Whether all numbers are as they must be; if not, `_columns_of_entries` names the first."""
    boxes = columns.boxes
    if not len(boxes):
        return True
    return bool(
        np.isfinite(columns.scores).all()
        and boxes.min() >= -FARTHEST
        and boxes.max() <= FARTHEST
        and min(boxes[:, 2].min(), boxes[:, 3].min()) >= 0
    )


def _count_colons(data: bytes) -> int:
    """Count in pieces that fit the CPU cache."""
    text, piece = np.frombuffer(data, np.uint8), 1 << 18
    return sum(
        int(np.count_nonzero(text[start : start + piece] == ord(":")))
        for start in range(0, len(text), piece)
    )


def _refuse_keys_given_twice(data: bytes, count: int, where: str) -> None:
    """Refuse an entry with a key twice, of which a parser silently takes the last."""
    keys = (b'"image_id"', b'"category_id"', b'"bbox"', b'"score"')
    if any(data.count(key) > count for key in keys):
        refuse_repeated_keys(data, where, MetricError)


def _columns_of_entries(source: Any, where: str) -> _Columns:
    """Check a list of dicts entry by entry.

    Raises:
        MetricError: names the first entry that cannot be used.
    """
    entries = source
    if isinstance(entries, Mapping):
        entries = entries.get("annotations", entries.get("predictions"))
    if not isinstance(entries, list):
        raise MetricError(
            f"{where}: not COCO detections; a list of image_id, category_id, bbox, score is needed"
        )
    return _Columns(
        scores=score_array(entries, where),
        boxes=box_array(entries, where),
        image_ids=[field(e, "image_id", where, n) for n, e in enumerate(entries)],
        category_ids=[field(e, "category_id", where, n) for n, e in enumerate(entries)],
        category_names=_names(entries),
    )


def _names(entries: Sequence[Record]) -> list[Any]:
    """Return the category names of all entries, or none where none has one."""
    names = [entry.get("category_name") for entry in entries]
    texts = [name if isinstance(name, str) else None for name in names]
    return texts if any(name is not None for name in texts) else []
