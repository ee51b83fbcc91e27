"""Receptive fields by hand: 1 + sum of (kernel - 1) * product of the strides before."""

import pytest

from rfla.assign import level_receptive_fields, resnet_receptive_fields


@pytest.mark.parametrize(
    ("depth", "fields"),
    [
        (50, [35, 91, 267, 427, 555, 811]),  # what the authors wrote down
        (18, [43, 99, 211, 435, 563, 819]),  # basic blocks: two 3 x 3 layers each
        (34, [59, 179, 547, 899, 1027, 1283]),
        (101, [35, 91, 811, 971, 1099, 1355]),
        # 35; + 2 * 4 + 2 * 8 * 7; + 2 * 8 + 2 * 16 * 35; + 2 * 16 + 2 * 32 * 2; + 2 * 64; + 2 * 128
        (152, [35, 155, 1291, 1451, 1579, 1835]),
    ],
)
def test_resnet_by_the_authors_counting(depth, fields):
    assert resnet_receptive_fields(depth, range(2, 8)) == fields
    assert resnet_receptive_fields(depth, [3, 5]) == [fields[1], fields[3]]


def test_levels_above_the_backbone():
    # two cells of 64 px more, then two of 128
    assert level_receptive_fields({4: 50.5, 5: 100.0}, [4, 5, 6, 7]) == [50.5, 100, 228, 484]


def test_p1_is_the_first_layer_of_the_stem():
    """7 x 7 of stride 2, before the pooling: 7 px, which the authors do not use."""
    assert resnet_receptive_fields(50, [1, 2]) == [7, 35]
    assert resnet_receptive_fields(18, [1]) == [7]


def test_bad_input():
    with pytest.raises(ValueError, match="depth must be one of"):
        resnet_receptive_fields(51, [3])
    with pytest.raises(ValueError, match="no pyramid level 0: levels start at 1"):
        resnet_receptive_fields(50, [0, 3])
    assert resnet_receptive_fields(50, []) == []
