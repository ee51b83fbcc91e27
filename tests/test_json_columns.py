"""Numbers of JSON objects as columns: to the last bit, in pieces, and nothing taken for a list."""

import json

import msgspec
import numpy as np
import pytest

from rfla import json_columns
from rfla.json_columns import number_columns, parse_number_columns, whole_numbers


class Point(msgspec.Struct):
    number: float
    place: tuple[float, float] = (-1.0, -1.0)


def columns(text):
    found = parse_number_columns(text.encode(), Point)
    return found["number"].tolist(), found["place"].tolist()


def test_numbers_as_python_reads_them():
    values = [7, -0.1, 5e-324, 1.7976931348623157e308, 123456789.123456789, 2**53 + 1, 1e-7]
    entries = [{"number": value, "place": [value, 2]} for value in values]
    numbers, places = columns(json.dumps(entries))
    assert numbers == [float(value) for value in values]
    assert places == [[float(value), 2.0] for value in values]


def test_a_field_that_is_missing_has_its_default_and_other_keys_are_passed_over():
    assert columns('[{"number": 1, "more": [{}, {"number": 2}]}]') == ([1.0], [[-1.0, -1.0]])


@pytest.mark.parametrize("text", ["[]", " [\n] ", "[ ]"])
def test_an_empty_list(text):
    assert columns(text) == ([], [])


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("piece", [1, 20, 1000])
def test_pieces_are_the_whole(monkeypatch, piece, indent):
    monkeypatch.setattr(json_columns, "PIECE", piece)
    entries = [{"number": n, "place": [n, -n]} for n in range(50)]
    numbers, places = columns(json.dumps(entries, indent=indent))
    assert numbers == list(range(50)) and places == [[n, -n] for n in range(50)]


@pytest.mark.parametrize(
    "text",
    [
        '{"number": 1}',
        '[{"number": 1}',
        '[{"number": 1}] x',
        '[{"number": 1}][{"number": 1}]',
        'x[{"number": 1}]',
        '[{"number": 1}, {"number": 2}, ]',
        '[{"number": 1}, , {"number": 2}]',
        '[{"number": "1"}]',
        '[{"number": null}]',
        '[{"number": true}]',
        '[{"number": NaN}]',
        '[{"number": 1, "place": [1]}]',
        '[{"number": 1, "place": [1, 2, 3]}]',
        '[{"place": [1, 2]}]',
        "[1]",
        "7",
        "",
        # a place that only looks as if it were between two objects
        '[{"number": 1, "name": "}, {"}, {"number": 2, "name": "}, {}]',
    ],
)
@pytest.mark.parametrize("piece", [1, 1000])
def test_what_is_no_list_of_such_objects_is_refused(monkeypatch, text, piece):
    monkeypatch.setattr(json_columns, "PIECE", piece)
    with pytest.raises(ValueError):
        columns(text)


def test_braces_inside_of_a_text_are_refused_in_small_pieces_only(monkeypatch):
    text = '[{"number": 1, "name": "}, {"}, {"number": 2}]'
    assert columns(text)[0] == [1.0, 2.0]
    monkeypatch.setattr(json_columns, "PIECE", 1)
    with pytest.raises(ValueError):
        columns(text)


def test_number_columns_of_entries():
    found = number_columns([Point(1.0, (2.0, 3.0)), Point(4.0, (5.0, 6.0))], Point)
    np.testing.assert_array_equal(found["number"], [1.0, 4.0])
    np.testing.assert_array_equal(found["place"], [[2.0, 3.0], [5.0, 6.0]])


def test_whole_numbers():
    assert whole_numbers(np.array([7.0, -3.0, 2.0**53 - 1])).tolist() == [7, -3, 2**53 - 1]
    for value in (7.5, 2.0**53, np.nan, np.inf):
        with pytest.raises(ValueError):
            whole_numbers(np.array([value]))
