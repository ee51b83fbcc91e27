"""Metadata of ONNX files read without onnx, and files that are none."""

from pathlib import Path

import pytest

from rfla.cfg.onnx_header import check_seal, read_entries, sealed
from rfla.errors import WeightsError


def field(number: int, content: bytes) -> bytes:
    return bytes([number * 8 + 2, len(content)]) + content


ENTRY = field(14, field(1, b"names") + field(2, '["Schiff ä"]'.encode()))
GRAPH = field(7, b"x" * 100)
VERSION = bytes([1 * 8 + 0, 10])


def test_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(VERSION + GRAPH + ENTRY)
    assert read_entries(path) == {"names": '["Schiff ä"]'}


def test_the_seal(tmp_path: Path) -> None:
    """76 bytes: 2 of the entry, 2 + 6 of the name, 2 + 64 of the digest."""
    content = sealed(VERSION + GRAPH + ENTRY)
    assert len(content) == len(VERSION + GRAPH + ENTRY) + 76
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    assert set(read_entries(path)) == {"names", "sha256"}
    check_seal(content, path)
    for damaged in (content[:-1], content[:20], b"", content[:9] + b"y" + content[10:]):
        with pytest.raises(WeightsError, match="changed since 'rfla export' wrote it"):
            check_seal(damaged, path)


@pytest.mark.parametrize(
    "content",
    [
        b"<html>no</html>",
        (VERSION + GRAPH + ENTRY)[:-1],
        (VERSION + GRAPH)[:-30],
        b"\xff" * 40,  # a number without an end
        field(14, b"\x0a\x7fab"),  # a text longer than its entry
        field(14, b"\x08\x01"),  # a number where a text belongs
        field(14, field(1, b"\xff\xfe")),  # no text
        bytes([14 * 8 + 3]),  # a kind of field that protobuf gave up
    ],
)
def test_what_is_none(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="not an ONNX file"):
        read_entries(path)


def test_an_absurd_entry_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    length = 9 * 1024 * 1024
    varint = bytes(
        [length & 127 | 128, length >> 7 & 127 | 128, length >> 14 & 127 | 128, length >> 21]
    )
    path.write_bytes(bytes([14 * 8 + 2]) + varint + b"\0" * length)
    with pytest.raises(WeightsError, match="not an ONNX file"):
        read_entries(path)
