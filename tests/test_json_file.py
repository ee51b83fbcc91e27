"""JSON of strangers: read fast, refused in one line."""

import gzip
import json
import math
from typing import Any

import msgspec
import pytest

import rfla.json_file
from rfla.errors import DataError, MetricError
from rfla.json_file import parse_json, read_json, refuse_repeated_keys


class Point(msgspec.Struct):
    x: float
    name: Any = None


def test_wanted_keys_are_read_and_others_passed_over() -> None:
    data = b'[{"x": 1, "other": [[[]]], "name": 3}, {"x": 2.5}]'
    assert parse_json(data, "a.json", list[Point]) == [Point(1.0, 3), Point(2.5)]


def test_nan_is_read_as_python_writes_it() -> None:
    assert math.isnan(parse_json(b'[{"x": NaN}]', "a.json", list[Point])[0].x)
    assert parse_json(b"[Infinity]", "a.json", Any) == [math.inf]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"images": [\n}', "a.json:2: not valid JSON"),
        (b"", "a.json:1: not valid JSON"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"a":' * 100_000, "nested too deep"),
        (b"[" + b"9" * 5000 + b"]", "Exceeds the limit"),
        (b'["\\ud800"]', "half of a surrogate pair"),
        (b'["\xff"]', "not usable JSON"),
    ],
)
def test_what_cannot_be_used_is_one_line(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        parse_json(data, "a.json", Any)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_another_kind_of_content_is_named_with_its_place() -> None:
    with pytest.raises(MetricError, match=r"a\.json: \[1\]\.x: expected float, got str"):
        parse_json(b'[{"x": 1}, {"x": "y"}]', "a.json", list[Point], MetricError)


def test_gzip_and_byte_order_marks(tmp_path, monkeypatch) -> None:
    packed = tmp_path / "a.json.gz"
    packed.write_bytes(gzip.compress(json.dumps([1, 2]).encode()))
    assert read_json(packed) == [1, 2]
    marked = tmp_path / "b.json"
    marked.write_bytes(b"\xef\xbb\xbf[3]")
    assert read_json(marked) == [3]
    monkeypatch.setattr(rfla.json_file, "MAX_UNPACKED", 1 << 10)
    packed.write_bytes(gzip.compress(b"0" * 100_000))
    with pytest.raises(DataError, match="unpacks to more than"):
        read_json(packed)
    packed.write_bytes(gzip.compress(b"[]" * 100)[:-12])
    with pytest.raises(DataError, match=r"a\.json\.gz: cannot be read"):
        read_json(packed)


def test_a_key_given_twice_is_refused() -> None:
    refuse_repeated_keys(b'[{"a": 1}, {"a": 2}]', "a.json")
    with pytest.raises(DataError, match="an object has the key 'a' twice"):
        refuse_repeated_keys(b'[{"a": 1, "a": 2}]', "a.json")
