"""Claims on priors and the rescue of boxes without any, worked by hand."""

import pytest
import torch

from rfla.assign import HierarchicalAssigner, PriorGrid
from rfla.assign.claims import claim, rescue
from rfla.errors import ConfigError


def test_the_highest_score_wins_and_of_equal_ones_the_last_box():
    place = torch.tensor([[0, 1, 2], [1, 2, 3], [3, 2, 0]])
    score = torch.tensor([[0.9, 0.2, 0.5], [0.3, 0.5, 0.0], [0.4, 0.7, 1.0]])
    wanted = torch.tensor([[True, True, True], [True, True, True], [False, False, False]])
    # 0 goes to box 0; 1 to box 1 by 0.3 > 0.2; 2 to box 1, an equal later one; 3 to box 1 with 0
    assert claim(place, score, wanted, 5).tolist() == [0, 1, 1, 1, -1]


def test_rescue_by_hand():
    """Box 0 holds places 0 and 1, box 1 place 2, box 2 none, and place 3 is ignored."""
    owner = torch.tensor([0, 0, 1, -2, -1])
    place = torch.tensor([[0, 1], [2, 3], [2, 1]])
    score = torch.tensor([[0.9, 0.8], [0.9, 0.8], [0.7, 0.6]])
    # Place 2 scores more, but is all that box 1 has.
    assert rescue(owner, place, score).tolist() == [0, 2, 1, -2, -1]
    # A candidate that does not exist is none.
    score[2, 1] = -torch.inf
    assert rescue(owner, place, score).tolist() == [0, 0, 1, -2, -1]
    # A free place is taken, also one that was ignored.
    place[2, 1], score[2, 1] = 3, 0.1
    assert rescue(owner, place, score).tolist() == [0, 0, 1, 2, -1]


def test_two_that_want_the_same_are_settled_by_score():
    owner = torch.tensor([-1, -1])
    place, score = torch.tensor([[0], [0]]), torch.tensor([[0.4], [0.3]])
    assert rescue(owner, place, score).tolist() == [0, -1]


def test_the_assigner_rescues_a_box_that_lost_all():
    """Two equal boxes: the last one gets every prior, the first then takes the next nearest."""
    grid = PriorGrid.points([(1, 6)], [4], [8])  # centres 2, 6, ..., 22
    boxes = torch.tensor([[8.0, 0.0, 12.0, 4.0], [8.0, 0.0, 12.0, 4.0]])
    plain = HierarchicalAssigner(topk=(3, 1), ignore_above=None)
    assert plain(grid, boxes).tolist() == [-1, 1, 1, 1, -1, -1]
    helped = HierarchicalAssigner(topk=(3, 1), ignore_above=None, rescue=True)
    assert helped(grid, boxes).tolist() == [-1, 1, 0, 1, -1, -1]
    report = helped.explain(grid, boxes)
    assert report.without_positive == ()
    # Each image on its own, also one without boxes.
    many = helped.batch(grid, [boxes[:0], boxes, boxes[:1]])
    assert many[0].tolist() == [-1] * 6
    assert many[1].tolist() == [-1, 1, 0, 1, -1, -1]
    assert many[2].tolist() == plain(grid, boxes[:1]).tolist()


def test_a_rescue_needs_a_grid():
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    with pytest.raises(ConfigError, match=r"assigner\.rescue needs a grid"):
        HierarchicalAssigner(rescue=True)(boxes, boxes)
