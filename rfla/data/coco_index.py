"""COCO detection JSON -> `Rows`, for training: fast, and only what an index needs."""

import gc
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfla.data.images import image_size
from rfla.data.rows import REFUSED, REGIONS, Rows
from rfla.errors import DataError, did_you_mean

_NO_BOX = (float("nan"),) * 4
# label of a region without a class (category -1, or an unnamed 0), as in rfla.metrics; always
# ignored
REGION = -1


def read_coco_rows(
    path: Path, images: Path, names: tuple[str, ...], *, strict: bool = True
) -> Rows:
    """Read a COCO JSON file.

    Args:
        path: The file.
        images: Directory that `file_name` is relative to.
        names: Class names in label order; empty means the file's own categories, ascending by id.
        strict: Refuse an annotation of an unknown image or category; otherwise leave it out and
            count it.

    Raises:
        DataError: Not JSON, a key is missing, an unknown category, repeated image ids.
    """
    content = _load(path)
    ids, labels_of = _categories(path, content["categories"], names)
    labels_of = {-1: REGION, 0: REGION} | labels_of
    entries = content["images"]
    image_ids = _ids(path, "image", entries, "id")
    row_of = {identity: row for row, identity in enumerate(image_ids)}
    if len(row_of) < len(image_ids):
        twice = next(identity for row, identity in enumerate(image_ids) if row_of[identity] != row)
        raise DataError(f"{path}: image id {twice!r} is used twice")
    folder = str(images)
    paths = [f"{folder}/{_get(path, 'image', entry, 'file_name')!s}" for entry in entries]
    annotations = content["annotations"]
    refused: list[Any] = []
    repeated = 0
    if not strict:
        ids_seen = Counter(
            identity for entry in annotations if isinstance(identity := entry.get("id"), int | str)
        )
        repeated = sum(count - 1 for count in ids_seen.values())
        refused = [entry for entry in annotations if not _is_sound(entry, row_of, labels_of)]
        annotations = [entry for entry in annotations if _is_sound(entry, row_of, labels_of)]
    corners, sides = np.split(_boxes(annotations), 2, axis=1)
    crowd = np.array([bool(entry.get("iscrowd", 0)) for entry in annotations], bool)
    labels = _labels(path, _ids(path, "annotation", annotations, "category_id"), labels_of)
    rows = Rows(
        source=path,
        names=names
        or tuple(
            str(entry["name"]) for entry in sorted(content["categories"], key=lambda c: c["id"])
        ),
        category_ids=ids,
        paths=paths,
        image_ids=image_ids,
        image_hw=[],
        image_index=_image_rows(path, annotations, row_of),
        boxes=np.concatenate([corners, corners + sides], axis=1),
        sides=sides,
        labels=labels,
        ignore=np.array([bool(entry.get("ignore", 0)) for entry in annotations], bool)
        | (labels == REGION),
        crowd=crowd,
        area=_areas(annotations, sides),
    )
    if repeated:
        what = "annotations with the id of another (other tools drop or mix them)"
        rows.note(what, f"{path}: annotation id {_short(ids_seen.most_common(1)[0][0])}", repeated)
    if refused:
        rows.note(REFUSED, f"{path}: annotation {_short(refused[0].get('id'))}", len(refused))
    rows.image_hw = _sizes(rows, entries)
    if (labels == REGION).any():
        first = annotations[int(np.argmax(labels == REGION))]
        rows.note(REGIONS, f"annotation {first.get('id')!r}", int((labels == REGION).sum()))
    return rows


def _load(path: Path) -> dict[str, Any]:
    gc_was_on = gc.isenabled()
    gc.disable()  # a million small dicts: collections while parsing double the time
    try:
        content = json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    finally:
        if gc_was_on:
            gc.enable()
    if not isinstance(content, dict):
        raise DataError(
            f"{path}: not a COCO detection file (an object with images, annotations and categories)"
        )
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list) or not all(
            isinstance(entry, dict) for entry in content[key]
        ):
            raise DataError(
                f"{path}: not a COCO detection file: '{key}' is missing or no list of objects"
            )
    return content


def _get(path: Path, what: str, entry: Mapping[str, Any], key: str) -> Any:
    try:
        return entry[key]
    except KeyError:
        raise DataError(f"{path}: {what} {_short(entry.get('id', entry))} has no '{key}'") from None


def _ids(path: Path, what: str, entries: Sequence[Mapping[str, Any]], key: str) -> list[Any]:
    ids = [_get(path, what, entry, key) for entry in entries]
    for entry, identity in zip(entries, ids, strict=True):
        if not isinstance(identity, int | str):
            raise DataError(
                f"{path}: {what} {_short(entry.get('id'))} has {key} {_short(identity)}, no number or text"
            )
    return ids


def _is_sound(
    entry: Mapping[str, Any], row_of: Mapping[Any, int], labels_of: Mapping[int, int]
) -> bool:
    image, category = entry.get("image_id"), entry.get("category_id")
    return (
        isinstance(image, int | str)
        and isinstance(category, int)
        and image in row_of
        and category in labels_of
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _categories(
    path: Path, categories: Sequence[Mapping[str, Any]], names: tuple[str, ...]
) -> tuple[tuple[int, ...], dict[int, int]]:
    """Category id of each label, and the label of each category id."""
    ids = _ids(path, "category", categories, "id")
    names_of = [str(_get(path, "category", entry, "name")) for entry in categories]
    by_id = dict(zip(ids, names_of, strict=True))
    if not all(type(identity) is int for identity in ids):
        raise DataError(f"{path}: category ids must be whole numbers, not {_short(ids)}")
    if not by_id:
        raise DataError(f"{path}: no categories")
    if not names:
        ordered = sorted(by_id)
        return tuple(ordered), {identity: label for label, identity in enumerate(ordered)}
    label_of_name = {name: label for label, name in enumerate(names)}
    labels: dict[int, int] = {}
    for identity, name in by_id.items():
        if name not in label_of_name:
            raise DataError(
                f"{path}: category '{name}' is not among names {list(names)}{did_you_mean(name, names)}"
            )
        labels[identity] = label_of_name[name]
    free = max(by_id) + 1
    id_of_label = {label: identity for identity, label in labels.items()}
    ordered = []
    for label in range(len(names)):
        if label not in id_of_label:  # a class of the YAML that this file does not list
            id_of_label[label], free = free, free + 1
        ordered.append(id_of_label[label])
    return tuple(ordered), labels


def _image_rows(
    path: Path, annotations: Sequence[Mapping[str, Any]], row_of: Mapping[Any, int]
) -> NDArray[np.int64]:
    rows = [
        row_of.get(identity, -1) for identity in _ids(path, "annotation", annotations, "image_id")
    ]
    if -1 in rows:
        entry = annotations[rows.index(-1)]
        raise DataError(
            f"{path}: annotation {entry.get('id')!r} belongs to image {entry['image_id']!r}, which is not listed"
        )
    return np.array(rows, np.int64)


def _labels(
    path: Path, category_ids: Sequence[Any], labels_of: Mapping[int, int]
) -> NDArray[np.int64]:
    try:
        return np.array([labels_of[identity] for identity in category_ids], np.int64)
    except (KeyError, TypeError):
        row, wrong = next(
            (row, identity)
            for row, identity in enumerate(category_ids)
            if identity not in labels_of
        )
        known = sorted(identity for identity, label in labels_of.items() if label != REGION)
        raise DataError(
            f"{path}: annotations[{row}] has category_id {_short(wrong)}; ids are {known}"
        ) from None


def _boxes(annotations: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    """(M, 4) x, y, width, height.

    An annotation without four numbers becomes NaN, which the index drops and counts.
    """
    raw = [entry.get("bbox") for entry in annotations]
    try:
        boxes = np.array(raw, np.float64).reshape(-1, 4)
        if len(boxes) != len(raw):
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        boxes = np.array([_four_numbers(box) for box in raw], np.float64).reshape(-1, 4)
    return boxes


def _four_numbers(box: Any) -> tuple[float, ...]:
    if not isinstance(box, list) or len(box) != 4:
        return _NO_BOX
    return tuple(
        value if isinstance(value, float) or _is_length(value) else math.nan for value in box
    )


def _areas(
    annotations: Sequence[Mapping[str, Any]], sides: NDArray[np.float64]
) -> NDArray[np.float64]:
    stated = [entry.get("area") for entry in annotations]
    usable = np.array([_is_length(value) for value in stated], bool)
    values = np.array(
        [value if good else 0.0 for value, good in zip(stated, usable, strict=True)], np.float64
    )
    return np.where(usable, values, sides[:, 0] * sides[:, 1])


def _is_length(value: Any) -> bool:
    return isinstance(value, int | float) and -1e15 < value < 1e15


def _sizes(rows: Rows, entries: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    sizes = []
    for path, entry in zip(rows.paths, entries, strict=True):
        height, width = entry.get("height", 0), entry.get("width", 0)
        if _is_length(height) and _is_length(width) and min(height, width) >= 1:
            sizes.append((int(height), int(width)))
            continue
        rows.note("images without width and height in the file, read from the image", path)
        try:
            sizes.append(image_size(path))
        except DataError:
            sizes.append(
                (1, 1)
            )  # missing or unreadable: left out or skipped later, and named there
    return sizes
