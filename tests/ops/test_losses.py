"""Losses: hand-worked values, the authors' recorded values and gradients, degenerate boxes."""

import math

import pytest
import torch

from rfla.ops.losses import (
    box_loss,
    focal_loss,
    log_losses,
    quality_focal_loss,
    smooth_l1,
    varifocal_loss,
)

NAMES = {"iou": "IoULoss", "giou": "GIoULoss", "diou": "DIoULoss", "ciou": "CIoULoss"}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # boxes (0,0,2,2) and (1,0,3,2): overlap 2, union 6, hull 3 x 2, centres 1 apart
        ("iou", math.log(3)),
        ("giou", 1 - 1 / 3),  # the hull is the union
        ("diou", 1 - 1 / 3 + 1 / 13),
        ("ciou", 1 - 1 / 3 + 1 / 13),  # equal shapes: no aspect penalty
    ],
)
def test_two_boxes_by_hand(kind, expected):
    loss = box_loss(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]]), kind)
    assert loss.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", list(NAMES))
def test_recorded_box_losses(parity, kind):
    manifest, tensors = parity("components")
    case = next(case for case in manifest["cases"] if case["id"] == NAMES[kind])
    expected = tensors[f"iou.{NAMES[kind]}.none"]
    pred = tensors["iou.pred"].clone().requires_grad_()
    loss = box_loss(pred, tensors["iou.target"], kind)
    assert loss.isfinite().all()
    known = (
        expected.isfinite()
    )  # the official CIoU divides 0 by 0 where boxes coincide; ours is 0 there
    torch.testing.assert_close(loss[known], expected[known], rtol=1e-5, atol=1e-5)
    mean = (loss * tensors["iou.weight"]).sum() / 7.5
    mean.backward()
    gradient = tensors[f"iou.{NAMES[kind]}.grad"]
    rows = known & gradient.isfinite().all(dim=1)
    torch.testing.assert_close(pred.grad[rows], gradient[rows], rtol=1e-4, atol=1e-6)
    if known.all():
        assert mean.item() == pytest.approx(case["value_weighted_avg_factor_7_5"], rel=1e-5)


@pytest.mark.parametrize("kind", list(NAMES))
def test_degenerate_boxes_stay_finite(kind):
    pred = torch.tensor(
        [[3.0, 3, 3, 3], [0, 0, 0, 5], [1, 1, 2, 2], [0, 0, 1e5, 1e5]], requires_grad=True
    )
    target = torch.tensor(
        [[3.0, 3, 3, 3], [0, 0, 4, 5], [1, 1, 2, 2], [5e4, 5e4, 5e4 + 2, 5e4 + 2]]
    )
    loss = box_loss(pred, target, kind)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert pred.grad.isfinite().all()


def test_a_box_of_zero_width_can_grow():
    pred = torch.tensor([[1.0, 0, 1, 2]], requires_grad=True)
    box_loss(pred, torch.tensor([[0.0, 0, 2, 2]]), "diou").backward()
    assert pred.grad[0, 2] < -0.1


@pytest.mark.parametrize("kind", list(NAMES))
def test_no_boxes(kind):
    assert box_loss(torch.zeros(0, 4), torch.zeros(0, 4), kind).shape == (0,)


def test_focal_by_hand():
    """-alpha_t (1 - p_t)^gamma ln p_t, at p = 1/2.

    0.25 * 0.25 * ln 2 for a positive, 0.75 * 0.25 * ln 2 for a negative.
    """
    loss = focal_loss(torch.zeros(2), torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(loss, torch.tensor([0.0625, 0.1875]) * math.log(2))


def test_recorded_focal(parity):
    manifest, tensors = parity("components")
    case = next(case for case in manifest["cases"] if case["id"] == "FocalLoss")
    logits, labels = tensors["cls.logits"], tensors["cls.labels"].long()
    logits = logits[:, :8]
    one_hot = labels[:, None] == torch.arange(8)
    losses = focal_loss(logits, one_hot)
    assert losses.sum().item() / 11 == pytest.approx(case["no_weight_avg_factor_11"], rel=1e-5)
    weighed = (losses * tensors["cls.weight"][:, None]).sum().item() / 11
    assert weighed == pytest.approx(case["weight_avg_factor_11"], rel=1e-5)


def test_focal_equals_torchvision():
    from torchvision.ops import sigmoid_focal_loss

    logits = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * 8
    targets = (torch.arange(200).reshape(50, 4) % 7 == 0).float()
    torch.testing.assert_close(
        focal_loss(logits, targets), sigmoid_focal_loss(logits, targets), rtol=1e-4, atol=1e-6
    )
    torch.testing.assert_close(
        focal_loss(logits, targets, 0.4, 1.5),
        sigmoid_focal_loss(logits, targets, 0.4, 1.5),
        rtol=1e-4,
        atol=1e-6,
    )


def test_half_precision_comes_out_in_float32():
    assert focal_loss(torch.full((3,), -70.0, dtype=torch.float16), torch.ones(3)).isfinite().all()
    assert box_loss(torch.ones(1, 4).half(), torch.ones(1, 4).half()).dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "beta"), [("L1", 0.0), ("SmoothL1_beta_1_9", 1 / 9), ("SmoothL1_beta_1", 1.0)]
)
def test_recorded_smooth_l1(parity, name, beta):
    manifest, tensors = parity("components")
    case = next(case for case in manifest["cases"] if case["id"] == name)
    losses = smooth_l1(tensors["reg.pred"], tensors["reg.target"], beta) * tensors["reg.weight"]
    assert losses.sum().item() / 25 == pytest.approx(case["value_weight_avg_factor_25"], rel=1e-5)


@pytest.mark.parametrize(("beta", "expected"), [(1.0, [0.125, 1.5]), (0.0, [0.5, 2.0])])
def test_smooth_l1(beta, expected):
    """0.5 x^2 / beta below beta, x - beta / 2 above."""
    torch.testing.assert_close(
        smooth_l1(torch.tensor([0.5, 2.0]), torch.zeros(2), beta), torch.tensor(expected)
    )


@pytest.mark.parametrize(
    ("logit", "quality", "expected"),
    [
        (0.0, 0.5, 0.0),  # the score is the quality
        (0.0, 1.0, 0.25 * math.log(2)),  # |1 - 1/2|^2 times -ln(1/2)
        (0.0, 0.0, 0.25 * math.log(2)),  # background scores 1/2
        # p = 1/4, q = 3/4: |q - p|^2 = 1/4 times -(3/4 ln(1/4) + 1/4 ln(3/4))
        (-math.log(3), 0.75, 0.25 * (0.75 * math.log(4) - 0.25 * math.log(0.75))),
    ],
)
def test_quality_focal_loss_by_hand(logit, quality, expected):
    """|q - p|^2 times the cross-entropy of p against the soft target q."""
    loss = quality_focal_loss(torch.tensor([logit]), torch.tensor([quality]))
    assert loss.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("quality", "expected"),
    [
        (0.0, 0.75 * 0.25 * math.log(2)),  # a negative: alpha p^2 times the cross-entropy
        (0.5, 0.5 * math.log(2)),  # the quality times the cross-entropy, which is ln 2 for any q
        (1.0, math.log(2)),
    ],
)
def test_varifocal_loss_by_hand(quality, expected):
    """The probability is a half."""
    loss = varifocal_loss(torch.tensor([0.0]), torch.tensor([quality]))
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    heavier = varifocal_loss(torch.tensor([0.0]), torch.tensor([quality]), alpha=0.5, gamma=1)
    negative = 0.5 * 0.5 * math.log(2)
    assert heavier.item() == pytest.approx(expected if quality else negative, abs=1e-6)


def test_quality_focal_loss_pulls_towards_the_quality():
    logits = torch.tensor([-2.0, 2.0], requires_grad=True)
    quality_focal_loss(logits, torch.tensor([0.6, 0.6])).sum().backward()
    assert logits.grad[0] < 0 < logits.grad[1]


@pytest.mark.parametrize("target", [0, 1])
def test_log_losses_equal_binary_cross_entropy(target):
    values = torch.tensor([0.0, 1e-30, 1e-7, 0.3, 0.999, 1 - 2**-24, 1.0], requires_grad=True)
    expected = torch.nn.functional.binary_cross_entropy(
        values, torch.full_like(values, target), reduction="none"
    )
    found = log_losses(values, target)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert values.grad.isfinite().all()
    # -1 / p for a positive, 1 / (1 - p) for a negative, at 0.3
    assert values.grad[3].item() == pytest.approx(-1 / 0.3 if target else 1 / 0.7)


@pytest.mark.parametrize("target", [0, 1])
def test_log_losses_hand_a_nan_on(target):
    """torch's binary cross entropy ends the process there, on a GPU without a way back."""
    found = log_losses(torch.tensor([0.5, torch.nan]), target)
    assert found.isnan().tolist() == [False, True]
