"""Sizes that several parts share."""

import pytest

from rfla.sizes import AITOD_EDGES, AITOD_SIZES, padded_side


def test_ranges_of_aitod_follow_each_other():
    assert AITOD_EDGES == (8.0, 16.0, 32.0)
    assert [(low, high) for _, low, high in AITOD_SIZES[:3]] == [(0, 8), (8, 16), (16, 32)]


@pytest.mark.parametrize("side, padded", [(0, 0), (1, 32), (32, 32), (33, 64), (800, 800)])
def test_a_side_is_padded_to_the_next_multiple_of_32(side, padded):
    assert padded_side(side) == padded
