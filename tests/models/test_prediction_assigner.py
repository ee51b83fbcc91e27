"""Assignment by prediction: its rules by hand, and what RFD learns with it."""

import math

import pytest
import torch

from rfla.assign import PriorGrid
from rfla.models import build_detector
from rfla.models.prediction_assigner import (
    assign_by_prediction,
    best_by_sum_of_fit,
    posterior_score,
)

SMALL = {
    "backbone": "resnet18",
    "neck.width": 32,
    "head.width": 32,
    "head.depth": 1,
    "backbone.frozen_stages": -1,
    "backbone.norm_eval": False,
}


def test_the_fit_counts_twice():
    assert posterior_score(torch.tensor(0.5), torch.tensor(0.8)).item() == pytest.approx(0.32)


def test_as_many_as_the_sum_of_the_fits():
    posterior = torch.tensor([[0.1, 0.4, 0.3], [0.2, 0.2, 0.1]])
    fit = torch.tensor([[0.9, 0.7, 0.1], [0.1, 0.1, 0.0]])  # 1.7: two; 0.2: at least one
    assert best_by_sum_of_fit(posterior, fit).tolist() == [
        [False, True, True],
        [True, False, False],
    ]


def case(scores, boxes):
    """Four points in a row, 2 to 14 px, and a box of 4 px on the second; 2 classes."""
    grid = PriorGrid.points([(1, 4)], [4], [8])
    target = {"boxes": torch.tensor([[4.0, 0, 8, 4]]), "labels": torch.tensor([1])}
    logits = torch.full((1, 4, 2), -20.0)
    logits[0, :, 1] = torch.tensor(scores).logit()
    return grid, [target], logits, torch.tensor([boxes])


def test_the_best_predictions_of_the_candidates_by_hand():
    """Of its three candidates, 1, 0 and 2, the third predicts the box exactly.

    The other two predict boxes far away: the fits add up to 1, so one is positive. The fourth point
    is exact too, but no candidate.
    """
    exact, far = [4.0, 0, 8, 4], [104.0, 0, 108, 4]
    arguments = case([0.9, 0.9, 0.1, 0.9], [far, far, exact, exact])
    matched = torch.tensor([[0, 0, 0, -2]])
    found = assign_by_prediction(*arguments, matched, 3)
    assert found.tolist() == [[-1, -1, 0, -2]]


def test_two_boxes_share_by_posterior_and_the_loser_is_rescued():
    """All points predict the second box; the first still gets one of the points."""
    grid, _, logits, _ = case([0.5] * 4, [[0.0, 0, 4, 4]] * 4)
    target = {
        "boxes": torch.tensor([[4.0, 0, 8, 4], [8.0, 0, 12, 4]]),
        "labels": torch.tensor([1, 1]),
    }
    predicted = torch.tensor([[[8.0, 0, 12, 4]] * 4])
    found = assign_by_prediction(grid, [target], logits, predicted, torch.full((1, 4), -1), k=4)
    assert sorted(found[0].tolist()) == [0, 1, 1, 1]


def test_no_boxes():
    grid, _, logits, boxes = case([0.5] * 4, [[0.0, 0, 4, 4]] * 4)
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    matched = torch.tensor([[-1, -2, -1, -1]])
    assert torch.equal(assign_by_prediction(grid, [nothing], logits, boxes, matched, 3), matched)


def test_it_is_off_by_default_and_learns_when_on():
    torch.manual_seed(0)
    assert build_detector("rfd", 2, settings=SMALL).posterior == 0
    net = build_detector("rfd", 2, settings=SMALL | {"assigner.posterior": 12}).train()
    targets = [
        {
            "boxes": torch.tensor([[8.0, 8, 14, 15], [40, 30, 43, 33]]),
            "labels": torch.tensor([0, 1]),
        },
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    step = net(torch.randn(2, 3, 64, 64), targets, with_counts=True)
    assert int(step.counts["positives"]) >= 2  # no box is without
    assert all(math.isfinite(value.item()) for value in step.losses.values())
    sum(step.losses.values()).backward()
    assert [key for key, value in net.named_parameters() if value.grad is None] == []
