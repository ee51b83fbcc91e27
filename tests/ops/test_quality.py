"""Fit of a predicted box: hand-worked IoU and Gaussian similarity, degenerate and empty input."""

import math

import pytest
import torch

from rfla.ops.quality import localization_quality


@pytest.mark.parametrize(
    ("pred", "iou", "gaussian"),
    [
        ([0.0, 0, 4, 4], 1.0, 1.0),
        # shifted by half a side: overlap 2 x 4 of a union of 24; W = 2, sqrt(w h) = 4
        ([2.0, 0, 6, 4], 1 / 3, math.exp(-1)),
        # twice as large about the same centre: overlap 16 of 64; W = sqrt((16 + 16) / 4)
        ([-2.0, -2, 6, 6], 1 / 4, math.exp(-2 * math.sqrt(8) / 4)),
        # beside the box: no overlap, yet a slope remains; W = 4
        ([4.0, 0, 8, 4], 0.0, math.exp(-2)),
    ],
)
def test_pairs_by_hand(pred, iou, gaussian):
    pair = torch.tensor([pred]), torch.tensor([[0.0, 0, 4, 4]])
    assert localization_quality(*pair, "iou").item() == pytest.approx(iou, abs=1e-6)
    assert localization_quality(*pair, "gaussian").item() == pytest.approx(gaussian, abs=1e-6)
    best = max(iou, gaussian)
    assert localization_quality(*pair, "max").item() == pytest.approx(best, abs=1e-6)


def test_points_and_nothing_stay_finite():
    point = torch.tensor([[3.0, 3, 3, 3]])
    for kind in ("iou", "gaussian", "max"):
        assert localization_quality(point, point, kind).isfinite().all()
        assert localization_quality(torch.zeros(0, 4), torch.zeros(0, 4), kind).shape == (0,)


def test_no_gradient_flows_into_the_box():
    pred = torch.tensor([[0.0, 0, 4, 4]], requires_grad=True)
    assert not localization_quality(pred, torch.tensor([[1.0, 0, 5, 4]])).requires_grad
