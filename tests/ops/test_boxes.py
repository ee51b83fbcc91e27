"""Points and boxes: by hand, against the records, and there and back."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from rfla.ops.boxes import (
    boxes_to_distance,
    clip_boxes,
    distance_to_boxes,
    flatten_levels,
    pad_boxes,
    starts_of,
)


def test_by_hand():
    points = torch.tensor([[10.0, 20.0]])
    assert distance_to_boxes(points, torch.tensor([[1.0, 2, 3, 4]])).tolist() == [[9, 18, 13, 24]]
    # the point lies left of the box: a negative distance
    assert boxes_to_distance(points, torch.tensor([[12.0, 15, 20, 21]])).tolist() == [
        [-2, 5, 10, 1]
    ]


def test_several_images_by_hand():
    """(B, P, 4): the point less left and top, plus right and bottom."""
    points = torch.tensor([[[10.0, 20.0]], [[1.0, 2.0]]])
    distances = torch.tensor([[[1.0, 2, 3, 4]]] * 2)
    boxes = distance_to_boxes(points, distances)
    assert boxes.tolist() == [[[9, 18, 13, 24]], [[0, 0, 4, 6]]]
    assert boxes_to_distance(points, boxes).tolist() == distances.tolist()


def test_starts_by_hand():
    assert starts_of([2, 0, 3]) == [0, 2, 2]
    assert starts_of([]) == []


@given(st.lists(st.floats(-500, 500, width=32), min_size=6, max_size=6))
def test_there_and_back(numbers):
    points, boxes = torch.tensor([numbers[:2]]), torch.tensor([numbers[2:]])
    torch.testing.assert_close(
        distance_to_boxes(points, boxes_to_distance(points, boxes)), boxes, rtol=0, atol=1e-3
    )


def test_recorded_decoding(parity):
    _, tensors = parity("components")
    boxes = distance_to_boxes(tensors["d2b.points"], tensors["d2b.dist"])
    torch.testing.assert_close(boxes, tensors["d2b.out"])
    clipped = clip_boxes(boxes[None], torch.tensor([[80, 90]]))[0]
    torch.testing.assert_close(clipped, tensors["d2b.clip"])


def test_padding():
    boxes, labels = pad_boxes(
        [torch.ones(2, 4), torch.zeros(0, 4)], [torch.tensor([3, 4]), torch.zeros(0).long()]
    )
    assert boxes.shape == (2, 2, 4)
    assert labels.tolist() == [[3, 4], [0, 0]]
    boxes, labels = pad_boxes([torch.zeros(0, 4)], [torch.zeros(0).long()])
    assert boxes.shape == (1, 1, 4)
    boxes, labels = pad_boxes([torch.zeros(0), torch.ones(1, 4)], [torch.zeros(0), torch.ones(1)])
    assert (boxes.sum(dim=2).tolist(), labels.tolist()) == ([[0], [4]], [[0], [1]])


def test_levels_flatten_in_the_order_of_the_grid():
    level = torch.arange(12.0).reshape(
        1, 4, 1, 3
    )  # two priors of two values, one row, three columns
    assert flatten_levels([level], 2)[0].tolist() == [
        [0, 3],
        [6, 9],
        [1, 4],
        [7, 10],
        [2, 5],
        [8, 11],
    ]
    assert flatten_levels([level, level[:, :, :, :1]], 2).shape == (1, 8, 2)
