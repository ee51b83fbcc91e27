"""Scores that learn how well a box sits, in RetinaNet and the RPN, and AutoAssign's signed code.

Anchors and points are given to boxes by hand. In the anchor heads the positive one predicts itself
moved by half its side along x: IoU 1 / 3, and with W half a side exp(-1) as Gaussians. Or, half as
large in both directions, W = sqrt(2 (s / 2)^2 / 4) of its side s: exp(-sqrt(2) / 2).
"""

import math

import pytest
import torch

from rfla.models import build_detector
from rfla.models.points import quality_class_loss

SMALL = {
    "backbone": "resnet18",
    "neck.width": 32,
    "head.width": 32,
    "head.depth": 1,
    "backbone.frozen_stages": -1,
}
SIZES = [(32, 32)]
IGNORED = -2
SQUARE = 1
"""The second of the three ratios."""


class Given:
    """An assigner that says what it was told."""

    def __init__(self, matched):
        self.matched = matched

    def batch(self, *_):
        return self.matched


def net_with(name, **settings):
    torch.manual_seed(0)
    dotted = {key.replace("__", "."): value for key, value in settings.items()}
    return build_detector(name, 2, settings=SMALL | dotted)


def levels(net, channels, value):
    sides = [-(-32 // stride) for stride in net.neck.strides]
    return [torch.full((1, channels, side, side), value) for side in sides]


def half_a_side_off(reg):
    """The square anchor of the first cell predicts itself half a side to the right."""
    reg[0][0, 4 * SQUARE, 0, 0] = 0.5
    return reg


def half_as_large(reg):
    """The square anchor of the first cell predicts itself with sides half as long."""
    half = math.log(0.5)
    reg[0][0, 4 * SQUARE : 4 * (SQUARE + 1), 0, 0] = torch.tensor([0.0, 0.0, half, half])
    return reg


def retina_case(move=half_a_side_off, **settings):
    """A net, its raw predictions and a target of label 1 that is the first square anchor.

    One further anchor is background; the others are ignored.
    """
    net = net_with("retinanet", **settings)
    raw = {"cls": levels(net, 3 * 2, -20.0), "reg": move(levels(net, 3 * 4, 0.0))}
    grid = net.grid(raw)
    matched = torch.full((1, len(grid)), IGNORED)
    matched[0, SQUARE], matched[0, 0] = 0, -1
    net.anchors.assigner = Given(matched)
    target = {"boxes": grid.boxes[[SQUARE]], "labels": torch.tensor([1])}
    return net, raw, target


@pytest.mark.parametrize(
    ("kind", "quality"), [("iou", 1 / 3), ("gaussian", math.exp(-1)), ("max", math.exp(-1))]
)
def test_retinanet_learns_the_fit_by_hand(kind, quality):
    """With logits of -20 the cross-entropy of a quality q is 20 q, its modulation q^2."""
    net, raw, target = retina_case(loss__quality=kind)
    losses, counts = net.loss(raw, [target], SIZES)
    assert int(counts["positives"]) == 1
    # Less than one unit of quality counts as one.
    assert losses["loss_cls"].item() == pytest.approx(20 * quality**3, rel=1e-4)
    net, raw, target = retina_case(loss__quality=kind, loss__cls="varifocal")
    losses, _ = net.loss(raw, [target], SIZES)
    assert losses["loss_cls"].item() == pytest.approx(20 * quality**2, rel=1e-4)


def test_the_true_box_measures_the_fit_in_retinanet():
    """By the side of the predicted box the Gaussian similarity of half a box would be smaller."""
    net, raw, target = retina_case(half_as_large, loss__quality="gaussian")
    losses, _ = net.loss(raw, [target], SIZES)
    quality = math.exp(-math.sqrt(2) / 2)
    assert losses["loss_cls"].item() == pytest.approx(20 * quality**3, rel=1e-4)


def test_retinanet_of_the_paper_learns_the_class_alone():
    net, raw, target = retina_case()
    assert net.quality == "none"
    losses, _ = net.loss(raw, [target], SIZES)
    assert losses["loss_cls"].item() == pytest.approx(0.25 * 20, rel=1e-4)


def rpn_losses(move=half_a_side_off, **settings):
    """Losses of one positive, moved and with a logit of 2, and one negative with a logit of 0."""
    net = net_with("faster_rcnn", **settings)
    rpn = net.rpn_head
    raw = {"objectness": levels(net, 3, 0.0), "reg": move(levels(net, 3 * 4, 0.0))}
    grid = rpn.anchors.grid(raw["objectness"])
    matched = torch.full((1, len(grid)), IGNORED)
    matched[0, SQUARE], matched[0, 0] = 0, -1
    raw["objectness"][0][0, SQUARE, 0, 0] = 2.0
    target = {"boxes": grid.boxes[[SQUARE]], "labels": torch.tensor([1])}
    return rpn.loss(raw, matched, [target], seeds=[0])


@pytest.mark.parametrize(
    ("kind", "quality"), [("none", 1.0), ("iou", 1 / 3), ("gaussian", math.exp(-1)), ("kl", 2 / 3)]
)
def test_objectness_learns_the_fit_by_hand(kind, quality):
    """Cross-entropy of the logit 2 against q: ln(1 + e^2) - 2 q; ln 2 of the negative."""
    losses = rpn_losses(rpn__quality=kind)
    expected = (math.log1p(math.exp(2)) - 2 * quality + math.log(2)) / 2
    assert losses["loss_rpn_cls"].item() == pytest.approx(expected, rel=1e-5)
    assert losses["loss_rpn_bbox"].item() == pytest.approx(0.5 / 2, rel=1e-5)


def test_the_true_box_measures_the_fit_in_the_rpn():
    """The same half of a box, by the same cross-entropies."""
    losses = rpn_losses(half_as_large, rpn__quality="gaussian")
    quality = math.exp(-math.sqrt(2) / 2)
    expected = (math.log1p(math.exp(2)) - 2 * quality + math.log(2)) / 2
    assert losses["loss_rpn_cls"].item() == pytest.approx(expected, rel=1e-5)


def test_the_fit_is_that_of_the_proposal_and_not_of_the_shrunken_anchor():
    losses = rpn_losses(rpn__quality="iou", rpn__target_anchor_scale=0.9)
    expected = (math.log1p(math.exp(2)) - 2 / 3 + math.log(2)) / 2
    assert losses["loss_rpn_cls"].item() == pytest.approx(expected, rel=1e-5)


def test_the_true_class_alone_learns_the_fit():
    """Two classes at probabilities 1 / 2 and 3 / 4 learn 0 and 0.8; the second point is ignored."""
    logits = torch.tensor([[[0.0, math.log(3)], [5.0, 5.0]]])
    labels, matched = torch.tensor([[1, 0]]), torch.tensor([[0, IGNORED]])
    fit = torch.tensor([[0.8, 0.0]])
    loss = quality_class_loss(logits, labels, fit, matched, "quality_focal", (0.25, 2.0))
    other = 0.5**2 * math.log(2)
    true = (0.8 - 0.75) ** 2 * (math.log(4) - 0.8 * math.log(3))
    assert loss.item() == pytest.approx(other + true)  # the sum of the fits, 0.8, counts as 1


def test_autoassign_sees_boxes_and_not_their_code():
    """Both codes of the same boxes give the same losses and detections."""
    by_distances = net_with("autoassign").eval()
    by_field = net_with("autoassign", loss__coding="field").eval()
    raw = by_distances.raw(torch.randn(1, 3, 64, 64))
    assert set(by_field.raw(torch.randn(1, 3, 64, 64))) == {"cls", "reg", "centerness"}
    code = by_field.coder(raw).encode(by_distances.boxes(raw))
    sizes = [level.shape[-2:] for level in raw["reg"]]
    parts = code.split([height * width for height, width in sizes], dim=1)
    signed = [part.mT.unflatten(2, size) for part, size in zip(parts, sizes, strict=True)]
    signed = raw | {"reg": signed}
    target = {
        "boxes": torch.tensor([[8.0, 8, 14, 15], [40, 30, 43, 33]]),
        "labels": torch.tensor([0, 1]),
    }
    ours = by_field.loss(signed, [target], [(64, 64)]).losses
    theirs = by_distances.loss(raw, [target], [(64, 64)]).losses
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-5)
    raw["cls"] = signed["cls"] = [level + 8 for level in raw["cls"]]
    (found,), (expected,) = (
        by_field.decode(signed, [(64, 64)]),
        by_distances.decode(raw, [(64, 64)]),
    )
    assert len(expected["scores"]) > 0
    torch.testing.assert_close(found["scores"], expected["scores"])
    torch.testing.assert_close(found["boxes"], expected["boxes"], rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("retinanet", {"loss__quality": "max"}),
        ("retinanet", {"loss__quality": "kl", "loss__cls": "varifocal"}),
        ("autoassign", {"loss__coding": "field"}),
        ("faster_rcnn", {"rpn__quality": "max"}),
    ],
)
def test_gradients_reach_every_parameter(name, settings):
    net = net_with(
        name, backbone__norm_eval=False, backbone__norm_trainable=True, **settings
    ).train()
    boxes = torch.tensor([[8.0, 8, 14, 15], [40, 30, 43, 33]])
    losses = net(torch.randn(1, 3, 64, 64), [{"boxes": boxes, "labels": torch.tensor([0, 1])}])
    assert all(loss.isfinite() and loss.dim() == 0 for loss in losses.values())
    sum(losses.values()).backward()
    assert [key for key, value in net.named_parameters() if value.grad is None] == []
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    losses = net(torch.randn(1, 3, 64, 64), [empty])
    assert all(loss.isfinite() for loss in losses.values())
