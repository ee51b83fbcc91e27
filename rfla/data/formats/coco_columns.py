"""Entries of a COCO file -> columns, checked as a whole where all is well."""

import math
from collections.abc import Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfla.data.formats.coco_file import Annotation, finite_numbers, is_number

# Whole numbers, under `attributes` of an annotation.
CARRIED = ("truncation", "occlusion", "difficult", "category", "uncertain", "logo")
FARTHEST = 1e15  # px; no coordinate is larger


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


def flags(entries: Sequence[Annotation], key: str) -> NDArray[np.bool_]:
    """(M,) whether a key is there and true."""
    values = map(bool, map(attrgetter(key), entries))
    return np.fromiter(values, np.bool_, len(entries))


def attributes(
    entries: Sequence[Annotation], area: NDArray[np.float64], flag_keys: Sequence[str]
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


def _carried(entry: Annotation, name: str, flags: Sequence[str]) -> int | None:
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
