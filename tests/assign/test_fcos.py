"""FCOS points by hand; the records of whole FCOS targets are compared in tests/models."""

import pytest
import torch

from rfla.assign import PointsAssigner, PriorGrid


@pytest.fixture
def grid():
    return PriorGrid.points(
        [(1, 4), (1, 2)], [8, 16], [8, 16]
    )  # centres 4, 12, 20, 28 and 8, 24; rows 4 and 8


def test_inside_and_ranges(grid):
    boxes = torch.tensor([[0.0, 0.0, 32.0, 16.0]])
    # the greatest distance to a side: 28, 20, 20, 28 on the first level, 24 and 24 on the second
    assert PointsAssigner([(-1, 20), (20, 1e8)])(grid, boxes).tolist() == [-1, 0, 0, -1, 0, 0]
    assert PointsAssigner([(-1, 64), (64, 1e8)])(grid, boxes).tolist() == [0, 0, 0, 0, -1, -1]


def test_border_points_are_outside(grid):
    boxes = torch.tensor([[4.0, 0.0, 20.0, 16.0]])  # 4 and 20 lie on the sides
    assert PointsAssigner([(-1, 64), (64, 1e8)])(grid, boxes).tolist() == [-1, 0, -1, -1, -1, -1]


def test_a_point_half_a_px_inside_counts(grid):
    boxes = torch.tensor([[3.5, 3.5, 4.5, 4.5]])  # about the point (4, 4)
    assert PointsAssigner([(-1, 64), (64, 1e8)])(grid, boxes).tolist() == [0, -1, -1, -1, -1, -1]


def test_center_sampling(grid):
    boxes = torch.tensor(
        [[0.0, 0.0, 32.0, 16.0]]
    )  # centre 16, 8; radius 0.75 * 8 = 6 reaches 12 and 20, and row 4
    assigner = PointsAssigner([(-1, 64), (64, 1e8)], center_radius=0.75)
    assert assigner(grid, boxes).tolist() == [-1, 0, 0, -1, -1, -1]


def test_the_smallest_box_wins_then_the_first(grid):
    boxes = torch.tensor([[0.0, 0.0, 32.0, 16.0], [0.0, 0.0, 16.0, 16.0], [0.0, 0.0, 16.0, 16.0]])
    assert PointsAssigner([(-1, 64), (64, 1e8)])(grid, boxes).tolist() == [1, 1, 0, 0, -1, -1]


def test_ignore_and_image_size(grid):
    boxes = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
    assigner = PointsAssigner([(-1, 64), (64, 1e8)])
    ignore = torch.tensor(
        [[16.0, 0.0, 24.0, 8.0]]
    )  # all of the third field; a quarter of the last one
    assert assigner(grid, boxes, ignore).tolist() == [0, 0, -2, -1, -1, -1]
    assert assigner(grid, boxes, image_size=(8, 24)).tolist() == [0, 0, -1, -2, -1, -1]
    assert assigner(grid, boxes[:0]).tolist() == [-1] * 6
    assert assigner.batch(grid, [boxes, boxes[:0]]).shape == (2, 6)


def test_ranges_must_fit_the_levels(grid):
    with pytest.raises(ValueError, match="1 regress ranges for 2 levels"):
        PointsAssigner([(-1, 1e8)])(grid, torch.zeros(0, 4))
