"""Fit of a predicted box: hand-worked IoU and Gaussian similarity, degenerate and empty input."""

import math

import pytest
import torch

from rfla.assign import receptive_field_distance
from rfla.ops.quality import centerness, localization_quality


def test_centerness_by_hand():
    """At the centre 1; a quarter off along x: sqrt(1 / 3); outside: 0, or by the floor."""
    distances = torch.tensor([[4.0, 2, 4, 2], [2, 2, 6, 2], [-1, 2, 9, 2]])
    expected = torch.tensor([1.0, (1 / 3) ** 0.5, 0])
    torch.testing.assert_close(centerness(distances), expected)
    floored = centerness(distances, floor=0.01)
    torch.testing.assert_close(floored[2], torch.tensor((0.01 / 9) ** 0.5))
    torch.testing.assert_close(floored[:2], expected[:2])


@pytest.mark.parametrize(
    ("pred", "iou", "gaussian", "kl"),
    [
        ([0.0, 0, 4, 4], 1.0, 1.0, 1.0),
        # shifted by half a side: overlap 2 x 4 of a union of 24; W = 2, sqrt(w h) = 4;
        # KL = 4 (2 / 4)^2 / 2
        ([2.0, 0, 6, 4], 1 / 3, math.exp(-1), 1 / 1.5),
        # twice as large about the same centre: overlap 16 of 64; W = sqrt((16 + 16) / 4);
        # KL = 2 (4 - 1 - ln 4) / 2
        ([-2.0, -2, 6, 6], 1 / 4, math.exp(-2 * math.sqrt(8) / 4), 1 / (4 - math.log(4))),
        # beside the box: no overlap, yet a slope remains; W = 4; KL = 4 / 2
        ([4.0, 0, 8, 4], 0.0, math.exp(-2), 1 / 3),
    ],
)
def test_pairs_by_hand(pred, iou, gaussian, kl):
    pair = torch.tensor([pred]), torch.tensor([[0.0, 0, 4, 4]])
    assert localization_quality(*pair, "iou").item() == pytest.approx(iou, abs=1e-6)
    assert localization_quality(*pair, "gaussian").item() == pytest.approx(gaussian, abs=1e-6)
    assert localization_quality(*pair, "kl").item() == pytest.approx(kl, abs=1e-6)
    best = max(iou, gaussian)
    assert localization_quality(*pair, "max").item() == pytest.approx(best, abs=1e-6)


def test_kl_is_how_rfla_scores_a_field():
    """The predicted box in the place of the field, with sides that differ."""
    pred, gt = torch.tensor([[1.0, 2, 9, 5]]), torch.tensor([[3.0, 1, 8, 8]])
    scores = receptive_field_distance(gt, pred, "kld")
    torch.testing.assert_close(localization_quality(pred, gt, "kl"), scores[0])


def test_points_and_nothing_stay_finite():
    point = torch.tensor([[3.0, 3, 3, 3]])
    for kind in ("iou", "gaussian", "max", "kl"):
        assert localization_quality(point, point, kind).isfinite().all()
        assert localization_quality(torch.zeros(0, 4), torch.zeros(0, 4), kind).shape == (0,)


def test_no_gradient_flows_into_the_box():
    pred = torch.tensor([[0.0, 0, 4, 4]], requires_grad=True)
    assert not localization_quality(pred, torch.tensor([[1.0, 0, 5, 4]])).requires_grad


def test_iou_of_oblong_boxes_by_hand():
    """1 x 4 px in common, of 12 + 8 - 4, either way round."""
    first, second = [0.0, 0, 2, 6], [1.0, 0, 3, 4]
    pred, gt = torch.tensor([first, second]), torch.tensor([second, first])
    assert localization_quality(pred, gt, "iou").tolist() == pytest.approx([0.25, 0.25])


@pytest.mark.parametrize(
    ("kind", "expected"), [("gaussian", math.exp(-1)), ("kl", 1 / (math.log(4) + 0.5))]
)
def test_the_true_box_measures_the_fit(kind, expected):
    """4 x 4 px in 8 x 8: a shift of 2 px along both axes, W = sqrt(8 + 32 / 4) = 4 by a side of 8.

    KL = 2 (1 / 4 - 1 + ln 4 + 4 (2 / 8)^2) / 2. The other way round both differ.
    """
    pred, gt = torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([[0.0, 0, 8, 8]])
    assert localization_quality(pred, gt, kind).item() == pytest.approx(expected)
