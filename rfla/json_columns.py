"""Numbers of a million JSON objects as columns, without a look at each of them in Python.

msgspec parses the objects and writes them again as MessagePack. There a `float` always takes nine
bytes (a mark, and the number with its highest byte first), so objects that hold nothing but floats
are records of one length, and numpy sees the text as one array of them.

Shapes: M objects.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, TypeVar, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

NumberColumns = dict[str, NDArray[np.float64]]
Kind = TypeVar("Kind", bound=msgspec.Struct)

PIECE = 1 << 17
"""Bytes of a list that are parsed at once: the objects of one piece at a time are in memory."""

ROWS = 1 << 12
"""Objects that are written as MessagePack at once."""

EXACT = 2.0**53
"""From here on, a float may be another whole number than the one that was written."""

_ENCODER = msgspec.msgpack.Encoder()
_NUMBER = np.dtype([("mark", "u1"), ("value", ">f8")])
_BETWEEN_OBJECTS = re.compile(rb"\}\s*,\s*\{")


def number_columns(entries: Sequence[Kind], kind: type[Kind]) -> NumberColumns:
    """Return the fields of entries: (M,) for a float, (M, n) for a tuple of n floats.

    Args:
        entries: M objects, as the parser returned them.
        kind: Their class; all fields are `float` or tuples of it.
    """
    starts = range(0, len(entries), ROWS) or (0,)
    return _joined([_columns(entries[start : start + ROWS], kind) for start in starts])


def parse_number_columns(data: bytes, kind: type[Kind]) -> NumberColumns:
    """Parse a JSON list of objects, a piece at a time, into the columns of `number_columns`.

    Raises:
        ValueError: It is no list of such objects; `rfla.json_file.parse_json` says why.
        RecursionError: It is nested too deep.
    """
    decoder = msgspec.json.Decoder(list[kind])  # type: ignore[valid-type]
    return _joined([_columns(decoder.decode(piece), kind) for piece in _pieces(data)])


def _columns(entries: Sequence[Kind], kind: type[Kind]) -> NumberColumns:
    record = _record_of(kind)
    text = _ENCODER.encode(entries)
    start = len(text) - len(entries) * record.itemsize  # the number of objects stands before them
    records = np.frombuffer(text, record, len(entries), start)
    return {
        name: np.ascontiguousarray(records[name]["value"], np.float64)
        for name in record.names or ()
    }


def _joined(pieces: list[NumberColumns]) -> NumberColumns:
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def whole_numbers(column: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return (M,) numbers as the integers that they are.

    Raises:
        ValueError: One is no whole number, or too large for a float to tell it from the next.
    """
    if not bool((np.abs(column) < EXACT).all()):  # NaN included
        raise ValueError("not whole numbers")
    whole = column.astype(np.int64)
    if not bool((whole == column).all()):
        raise ValueError("not whole numbers")
    return whole


def _pieces(data: bytes) -> Iterator[bytes]:
    """Yield a JSON list as several, cut between two objects.

    A place that looks like one between two objects may be inside of a text or of an object. Then a
    piece is no JSON: if all of them are lists, so is the whole, and of the same values.
    """
    start, end = data.find(b"["), data.rfind(b"]")
    if start < 0 or data[:start].strip() or data[end + 1 :].strip():
        raise ValueError("not a list")
    start += 1
    text = memoryview(data)  # its slices are no copies
    while cut := _BETWEEN_OBJECTS.search(data, start + PIECE, end):
        yield b"".join((b"[", text[start : cut.start() + 1], b"]"))
        start = cut.end() - 1
    yield b"".join((b"[", text[start:end], b"]"))


@cache
def _record_of(kind: type[msgspec.Struct]) -> np.dtype[Any]:
    """Return the layout of an object in MessagePack, at most 15 fields with names of 31 bytes."""
    names, formats, offsets = [], [], []
    place = 1  # one byte says that it is an object, and of how many fields
    for field in msgspec.structs.fields(kind):
        length = len(get_args(field.type))  # of a tuple; 0 for a number
        place += 1 + len(field.encode_name) + (length > 0)  # the marks of a text and of a tuple
        names.append(field.name)
        formats.append((_NUMBER, (length,)) if length else _NUMBER)
        offsets.append(place)
        place += _NUMBER.itemsize * max(length, 1)
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": place})
