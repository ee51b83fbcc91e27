"""FCOS with parts of RFD, one at a time: `loss.coding=field` and `loss.quality=...`.

A box of 8 px on the point at (14, 14) is learned by that point and, tied, by the four beside it,
4 px away. Where every point predicts 8 px round itself, the first fits and the others have IoU
32 / 96 and, with centres 4 px apart in a hull of 12 x 8 px, DIoU 1/3 - 16 / 208.
"""

import math

import pytest
import torch

from rfla.errors import ConfigError
from rfla.models import build_detector
from rfla.models.rfd import RFD

SMALL = {
    "backbone": "resnet18",
    "neck.width": 32,
    "head.width": 32,
    "head.depth": 1,
    "backbone.frozen_stages": -1,
}
FIELD = 35 / 2
"""px: effective side at P2, half the theoretical field of 35 px."""
TARGET = {"boxes": torch.tensor([[10.0, 10, 18, 18]]), "labels": torch.tensor([1])}
DIOU = 1 / 3 - 16 / 208


def net_with(name="fcos_p2", **settings):
    torch.manual_seed(0)
    dotted = {key.replace("__", "."): value for key, value in settings.items()}
    return build_detector(name, 2, settings=SMALL | dotted)


def raw_of(net, regression, with_centerness):
    """Logits of -20 for every class, 0 for centerness, and the same four numbers at each point."""
    sides = [-(-32 // stride) for stride in net.neck.strides]
    raw = {
        "cls": [torch.full((1, 2, side, side), -20.0) for side in sides],
        "reg": [torch.tensor(regression).view(1, 4, 1, 1).expand(1, 4, s, s) for s in sides],
    }
    if with_centerness:
        raw["centerness"] = [torch.zeros(1, 1, side, side) for side in sides]
    return raw


def losses_of(net, raw):
    losses, counts = net.loss(raw, [TARGET], [(32, 32)])
    assert int(counts["positives"]) == 5
    return {name: value.item() for name, value in losses.items()}


def test_the_papers_parts_are_the_default():
    net = net_with()
    assert (net.has_signed_code, net.quality) == (False, "none")
    raw = net.raw(torch.zeros(1, 3, 64, 64))
    assert set(raw) == {"cls", "reg", "centerness"}
    # The four beside it stand on a side of the box: their centerness is sqrt(floor / 2 strides).
    beside = math.sqrt(0.01 / 2)
    losses = losses_of(net, raw_of(net, [4.0, 4, 4, 4], with_centerness=True))
    assert list(losses) == ["loss_cls", "loss_bbox", "loss_centerness"]
    assert losses["loss_bbox"] == pytest.approx(
        4 * beside * (1 - DIOU) / (1 + 4 * beside), rel=1e-4
    )


def test_quality_alone_by_hand():
    net = net_with(loss__quality="iou")
    assert set(net.raw(torch.zeros(1, 3, 64, 64))) == {"cls", "reg"}
    losses = losses_of(net, raw_of(net, [4.0, 4, 4, 4], with_centerness=False))
    assert list(losses) == ["loss_cls", "loss_bbox"]
    # With logits of -20 the cross-entropy of a quality q is 20 q, its modulation q^2.
    expected = 20 * (1 + 4 / 27) / (1 + 4 / 3)
    assert (
        losses["loss_cls"] == pytest.approx(expected, rel=1e-4) == pytest.approx(9.8413, abs=1e-3)
    )
    # Positives weigh alike.
    assert losses["loss_bbox"] == pytest.approx(4 * (1 - DIOU) / 5, rel=1e-4)
    assert losses["loss_bbox"] == pytest.approx(0.5949, abs=1e-4)


def test_coding_alone_by_hand():
    net = net_with(loss__coding="field")
    assert set(net.raw(torch.zeros(1, 3, 64, 64))) == {"cls", "reg", "centerness"}
    own = math.log(8 / FIELD)  # 8 px round itself
    losses = losses_of(net, raw_of(net, [0.0, 0, own, own], with_centerness=True))
    assert set(losses) == {"loss_cls", "loss_bbox", "loss_centerness", "loss_side"}
    assert losses["loss_side"] == pytest.approx(0.0, abs=1e-6)
    beside = math.sqrt(0.01 / 2)
    assert losses["loss_bbox"] == pytest.approx(
        4 * beside * (1 - DIOU) / (1 + 4 * beside), rel=1e-4
    )
    # A side that is e^0.1 too long at all five points, by the weight of 0.5.
    longer = losses_of(net, raw_of(net, [0.0, 0, own + 0.1, own + 0.1], with_centerness=True))
    assert longer["loss_side"] == pytest.approx(0.05, abs=1e-5)


def test_hard_labels_equal_weights_and_no_centerness_by_hand():
    """The prototype's V1: the class alone is learned, and all five positives count alike."""
    net = net_with(loss__coding="field", loss__centerness=False, loss__weighting="equal")
    assert set(net.raw(torch.zeros(1, 3, 64, 64))) == {"cls", "reg"}
    own = math.log(8 / FIELD)
    losses = losses_of(net, raw_of(net, [0.0, 0, own, own], with_centerness=False))
    assert set(losses) == {"loss_cls", "loss_bbox", "loss_side"}
    assert losses["loss_bbox"] == pytest.approx(4 * (1 - DIOU) / 5, rel=1e-4)
    # Focal loss of a positive with logit -20: alpha times 20.
    assert losses["loss_cls"] == pytest.approx(0.25 * 20, rel=1e-4)


def test_weights_by_quality_by_hand():
    net = net_with(loss__quality="iou", loss__weighting="quality")
    losses = losses_of(net, raw_of(net, [4.0, 4, 4, 4], with_centerness=False))
    # One positive of quality 1 without a loss, four of quality 1 / 3.
    expected = 4 / 3 * (1 - DIOU) / (1 + 4 / 3)
    assert losses["loss_bbox"] == pytest.approx(expected, rel=1e-4)


def test_quality_with_centerness_and_its_weights_by_hand():
    net = net_with(loss__quality="iou", loss__weighting="centerness", loss__centerness=True)
    losses = losses_of(net, raw_of(net, [4.0, 4, 4, 4], with_centerness=True))
    beside = math.sqrt(0.01 / 2)
    assert losses["loss_bbox"] == pytest.approx(
        4 * beside * (1 - DIOU) / (1 + 4 * beside), rel=1e-4
    )
    assert losses["loss_centerness"] == pytest.approx(math.log(2), rel=1e-4)  # logits of 0
    assert losses["loss_cls"] == pytest.approx(20 * (1 + 4 / 27) / (1 + 4 / 3), rel=1e-4)


def test_varifocal_by_hand():
    """With logits of -20 the loss of a quality q is 20 q^2; the other logits add nothing."""
    net = net_with(loss__quality="iou", loss__cls="varifocal")
    losses = losses_of(net, raw_of(net, [4.0, 4, 4, 4], with_centerness=False))
    assert losses["loss_cls"] == pytest.approx(20 * (1 + 4 / 9) / (1 + 4 / 3), rel=1e-4)


def test_no_loss_on_the_sides():
    net = net_with(loss__coding="field", loss__side_weight=0)
    own = math.log(8 / FIELD) + 0.1
    losses = losses_of(net, raw_of(net, [0.0, 0, own, own], with_centerness=True))
    assert losses["loss_side"] == 0


def test_weights_by_quality_need_a_quality():
    with pytest.raises(ConfigError, match=r"loss\.weighting=quality needs loss\.quality"):
        net_with(loss__weighting="quality")


@pytest.mark.parametrize("settings", [{"loss__centerness": True}, {"loss__weighting": "quality"}])
def test_rfd_has_no_centerness_and_no_weights(settings):
    with pytest.raises(ConfigError, match="rfd has no centerness and weighs positives alike"):
        net_with("rfd", **settings)


@pytest.mark.parametrize("cls", ["quality_focal", "varifocal"])
def test_both_together_are_rfd(cls):
    """On the same levels and raw predictions, without a second look: the same losses and boxes."""
    both = {"loss__coding": "field", "loss__quality": "max", "loss__box": "giou"}
    fcos = net_with(neck__levels=4, test__score_thr=0.02, loss__cls=cls, **both)
    rfd = net_with("rfd", loss__cls=cls, head__second_look=0)
    assert not isinstance(fcos, RFD) and fcos.neck.strides == rfd.neck.strides
    raw = rfd.eval().raw(torch.randn(1, 3, 32, 32))
    ours = fcos.loss(raw, [TARGET], [(32, 32)]).losses
    theirs = rfd.loss(raw, [TARGET], [(32, 32)]).losses
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value)
    raw["cls"] = [level + 4 for level in raw["cls"]]
    (found,), (expected,) = fcos.decode(raw, [(32, 32)]), rfd.decode(raw, [(32, 32)])
    assert len(expected["scores"]) > 0
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


@pytest.mark.parametrize(
    "settings",
    [
        {"loss__coding": "field"},
        {"loss__quality": "gaussian"},
        {"loss__coding": "field", "loss__quality": "max"},
        {"loss__centerness": False, "loss__weighting": "equal"},
        {"loss__quality": "kl", "loss__cls": "varifocal", "loss__weighting": "quality"},
        {"neck__bottom_up": True},
    ],
)
def test_gradients_reach_every_parameter(settings):
    net = net_with(backbone__norm_eval=False, backbone__norm_trainable=True, **settings).train()
    boxes = torch.tensor([[8.0, 8, 14, 15], [40, 30, 43, 33]])
    losses = net(torch.randn(1, 3, 64, 64), [{"boxes": boxes, "labels": torch.tensor([0, 1])}])
    assert all(loss.isfinite() and loss.dim() == 0 for loss in losses.values())
    sum(losses.values()).backward()
    assert [key for key, value in net.named_parameters() if value.grad is None] == []


def test_a_score_without_centerness_is_that_of_the_class():
    net = net_with(loss__quality="max").eval()
    raw = raw_of(net, [2.0, 2, 2, 2], with_centerness=False)
    raw["cls"][0][0, 1, 3, 5] = math.log(3)  # the point at (22, 14)
    (found,) = net.decode(raw, [(32, 32)])
    torch.testing.assert_close(found["scores"], torch.tensor([0.75]))
    torch.testing.assert_close(found["boxes"], torch.tensor([[20.0, 12, 24, 16]]))


def test_rfd_cannot_do_without_a_quality():
    with pytest.raises(
        ConfigError, match=r"loss\.quality=none: rfd takes iou, gaussian, max or kl"
    ):
        net_with("rfd", loss__quality="none")
