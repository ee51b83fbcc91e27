"""Read the metadata of an ONNX file without onnx, onnxruntime or its weights.

An ONNX file is a protobuf message (https://onnx.ai/onnx/repo-docs/IR.html). Its own fields are
walked through, the graph among them is skipped, and only `metadata_props`, pairs of texts, is read.
Nothing in the file is trusted.

The last entry of a file of ours is `sha256`, the digest of all bytes before it: a file that was cut
off or changed by accident is told from one that is whole.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from rfla.errors import WeightsError
from rfla.files import foreign_content, open_regular

METADATA_PROPS = 14  # number of the field of ModelProto; pairs are (1: key, 2: value)
MAX_ENTRIES, MAX_TEXT_BYTES = 1_000, 8 * 1024 * 1024
DIGEST = "sha256"  # name of the last entry
VARINT, FIXED_64, LENGTH, FIXED_32 = 0, 1, 2, 5  # kinds of fields of protobuf


class _NotProtobuf(Exception):
    pass


def read_entries(path: Path | str) -> dict[str, str]:
    """Return the metadata of an ONNX file, text by name.

    Raises:
        WeightsError: no such file, or no ONNX file.
    """
    with open_regular(path, WeightsError) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            head = file.read(1024)
            file.seek(0)
            entries = [_entry(file, length) for length in _lengths(file, size)]
        except OSError as error:
            raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from error
        except (_NotProtobuf, UnicodeDecodeError):
            foreign = foreign_content(head)
            what = f" but {foreign}" if foreign else ", or cut off"
            raise WeightsError(f"{path}: not an ONNX file{what}") from None
    return dict(entries)


def sealed(content: bytes) -> bytes:
    """Return an ONNX file with the digest of its bytes as a last entry of the metadata."""
    return content + _seal(content)


def check_seal(content: bytes, path: Path | str) -> None:
    """Refuse a file that does not hold what `sealed` returned.

    Raises:
        WeightsError: it was cut off, damaged, or written anew by another program.
    """
    length = len(_seal(b""))
    if content[-length:] != _seal(content[:-length]):
        raise WeightsError(
            f"{path}: damaged, or changed since 'rfla export' wrote it (its sha256 differs); "
            "copy or export it again"
        )


def _seal(content: bytes) -> bytes:
    digest = hashlib.sha256(content).hexdigest()
    pair = _text_field(1, DIGEST.encode()) + _text_field(2, digest.encode())
    return _text_field(METADATA_PROPS, pair)


def _text_field(number: int, text: bytes) -> bytes:
    """Write a field of less than 128 bytes."""
    return bytes([number * 8 + LENGTH, len(text)]) + text


def _lengths(file: BinaryIO, end: int) -> Iterator[int]:
    """Yield the length of each metadata entry, with the file standing at its first byte."""
    found = 0
    while (place := file.tell()) < end:
        field, kind = divmod(_varint(file), 8)
        if kind == LENGTH:
            length = _varint(file)
            place = file.tell()
            if length > end - place:
                raise _NotProtobuf
            if field == METADATA_PROPS:
                found += 1
                if length > MAX_TEXT_BYTES or found > MAX_ENTRIES:
                    raise _NotProtobuf
                yield length
            file.seek(place + length)
        elif kind == VARINT:
            _varint(file)
        elif kind in (FIXED_64, FIXED_32):
            file.seek(8 if kind == FIXED_64 else 4, os.SEEK_CUR)
        else:
            raise _NotProtobuf


def _entry(file: BinaryIO, length: int) -> tuple[str, str]:
    """Read one pair of texts."""
    end = file.tell() + length
    parts = {1: b"", 2: b""}
    while file.tell() < end:
        field, kind = divmod(_varint(file), 8)
        size = _varint(file)
        if kind != LENGTH or field not in parts or size > end - file.tell():
            raise _NotProtobuf
        parts[field] = file.read(size)
    return parts[1].decode(), parts[2].decode()


def _varint(file: BinaryIO) -> int:
    """Read a number of seven bits a byte, the lowest first."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    raise _NotProtobuf
