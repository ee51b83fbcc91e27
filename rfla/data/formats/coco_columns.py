"""Entries of a COCO file -> columns, checked as a whole where all is well."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from rfla.data.formats.coco_file import (
    Annotation,
    AnyAnnotation,
    PlainAnnotation,
    finite_numbers,
    is_number,
)
from rfla.data.formats.masks import box_of
from rfla.json_columns import number_columns, whole_numbers

# Whole numbers, under `attributes` of an annotation.
CARRIED = ("truncation", "occlusion", "difficult", "category", "uncertain", "logo")
FARTHEST = 1e15  # px; no coordinate is larger


@dataclass(frozen=True)
class Columns:
    """Annotations as columns, in the order of the file.

    Attributes:
        entries: M annotations that they are made of.
        ids: (M,) of the annotations, as the file has them.
        image_ids: (M,) as the file has them.
        category_ids: (M,) as the file has them.
        boxes: (M, 4) x, y, width, height px; NaN for what is no box.
        area: (M,) px^2; NaN where the file states none.
        flags: (M,) by key, whether it is there and true.
        made: Rows whose box was made of polygons or a mask.
    """

    entries: Sequence[AnyAnnotation]
    ids: list[Any]
    image_ids: list[Any] | NDArray[np.int64]
    category_ids: list[Any] | NDArray[np.int64]
    boxes: NDArray[np.float64]
    area: NDArray[np.float64]
    flags: dict[str, NDArray[np.bool_]]
    made: list[int]

    def take(self, rows: NDArray[np.int64]) -> "Columns":
        """Some of the annotations, in the order of `rows`."""
        made = np.isin(rows, self.made)
        return Columns(
            entries=_chosen(self.entries, rows),
            ids=_chosen(self.ids, rows),
            image_ids=_chosen(self.image_ids, rows),
            category_ids=_chosen(self.category_ids, rows),
            boxes=self.boxes[rows],
            area=self.area[rows],
            flags={key: values[rows] for key, values in self.flags.items()},
            made=np.flatnonzero(made).tolist(),
        )


def _chosen(values: Any, rows: NDArray[np.int64]) -> Any:
    return values[rows] if isinstance(values, np.ndarray) else [values[row] for row in rows]


def columns_of(entries: Sequence[AnyAnnotation], flag_keys: Sequence[str]) -> Columns:
    """Return the columns of annotations.

    Args:
        entries: All plain, or none.
        flag_keys: The flags that are wanted.

    Raises:
        ValueError: A plain annotation has a broken id, or a number that no box has.
    """
    if entries and isinstance(entries[0], PlainAnnotation):
        return _columns_of_plain(cast("Sequence[PlainAnnotation]", entries), flag_keys)
    entries = cast("Sequence[Annotation]", entries)
    boxes, made = _stated_boxes(entries)
    return Columns(
        entries=entries,
        ids=[entry.id for entry in entries],
        image_ids=[entry.image_id for entry in entries],
        category_ids=[entry.category_id for entry in entries],
        boxes=boxes,
        area=numbers([entry.area for entry in entries]),
        flags={key: _flags(entries, key) for key in flag_keys},
        made=made,
    )


def _columns_of_plain(entries: Sequence[PlainAnnotation], flag_keys: Sequence[str]) -> Columns:
    columns = number_columns(entries, PlainAnnotation)
    area = columns["area"]
    if np.abs(columns["bbox"]).max() >= FARTHEST or np.nanmax(np.abs(area), initial=0) >= FARTHEST:
        raise ValueError("no box can be that large")
    return Columns(
        entries=entries,
        ids=_ids_or_none(columns["id"]),
        image_ids=whole_numbers(columns["image_id"]),
        category_ids=whole_numbers(columns["category_id"]),
        boxes=columns["bbox"],
        area=area,
        flags={key: columns[key] != 0 for key in flag_keys},
        made=[],
    )


def _ids_or_none(column: NDArray[np.float64]) -> list[int | None]:
    missing = np.isnan(column)
    ids: list[int | None] = whole_numbers(np.where(missing, 0.0, column)).tolist()
    for row in np.flatnonzero(missing).tolist():
        ids[row] = None
    return ids


def _stated_boxes(entries: Sequence[Annotation]) -> tuple[NDArray[np.float64], list[int]]:
    """(M, 4) x, y, w, h px as stated, else round polygons or a mask; and the rows of the latter."""
    given = [entry.bbox for entry in entries]
    missing = [row for row, box in enumerate(given) if box is None]
    for row in missing:
        given[row] = box_of(getattr(entries[row], "segmentation", None))
    boxes = number_rows(given, 4)
    return boxes, [row for row in missing if np.isfinite(boxes[row]).all()]


def corners_of(stated: NDArray[np.float64]) -> NDArray[np.float64]:
    """(M, 4) xyxy of boxes x, y, width, height, column by column: numpy is slow on short rows."""
    boxes = stated.copy()
    boxes[:, 2] += boxes[:, 0]
    boxes[:, 3] += boxes[:, 1]
    return boxes


def sides_of(stated: NDArray[np.float64]) -> NDArray[np.float64]:
    """(M, 2) width and height of boxes x, y, width, height."""
    sides = np.empty((len(stated), 2))
    sides[:, 0], sides[:, 1] = stated[:, 2], stated[:, 3]
    return sides


def number_rows(values: list[Any], width: int) -> NDArray[np.float64]:
    """(M, width) of lists of numbers; NaN for what is no list of that many finite numbers."""
    if set(map(type, values)) <= {list} and set(map(len, values)) <= {width}:
        flat = list(chain.from_iterable(values))
        if set(map(type, flat)) <= {int, float}:
            try:
                rows = np.array(flat, np.float64).reshape(-1, width)
            except OverflowError:
                pass
            else:
                return np.where(np.abs(rows) < FARTHEST, rows, np.nan)
    none = [math.nan] * width
    found = [finite_numbers(value) for value in values]
    good = [row if row is not None and len(row) == width else none for row in found]
    return np.array(good, np.float64).reshape(-1, width)


def numbers(values: list[Any]) -> NDArray[np.float64]:
    """(M,) numbers; NaN for what is none."""
    if set(map(type, values)) <= {int, float}:
        try:
            array = np.array(values, np.float64)
        except OverflowError:
            pass
        else:
            return np.where(np.abs(array) < FARTHEST, array, np.nan)
    return np.array([value if is_number(value) else math.nan for value in values], np.float64)


def _flags(entries: Sequence[Annotation], key: str) -> NDArray[np.bool_]:
    """(M,) whether a key is there and true."""
    values = map(bool, map(attrgetter(key), entries))
    return np.fromiter(values, np.bool_, len(entries))


def attributes(
    entries: Sequence[AnyAnnotation], area: NDArray[np.float64], flag_keys: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """What only some formats know, a column each; `area` is NaN where the file states none."""
    columns: dict[str, NDArray[Any]] = {"area": area}
    polygons = [_quadrangle(getattr(entry, "segmentation", None)) for entry in entries]
    if any(polygons):
        columns["polygon"] = number_rows(polygons, 8)
    for name in CARRIED:
        values = [_carried(entry, name, flag_keys) for entry in entries]
        if any(value is not None for value in values):
            columns[name] = np.array([value or 0 for value in values], np.int64)
    return columns


def lost_outlines(entries: Sequence[AnyAnnotation]) -> list[int]:
    """Rows whose outline says more than a box or a quadrangle, which is all that is kept."""
    return [row for row, entry in enumerate(entries) if _is_lost(entry)]


def _is_lost(entry: AnyAnnotation) -> bool:
    value = getattr(entry, "segmentation", None)
    if isinstance(value, list):
        value = any(value)  # many tools write `[]` or `[[]]` where there is no outline
    return bool(value) and _quadrangle(getattr(entry, "segmentation", None)) is None


def _carried(entry: AnyAnnotation, name: str, flags: Sequence[str]) -> int | None:
    """A whole number under `attributes`, else a flag of the entry itself."""
    attributes = getattr(entry, "attributes", None)
    value = attributes.get(name) if isinstance(attributes, dict) else None
    if type(value) is int and abs(value) < 2**63:
        return value
    return 1 if name in flags and getattr(entry, name) else None


def _quadrangle(value: Any) -> list[float] | None:
    """The eight coordinates of a `segmentation` of one polygon with four corners."""
    single = isinstance(value, list) and len(value) == 1
    numbers = finite_numbers(value[0]) if single else None
    return numbers if numbers is not None and len(numbers) == 8 else None
