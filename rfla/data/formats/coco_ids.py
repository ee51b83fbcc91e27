"""Ids of a COCO file: which image and which class an annotation belongs to.

Tools write the id 7 as 7, 7.0 or "7".
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfla.data.formats.coco_file import AnyAnnotation, is_region, plain_id
from rfla.data.record import NO_CLASS, Classes
from rfla.errors import did_you_mean, shorten

# Category id of a region without a class; 0 is read as one too where no category has it.
REGION_ID = -1
UNKNOWN = -2  # the place of an id that nothing has


def rows_of(ids: Sequence[int | str]) -> dict[Any, int]:
    """Row of each image by its id; "7" finds 7, and 7 finds "7"."""
    rows: dict[Any, int] = {}
    for row, number in enumerate(ids):
        rows.setdefault(str(number), row)
        if isinstance(number, str) and number.isascii() and number.isdecimal() and len(number) < 20:
            rows.setdefault(int(number), row)
    return rows | {number: row for row, number in enumerate(ids)}


def labels_of(names: dict[int, str], table: Classes, regions: Sequence[str]) -> dict[Any, int]:
    """Label of each category id, by its name: the ids of a file are its own."""
    by_name = {name: label for label, name in enumerate(table.names)}
    labels: dict[Any, int] = {REGION_ID: NO_CLASS, 0: NO_CLASS}
    if 0 in names:
        del labels[0]
    for number, name in names.items():
        if name in by_name:
            labels[number] = by_name[name]
        elif is_region(name, regions):
            labels[number] = NO_CLASS
    return {str(number): label for number, label in labels.items()} | labels


def places(values: list[Any] | NDArray[np.int64], table: dict[Any, int]) -> NDArray[np.int64]:
    """Place of each id in a table; `UNKNOWN` where it has none."""
    if isinstance(values, np.ndarray):
        known = [number for number in table if type(number) is int and abs(number) < 2**63]
        rows = np.array([*(table[number] for number in known), UNKNOWN])
        return rows[integer_places(values, np.array(known, np.int64), otherwise=len(known))]
    try:
        return np.array([table[value] for value in values], np.int64)
    except (KeyError, TypeError):
        return np.array([table.get(plain_id(value), UNKNOWN) for value in values], np.int64)


def integer_places(
    wanted: NDArray[np.int64], known: NDArray[np.int64], otherwise: int = UNKNOWN
) -> NDArray[np.int64]:
    """Place of each integer among the known ones, which are each there once, or `otherwise`."""
    if not len(known) or not len(wanted):
        return np.full(len(wanted), otherwise)
    low, span = int(known.min()), int(known.max()) - int(known.min()) + 1
    if span <= 4 * len(wanted) + 1000:  # a table of all ids from the first to the last
        table = np.full(span + 1, otherwise)
        table[known - low] = np.arange(len(known))
        outside = (wanted < low) | (wanted >= low + span)
        return table[np.where(outside, span, wanted - low)]
    order = np.argsort(known)
    ascending = known[order]
    found = np.searchsorted(ascending, wanted).clip(max=len(known) - 1)
    return np.where(ascending[found] == wanted, order[found], otherwise)


def why_unknown(
    entry: AnyAnnotation,
    where: str,
    no_image: bool,
    names: dict[int, str],
    table: Classes,
) -> str:
    """Return why an annotation has no image or no class, for a message."""
    key, value = ("image_id", entry.image_id) if no_image else ("category_id", entry.category_id)
    number = plain_id(value)
    if number is None:
        return f"{where}: {key} must be a whole number or a text, not {shorten(value)}"
    if no_image:
        return f"{where} belongs to image {shorten(value)}, which is not listed"
    name = names.get(number) if isinstance(number, int) else None
    if name is not None:
        hint = did_you_mean(name, table.names)
        known = str(table.names[:20]) + (" and more" if len(table.names) > 20 else "")
        return f"{where}: category '{name}' is not among names {known}{hint}"
    ids = ", ".join(str(number) for number in sorted(names)[:20])
    return f"{where}: unknown category id {shorten(value)}; ids are {ids}"


def category_ids(names: dict[int, str], table: Classes) -> tuple[int, ...]:
    """The file's id of each class; a class that the file does not list gets a free one."""
    number_of = {name: number for number, name in names.items()}
    if not set(table.names) & set(number_of):
        return tuple(table.ids)
    free = max(names) + 1
    ids = []
    for name in table.names:
        if name not in number_of:
            number_of[name], free = free, free + 1
        ids.append(number_of[name])
    return tuple(ids)
