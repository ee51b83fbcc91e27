"""What the text formats share: numbers and flags, read with the place of a mistake."""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfla.data.annotations import Annotations
from rfla.data.formats.left_out import LeftOut
from rfla.data.record import Classes, ImageRecord, Part
from rfla.errors import DataError
from rfla.files import read_regular

# what is said of ids that are not kept
REPEAT = "repeat or are no whole numbers from 0: all numbered anew"


def unique_whole(ids: Sequence[Any]) -> bool:
    """Tell whether ids can be kept: whole numbers from 0, each once."""
    return all(type(number) is int and 0 <= number < 2**63 for number in ids) and len(
        set(ids)
    ) == len(ids)


def parse_numbers(fields: Sequence[str], where: str) -> list[float]:
    """Read finite numbers.

    Raises:
        DataError: A field is not a number, or is NaN or infinite.
    """
    try:
        if any("_" in text for text in fields):
            raise ValueError  # Python reads 1_0 as 10
        values = [float(text) for text in fields]
    except ValueError:
        bad = next(text for text in fields if not is_number(text))
        raise DataError(f"{where}: {bad[:40]!r} is not a number") from None
    for text, value in zip(fields, values, strict=True):
        if not math.isfinite(value):
            raise DataError(f"{where}: {text[:40]!r} is not a finite number")
    return values


def parse_integer(text: str, where: str, name: str) -> int:
    """Read a whole number (`3` and `3.0`).

    Raises:
        DataError: It is something else.
    """
    value = parse_numbers([text], where)[0]
    if value != int(value) or abs(value) > 2**53:
        raise DataError(f"{where}: {name} must be a whole number, not {text[:40]!r}")
    return int(value)


def parse_flag(text: str, where: str, name: str) -> int:
    """Read a flag: 0 or 1 (some files count further), true or false, yes or no; an empty text is 0.

    Raises:
        DataError: It is something else.
    """
    words = {"": 0, "false": 0, "no": 0, "unspecified": 0, "true": 1, "yes": 1}
    if text.lower() in words:
        return words[text.lower()]
    value = parse_integer(text, where, name) if is_number(text) else -1
    if not 0 <= value <= 100:
        raise DataError(f"{where}: {name} must be 0 or 1, not {text[:40]!r}")
    return value


def is_number(text: str) -> bool:
    """Tell whether a text is a number, NaN and infinity included."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def read_text(path: Path) -> str:
    """Read a text file as UTF-8, with or without a byte order mark.

    Raises:
        DataError: It cannot be read, or is no UTF-8 text.
    """
    try:
        text = read_regular(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def tight_boxes(polygons: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (n, 4) xyxy boxes round (n, 2k) polygons of k corners x, y."""
    if not len(polygons):
        return np.zeros((0, 4))
    points = polygons.reshape(len(polygons), -1, 2)
    return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)


def as_text(value: float) -> str:
    """Write a coordinate so that reading gives the same float; whole numbers without a point."""
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))


ReadFile = Callable[[Path, Classes, LeftOut], ImageRecord]
"""Reads the file of one image. Gives its malformed rows to the last argument, and raises
`DataError` where the whole file is."""


def reader_of(
    read_file: ReadFile, classes_of: Callable[[Iterable[Part]], Classes]
) -> Callable[..., Annotations]:
    """Return the reader (`rfla.data.formats.Reader`) of a format with a file for each image.

    Args:
        read_file: Reads one file.
        classes_of: Finds the class table of a split that is read without one.
    """

    def read(
        part: Part, classes: Classes | None, *, to_write: bool = True, strict: bool = True
    ) -> Annotations:
        table = classes_of([part]) if classes is None else classes
        records: list[ImageRecord] = []
        left_out = LeftOut(strict)
        for path in part.annotations:
            try:
                records.append(read_file(path, table, left_out))
            except DataError as error:
                left_out.refuse_file(error)
        return left_out.noted_in(Annotations.of_records(records, table))

    return read


def names_of(paths: Iterable[Path], read_file: ReadFile) -> list[str]:
    """Return the class names that files state, in the order of their first use.

    What is malformed is passed over: whoever reads the files refuses or counts it.
    """
    seen = Classes(grows=True)
    for path in paths:
        with suppress(DataError):
            read_file(path, seen, LeftOut(strict=False))
    return seen.names
