"""Headers of weights files: ours are read, anything else is refused in bounded time and memory."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfla.cfg.weights_header import MAX_HEADER_BYTES, MAX_TENSORS, read_metadata
from rfla.errors import WeightsError

MANY_TENSORS = json.dumps({str(number): {} for number in range(MAX_TENSORS + 1)}).encode()


def file_with(path: Path, header: bytes, length: int | None = None) -> Path:
    path.write_bytes((len(header) if length is None else length).to_bytes(8, "little") + header)
    return path


def test_reads_ours(tmp_path: Path) -> None:
    header = json.dumps({"__metadata__": {"rfla": json.dumps({"imgsz": 320})}}).encode()
    assert read_metadata(file_with(tmp_path / "x", header)) == {"imgsz": 320}


@pytest.mark.parametrize(
    ("header", "length", "message"),
    [
        (b"{}", None, "without the metadata of rfla"),
        (b'{"__metadata__": {"format": "pt"}}', None, "without the metadata of rfla"),
        (b'{"__metadata__": 3}', None, "without the metadata of rfla"),
        (b'{"__metadata__": {"rfla": "[1]"}}', None, "not a JSON object"),
        (b'{"__metadata__": {"rfla": "{"}}', None, "not JSON"),
        (b'{"__metadata__": {"rfla": "\\ud800"}}', None, "not JSON"),  # half a character
        (b"[]", None, "not a JSON object"),
        (b"not json", None, "not JSON"),
        (b"[" * 100_000, None, "not JSON"),  # deeper than the parser goes
        (b"\xff\xfe", None, "not JSON"),
        (b"{}", 2**63, "not a safetensors file, or cut off"),
        (b"{}", 0, "not a safetensors file"),
        (b"", 0, "not a safetensors file"),
        (b"{}" + b" " * (MAX_HEADER_BYTES + 1), None, "header claims"),
        (MANY_TENSORS, None, "20,001 tensors; no weights file has over 20000"),
    ],
)
def test_refused(tmp_path: Path, header: bytes, length: int | None, message: str) -> None:
    with pytest.raises(WeightsError) as caught:
        read_metadata(file_with(tmp_path / "x", header, length))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"abc")
    for path in (tmp_path, tmp_path / "nothing", Path("/dev/zero"), tmp_path / "short"):
        with pytest.raises(WeightsError):
            read_metadata(path)


@given(st.binary(max_size=64))
@settings(max_examples=200, deadline=None)
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError):
        read_metadata(path)
