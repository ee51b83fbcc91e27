"""Which boxes a training learns."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rfla.data.annotations import Annotations
from rfla.data.record import Classes, make_record
from rfla.data.training_boxes import at_least_min_side, clipped_boxes, repeated_boxes

corner = st.integers(0, 2)


def split_of(rows: list[tuple[int, ...]]) -> Annotations:
    """Rows are image, label, ignore, x, y: boxes of 5 x 5 px."""
    records = []
    for image in range(2):
        own = [row for row in rows if row[0] == image]
        boxes = [(x, y, x + 5.0, y + 5.0) for *_, x, y in own]
        labels = [row[1] for row in own]
        ignore = [bool(row[2]) for row in own]
        records.append(make_record(f"{image}.png", "here", boxes, labels, ignore=ignore))
    return Annotations.of_records(records, Classes(["a", "b"]))


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 1), corner, corner)))
def test_the_first_of_each_is_kept(rows: list[tuple[int, ...]]) -> None:
    """Against a set of what was seen, box by box."""
    rows = sorted(rows, key=lambda row: row[0])
    index = split_of(rows)
    seen: set[tuple[int, ...]] = set()
    expected = []
    for row in rows:
        expected.append(row in seen)
        seen.add(row)
    found = repeated_boxes(index, index.boxes.astype(np.float32))
    assert found.tolist() == expected


def test_boxes_are_clipped_to_their_own_image() -> None:
    """100 x 50 and 50 x 100 px (width x height)."""
    records = [
        make_record(f"{number}.png", "here", [(-3.0, -4.0, 200.0, 300.0)], [0], size=size)
        for number, size in enumerate([(100, 50), (50, 100)])
    ]
    index = Annotations.of_records(records, Classes(["a"]))
    assert clipped_boxes(index).tolist() == [[0, 0, 100, 50], [0, 0, 50, 100]]


def test_a_side_of_1_px_may_be_short_by_the_rounding_of_its_file() -> None:
    """By 0.002 px along a side of 1,000 px, and by 0.00002 px along one of 10 px."""
    sides = np.array([[0.9981, 1], [0.9979, 1], [1, 0.9981], [1, 0.99999]])
    image_hw = np.array([[10, 1000]] * 4, np.int32)
    assert at_least_min_side(sides, image_hw).tolist() == [True, False, False, True]
