"""Ids of COCO detections: the position of each id of a list among the known ones.

Tools write the id 7 as 7, 7.0 or "7", and some name an image by its file instead.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from rfla.data.formats.coco_ids import UNKNOWN, integer_places
from rfla.errors import MetricError, shorten
from rfla.files import as_unicode
from rfla.metrics.arrays import GroundTruth, IntArray

Ids = Sequence[int | str]


def category_positions(given: Sequence[Any] | IntArray, known: Ids, where: str) -> IntArray:
    """Return (M,) the position of each detection's category among the known ones.

    Args:
        given: M category ids.
        known: category ids, each once.
        where: the file, for messages.

    Raises:
        MetricError: names the first id that is not known.
    """
    integers = _integer_positions(given, known)
    if integers is not None:
        return integers
    given = given.tolist() if isinstance(given, np.ndarray) else given
    table = id_table(known)
    positions = [position_of(identity, table) for identity in given]
    _require_all(positions, given, known, "category_id", where)
    return np.array(positions, np.int64)


def image_positions(
    given: Sequence[Any] | IntArray, gt: GroundTruth, where: str, say: Callable[[str], None]
) -> IntArray:
    """Return (M,) the position of each detection's image in `gt.image_ids`.

    What is no id is looked up among file names, then among their stems.

    Raises:
        MetricError: names the first image that is not known.
    """
    integers = _integer_positions(given, gt.image_ids)
    if integers is not None:
        return integers
    given = given.tolist() if isinstance(given, np.ndarray) else given
    ids, names = id_table(gt.image_ids), _name_table(gt.files)
    positions, by_name = [], 0
    for identity in given:
        position = position_of(identity, ids)
        if position is None and names:
            position = _named(identity, names)
            by_name += position is not None
        positions.append(position)
    _require_all(positions, given, gt.image_ids, "image_id", where)
    if by_name:
        count = "1 detection names its" if by_name == 1 else f"{by_name:,} detections name their"
        say(f"{where}: {count} image by file name, not by id")
    return np.array(positions, np.int64)


def id_table(known: Ids) -> dict[Any, int]:
    """Return id -> position; integers are also found by their text, and digits by their integer."""
    table: dict[Any, int] = {}
    for position, identity in enumerate(known):
        table.setdefault(str(identity), position)
        if isinstance(identity, str) and identity.isdecimal():
            table.setdefault(int(identity), position)
    return table | {identity: position for position, identity in enumerate(known)}


def position_of(identity: Any, table: dict[Any, int]) -> int | None:
    """Return the position of an id, which may be 7, 7.0, "7" or "7.0"."""
    try:
        if identity in table:  # 7.0 and 7 are one key
            return table[identity]
    except TypeError:  # a list or a dict
        return None
    if isinstance(identity, str) and identity.endswith(".0"):
        return table.get(identity.removesuffix(".0"))
    if isinstance(identity, float) and identity.is_integer():
        return table.get(str(int(identity)))
    return None


def _integer_positions(given: Sequence[Any] | IntArray, known: Ids) -> IntArray | None:
    """Return (M,) positions where all ids are integers and known, and None where not."""
    try:
        ids = np.array(known)
        wanted = np.asarray(given)
    except (ValueError, TypeError, OverflowError):  # a list among the ids
        return None
    if ids.dtype.kind != "i" or wanted.dtype.kind != "i" or wanted.ndim != 1:
        return None
    places = integer_places(wanted, ids)
    return None if bool((places == UNKNOWN).any()) else places


def _name_table(files: Sequence[str]) -> dict[str, int]:
    """Return file name or stem -> position of the image, where one image alone has it."""
    names = [PurePosixPath(as_unicode(file).replace("\\", "/")).name for file in files]
    stems = [PurePosixPath(name).stem for name in names]
    table: dict[str, int] = {}
    for texts in (stems, names):  # a name wins over an equal stem
        count = Counter(texts)
        table |= {text: i for i, text in enumerate(texts) if text and count[text] == 1}
    return table


def _named(identity: Any, names: dict[str, int]) -> int | None:
    """Return the position of the image that a file name or a path names."""
    if not isinstance(identity, str):
        return None
    name = PurePosixPath(identity.replace("\\", "/")).name
    return names.get(name, names.get(PurePosixPath(name).stem))


def _require_all(
    positions: Sequence[int | None],
    given: Sequence[Any],
    known: Ids,
    key: str,
    where: str,
) -> None:
    """Name the first id that is not known and count the others."""
    missing = [number for number, position in enumerate(positions) if position is None]
    if not missing:
        return
    shown = sorted({str(identity) for identity in known})
    listed = ", ".join(shown[:8]) + (", ..." if len(shown) > 8 else "")
    count = f"{len(missing)} such entries" if len(missing) > 1 else "the only such entry"
    raise MetricError(
        f"{where}: detection {missing[0]}: {key} {shorten(given[missing[0]])} is not in the ground "
        f"truth, which has {listed} ({count})"
    )
