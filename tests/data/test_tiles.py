"""Where the windows of tiles lie."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfla.data.tiles import plan_tiles, tile_starts


@pytest.mark.parametrize(
    ("length", "tile", "overlap", "starts"),
    [
        (2000, 800, 200, [0, 600, 1200]),  # fits exactly
        (1500, 800, 200, [0, 600, 700]),  # the last tile is shifted inwards
        (1400, 800, 200, [0, 600]),  # the shifted tile is the usual one: no duplicate
        (1401, 800, 200, [0, 600, 601]),
        (800, 800, 200, [0]),
        (500, 800, 200, [0]),  # smaller than a tile
        (30, 10, 0, [0, 10, 20]),
    ],
)
def test_starts(length, tile, overlap, starts):
    assert tile_starts(length, tile, overlap) == starts


@given(
    width=st.integers(1, 900),
    height=st.integers(1, 900),
    tile=st.integers(16, 1000),
    share=st.floats(0, 0.9),
)
@settings(max_examples=60, deadline=None)
def test_windows_cover_the_scene_inside_it_and_never_twice(width, height, tile, share):
    overlap = int(tile * share)
    windows = [tuple(row) for row in plan_tiles(height, width, tile, overlap).tolist()]
    assert len(set(windows)) == len(windows)
    for axis, length in ((0, width), (1, height)):
        spans = sorted({(window[axis], window[axis + 2]) for window in windows})
        assert spans[0][0] == 0 and spans[-1][1] == length
        assert all(right - left == min(tile, length) for left, right in spans)
        assert all(b[0] <= a[1] - min(overlap, length) for a, b in pairwise(spans))
