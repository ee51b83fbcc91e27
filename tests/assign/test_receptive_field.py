"""Receptive fields by hand: 1 + sum of (kernel - 1) * dilation * product of the strides before."""

import pytest

from rfla.assign import (
    Layer,
    full_receptive_fields,
    resnet_receptive_fields,
    theoretical_receptive_fields,
)


def test_three_layers_by_hand():
    # 1 + 6 = 7; then cells are 2 px apart: 7 + 2 * 2 = 11; then 4 px apart, dilation 2: 11 + 2 * 2
    # * 4 = 27
    path = [Layer(7, stride=2, level=1), Layer(3, stride=2, level=2), Layer(3, dilation=2, level=3)]
    assert theoretical_receptive_fields(path) == {1: 7, 2: 11, 3: 27}


@pytest.mark.parametrize(
    ("depth", "fields"),
    [
        (50, [35, 91, 267, 427, 555, 811]),  # what the authors wrote down
        (18, [43, 99, 211, 435, 563, 819]),  # basic blocks: two 3 x 3 layers each
        (34, [59, 179, 547, 899, 1027, 1283]),
        (101, [35, 91, 811, 971, 1099, 1355]),
    ],
)
def test_resnet_by_the_authors_counting(depth, fields):
    assert resnet_receptive_fields(depth, range(2, 8)) == fields
    assert resnet_receptive_fields(depth, [3, 5]) == [fields[1], fields[3]]


def test_caffe_style_strides_in_the_1x1_layer():
    # the 3 x 3 of the first block of C3 then sees cells 8 px apart instead of 4: 8 px more at C3,
    # 24 at C4, 56 at C5
    assert resnet_receptive_fields(50, [2, 3, 4, 5], style="caffe") == [35, 99, 291, 483]


def test_full_count_by_hand():
    # P5 output 3 x 3 on C5: 427 + 2 * 32; a head of one 3 x 3 and a predicting 3 x 3 adds 4 * 32
    assert full_receptive_fields(50, [5], head_depth=-1) == [427 + 64]
    assert full_receptive_fields(50, [5], head_depth=1) == [427 + 64 + 128]
    # P6: 3 cells of P5, that is 5 cells of C5
    assert full_receptive_fields(50, [6], head_depth=-1) == [427 + 4 * 32]
    assert full_receptive_fields(50, range(2, 8)) == [
        491,
        523,
        619,
        811,
        1195,
        1963,
    ]  # the table of docs/method.md
    # P4 sees 3 of its cells, which lie in at most 2 cells of C5
    assert full_receptive_fields(50, [4], head_depth=-1) == [427 + 32]


def test_bad_input():
    with pytest.raises(ValueError, match="depth must be one of"):
        resnet_receptive_fields(51, [3])
    with pytest.raises(ValueError, match="no pyramid level 1"):
        resnet_receptive_fields(50, [1, 3])
    assert resnet_receptive_fields(50, []) == []
