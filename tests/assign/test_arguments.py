"""What every assigner refuses: in one line that names the argument."""

import numpy as np
import pytest
import torch

from rfla.assign import HierarchicalAssigner, PriorGrid, receptive_field_distance
from rfla.errors import ConfigError

GRID = PriorGrid.points([(2, 2)], [4], [8])
BOX = torch.tensor([[1.0, 1.0, 5.0, 5.0]])
SCORED = torch.tensor([[1.0, 1.0, 5.0, 5.0, 0.9]] * 4)  # twenty numbers would be five boxes


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda a: a(GRID, SCORED), r"gt_boxes: \(G, 4\) x1, y1, x2, y2 expected, not \(4, 5\)"),
        (lambda a: a(GRID, BOX, SCORED), r"ignore_boxes: \(G, 4\) .* not \(4, 5\)"),
        (lambda a: a(SCORED, BOX), r"priors: \(G, 4\) .* not \(4, 5\)"),
        (lambda a: a(GRID, [[1, 1, 5, 5]]), "gt_boxes: a tensor expected, not list"),
        (lambda a: a(GRID, np.ones((1, 4))), "gt_boxes: a tensor expected, not ndarray"),
        (lambda a: a.batch(GRID, [BOX, BOX], [None]), "ignore_boxes: one for each of 2 images"),
        (lambda a: a.batch(GRID, [BOX, BOX], None, [(8, 8)]), "image_sizes: one for each of 2"),
        (lambda a: a.batch([BOX], [BOX, BOX]), "priors: one for each of 2 images expected, not 1"),
        (lambda a: a.batch(BOX, [BOX]), "priors: a grid, or a list with a .* tensor for each"),
        (lambda a: a.batch([BOX, BOX[:0]], [BOX, BOX]), "priors: the same number for all images"),
    ],
)
def test_arguments_that_do_not_go_together(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call(HierarchicalAssigner())


@pytest.mark.parametrize("topk", [3, None, (3, float("nan")), ("a", "b"), (2.7, 1), (3, 0), (1,)])
def test_numbers_of_priors(topk) -> None:
    with pytest.raises(ConfigError, match=r"assigner.topk: two whole numbers from 1"):
        HierarchicalAssigner(topk=topk)


@pytest.mark.parametrize("decay", [0, -1, float("nan"), float("inf"), "x", None])
def test_factors(decay) -> None:
    with pytest.raises(ConfigError, match=r"assigner.decay: a number above 0, not "):
        HierarchicalAssigner(decay=decay)


@pytest.mark.parametrize("word", [None, 3, "kdl"])
def test_words(word) -> None:
    with pytest.raises(ConfigError, match="no distance"):
        HierarchicalAssigner(distance=word)
    with pytest.raises(ConfigError, match=r"assigner.conflict: .* is not one of last, smallest"):
        HierarchicalAssigner(conflict=word)


def test_no_priors_at_all() -> None:
    assert HierarchicalAssigner().batch([torch.zeros(0, 4)] * 2, [BOX, BOX]).shape == (2, 0)
    assert HierarchicalAssigner()(torch.zeros(0, 4), BOX).tolist() == []


def test_a_column_of_scores_is_no_part_of_the_distance() -> None:
    """The authors' function takes boxes with scores and reads their first four columns."""
    priors = torch.tensor([[0.0, 0, 4, 4], [2, 2, 6, 6], [1, 1, 5, 5]])
    plain = receptive_field_distance(SCORED[:, :4], priors)
    assert receptive_field_distance(SCORED, priors).equal(plain) and plain.shape == (4, 3)
    assert plain[:, 2].tolist() == [1.0] * 4
    for boxes in (torch.ones(2, 6), torch.ones(2, 3, 4), torch.ones(4)):
        with pytest.raises(ValueError, match=r"gt_boxes: \(G, 4\) x1, y1, x2, y2 expected"):
            receptive_field_distance(boxes, priors)


@pytest.mark.parametrize("stride", [4.5, 0, -4])
def test_strides_are_whole(stride) -> None:
    with pytest.raises(ValueError, match=r"level 0 has a stride of .*; whole px from 1 expected"):
        PriorGrid.points([(4, 4)], [stride], [8])
