"""What becomes of boxes at the borders of tiles."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rfla.data.record import NO_CLASS, make_record
from rfla.data.tiles import plan_tiles
from rfla.tools.convert.cut import cut, keeps_empty, visible_shares


def record_of(*boxes, labels=None, ignore=None):
    record = make_record(
        "scenes/a.tif", "x", boxes, labels or [0] * len(boxes), ignore=ignore, ids=range(len(boxes))
    )
    record.width, record.height = 100, 100
    return record


def test_visible_share_decides():
    """Window 0..50: a box at 40..60 is half visible, at 46..66 a fifth, at 60..70 not at all."""
    record = record_of((10, 10, 20, 20), (40, 10, 60, 20), (46, 10, 66, 20), (60, 10, 70, 20))
    part = cut(record, (0, 0, 50, 50), keep_visible=0.5)
    assert part.boxes.tolist() == [[10, 10, 20, 20], [40, 10, 50, 20], [46, 10, 50, 20]]
    assert part.ignore.tolist() == [
        False,
        False,
        True,
    ]  # pixels of the third are there: ignored, not background
    assert part.crowd.tolist() == [False, False, True]
    assert (part.width, part.height, part.file_name) == (50, 50, "scenes/a__0_0.png")
    assert part.ids.tolist() == [-1, -1, -1]
    assert cut(record, (0, 0, 50, 50), keep_visible=0).ignore.tolist() == [False, False, False]
    assert cut(record, (0, 0, 50, 50), keep_visible=1).ignore.tolist() == [False, True, True]


def test_origin_regions_and_boxes_without_area():
    record = record_of(
        (0, 0, 100, 100),
        (60, 60, 60, 64),
        (49, 60, 49, 64),
        labels=[NO_CLASS, 0, 0],
        ignore=[True, False, False],
    )
    part = cut(record, (50, 50, 100, 100), keep_visible=0.9)
    assert part.boxes.tolist() == [
        [0, 0, 50, 50],
        [10, 10, 10, 14],
    ]  # the flat box stays where its centre is
    assert part.labels.tolist() == [NO_CLASS, 0] and part.ignore.tolist() == [True, False]


def test_polygons_and_areas_hold_for_whole_boxes_alone():
    record = record_of((10, 10, 20, 20), (40, 10, 60, 20))
    record.attributes = {
        "polygon": np.array([[10, 10, 20, 10, 20, 20, 10, 20]] * 2, float),
        "area": np.array([70.0, 150.0]),
    }
    part = cut(record, (5, 0, 50, 50), keep_visible=0.5)
    assert part.attributes["polygon"][0].tolist() == [5, 10, 15, 10, 15, 20, 5, 20]
    assert np.isnan(part.attributes["polygon"][1]).all()
    assert part.attributes["area"][0] == 70 and np.isnan(part.attributes["area"][1])


@given(
    st.lists(st.tuples(*[st.integers(0, 99)] * 4), min_size=1, max_size=20),
    st.integers(16, 60),
    st.floats(0, 0.5),
)
@settings(max_examples=60, deadline=None)
def test_every_box_is_whole_in_some_tile_where_the_overlap_allows(corners, tile, share):
    """Boxes no larger than the overlap are whole in a tile; no tile has a box that is not there."""
    overlap = int(tile * share)
    boxes = [
        (x, y, min(x + 1 + w % max(overlap, 1), 100), min(y + 1 + h % max(overlap, 1), 100))
        for x, y, w, h in corners
    ]
    record = record_of(*boxes)
    shares = np.array(
        [visible_shares(record.boxes, window) for window in plan_tiles(100, 100, tile, overlap)]
    )
    small = [max(b[2] - b[0], b[3] - b[1]) <= overlap for b in boxes]
    assert (shares.max(axis=0)[small] == 1).all()
    assert ((shares >= 0) & (shares <= 1)).all() and (shares.max(axis=0) > 0).all()


def test_empty_tiles_are_chosen_by_name():
    names = [f"a__{x}_0.png" for x in range(2000)]
    kept = [keeps_empty(name, 0.25) for name in names]
    assert kept == [keeps_empty(name, 0.25) for name in names] and 400 < sum(kept) < 600
    assert all(keeps_empty(name, 1.0) for name in names) and not any(
        keeps_empty(name, 0.0) for name in names
    )
    assert all(
        keeps_empty(name, 0.5) for name, at_quarter in zip(names, kept, strict=True) if at_quarter
    )
