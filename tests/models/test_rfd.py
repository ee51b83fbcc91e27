"""RFD: raw shapes, losses worked by hand at one point, decoding, and what its positives learn."""

import math

import pytest
import torch

from rfla.models import build_detector
from rfla.models.rfd import RFD
from rfla.models.weights import load_model, save_weights

SMALL = {
    "backbone": "resnet18",
    "neck.width": 32,
    "head.width": 32,
    "head.depth": 1,
    "backbone.frozen_stages": -1,
}
FIELD = 35 / 2
"""px: effective side at P2, half the theoretical field of 35 px."""


def small_net(**settings):
    torch.manual_seed(0)
    return build_detector("rfd", 2, settings=SMALL | settings)


def empty_raw(net, size=32):
    """Code 0 and logits of -20 everywhere: every point predicts its own field, sure of nothing."""
    sides = [size // stride for stride in net.neck.strides]
    return {
        "cls": [torch.full((1, 2, side, side), -20.0) for side in sides],
        "reg": [torch.zeros(1, 4, side, side) for side in sides],
        "finest": [torch.zeros(1, 64, sides[0], sides[0])],
    }


def test_levels_and_start():
    net = small_net()
    assert isinstance(net, RFD)
    assert net.neck.strides == [4, 8, 16, 32]
    raw = net.raw(torch.randn(1, 3, 64, 64))
    assert [tuple(level.shape) for level in raw["reg"]] == [
        (1, 4, side, side) for side in (16, 8, 4, 2)
    ]
    assert [level.shape[1] for level in raw["cls"]] == [2, 2, 2, 2]
    assert set(raw) == {"cls", "reg", "finest"}
    assert [tuple(level.shape) for level in raw["finest"]] == [(1, 64, 16, 16)]
    # before training every class has a probability near 0.01 and a side is half the field
    assert torch.cat([level.flatten() for level in raw["cls"]]).sigmoid().mean() < 0.02
    sides = torch.cat([level[:, 2:].flatten() for level in raw["reg"]])
    assert sides.mean().item() == pytest.approx(-0.7, abs=0.1)


def test_losses_of_one_box_by_hand():
    """One box equal to the field of the point at (14, 14) takes its three best points.

    They lie at (14, 14) and, tied, at the four cells beside it; all predict their own field. The
    one on the box fits it exactly, a shift of 4 px of 17.5 has IoU 13.5 / 21.5.
    """
    net = small_net()
    raw = empty_raw(net)
    low, high = 14 - FIELD / 2, 14 + FIELD / 2
    target = {"boxes": torch.tensor([[low, low, high, high]]), "labels": torch.tensor([1])}
    matched = net.assign(raw, [target], [(32, 32)])
    losses, counts = net.loss(raw, [target], [(32, 32)])
    positives = int(counts["positives"])
    assert positives == int((matched >= 0).sum())
    assert int(counts["boxes"]) == 1
    assert matched[0, 3 * 8 + 3] == 0  # row 3, column 3 of P2 is the point at (14, 14)
    assert losses["loss_side"].item() == pytest.approx(0.0, abs=1e-6)  # all sides are right

    # hull and union of two squares shifted along one axis are 21.5 x 17.5: GIoU is the IoU
    shifted = 13.5 / 21.5
    centers = net.grid(raw).centers[matched[0] >= 0]
    beside = (centers - 14).abs().sum(dim=1) == 4
    assert int(beside.sum()) == positives - 1
    expected = (positives - 1) * (1 - shifted) / positives
    assert losses["loss_bbox"].item() == pytest.approx(expected, abs=1e-5)

    # with logits of -20 the cross-entropy of a quality q is 20 q, its modulation q^2
    gaussian = math.exp(-2 * 4 / FIELD)
    quality = max(shifted, gaussian)
    qualities = [1.0] + [quality] * (positives - 1)
    expected = sum(20 * q**3 for q in qualities) / sum(qualities)
    assert losses["loss_cls"].item() == pytest.approx(expected, rel=1e-4)


def test_the_true_box_measures_the_fit(monkeypatch):
    """One point predicts its field of 17.5 px about the middle of a box of 35 px.

    W = sqrt(2 x 17.5^2 / 4); the Gaussian similarity is exp(-2 W / 35) by the side of the true box.
    """
    net = small_net(**{"loss.quality": "gaussian", "head.second_look": 0})
    raw = empty_raw(net)
    matched = torch.full((1, len(net.grid(raw))), -1)
    matched[0, 3 * 8 + 3] = 0  # the point at (14, 14)
    monkeypatch.setattr(net, "assign", lambda *_: matched)
    low, high = 14 - FIELD, 14 + FIELD
    target = {"boxes": torch.tensor([[low, low, high, high]]), "labels": torch.tensor([1])}
    losses, _ = net.loss(raw, [target], [(32, 32)])
    quality = math.exp(-math.sqrt(2) / 2)
    assert losses["loss_cls"].item() == pytest.approx(20 * quality**3, rel=1e-4)


def test_a_box_of_3_px_is_learned_by_points_outside_of_it():
    """FCOS could not code this box at these points: a distance of theirs is negative."""
    net = small_net()
    raw = empty_raw(net)
    box = torch.tensor([[11.0, 11, 14, 14]])
    matched = net.assign(raw, [{"boxes": box, "labels": torch.tensor([0])}], [(32, 32)])[0]
    centers = net.grid(raw).centers[matched >= 0]
    outside = ((centers < box[0, :2]) | (centers > box[0, 2:])).any(dim=1)
    assert outside.any()
    code = net.coder(raw).encode(box.expand(len(matched), 4))
    torch.testing.assert_close(
        net.coder(raw).decode(code)[matched >= 0], box.expand(len(centers), 4), atol=1e-4, rtol=0
    )


def test_decode_by_hand():
    """Row 3, column 5 of P2, at (22, 14), says class 1 with ln 3 and a box of 4 x 8 px."""
    net = small_net().eval()
    raw = empty_raw(net)
    raw["cls"][0][0, 1, 3, 5] = math.log(3)
    code = torch.tensor([0.5, -0.25, math.log(4 / FIELD), math.log(8 / FIELD)])
    raw["reg"][0][0, :, 3, 5] = code
    (found,) = net.decode(raw, [(32, 32)])
    torch.testing.assert_close(found["boxes"], torch.tensor([[22.0, 9, 26, 17]]))
    torch.testing.assert_close(found["scores"], torch.tensor([0.75]))
    assert found["labels"].tolist() == [1]
    (clipped,) = net.decode(raw, [(15, 24)])
    torch.testing.assert_close(clipped["boxes"], torch.tensor([[22.0, 9, 24, 15]]))


def test_regions_to_ignore_teach_no_background():
    net = small_net()
    raw = empty_raw(net)
    raw["cls"] = [level.requires_grad_() for level in raw["cls"]]
    target = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "ignore": torch.tensor([[0.0, 0, 32, 32]]),
    }
    losses, _ = net.loss(raw, [target], [(32, 32)])
    sum(losses.values()).backward()
    # fields of P2 lie inside the region but at its border; far larger fields do not
    assert raw["cls"][0].grad[0, :, 4, 4].abs().sum() == 0
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("quality", ["iou", "gaussian", "max", "kl"])
def test_the_setting_of_the_quality_reaches_the_loss(quality):
    assert small_net(**{"loss.quality": quality}).quality == quality


def test_gradients_reach_every_parameter():
    net = small_net(**{"backbone.norm_eval": False}).train()
    targets = [
        {
            "boxes": torch.tensor([[8.0, 8, 14, 15], [40, 30, 43, 33]]),
            "labels": torch.tensor([0, 1]),
        }
    ]
    losses, counts = net(torch.randn(1, 3, 64, 64), targets, with_counts=True)
    assert all(loss.isfinite() and loss.dim() == 0 for loss in losses.values())
    assert int(counts["boxes"]) == 2
    sum(losses.values()).backward()
    missing = [key for key, value in net.named_parameters() if value.grad is None]
    assert missing == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_step_under_autocast_is_that_of_float32(dtype):
    """Boxes of 3 to 12 px: what half precision rounds is far below a pixel."""
    net = small_net(**{"backbone.norm_eval": False}).train()
    boxes = torch.tensor([[8.0, 8, 14, 15], [40, 30, 43, 33], [20, 40, 32, 49]])
    targets = [{"boxes": boxes, "labels": torch.tensor([0, 1, 1])}]
    images = torch.randn(1, 3, 64, 64)
    exact = net(images, targets)
    with torch.autocast("cpu", dtype):
        raw = net.raw(images)
        losses = net.loss(raw, targets, [(64, 64)]).losses
    assert all(level.dtype == torch.float32 for level in raw["reg"])
    for name, value in losses.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(exact[name].item(), rel=0.02), name
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_weights_there_and_back(tmp_path):
    net = small_net(**{"loss.quality": "iou", "assigner.topk": [4, 1]}).eval()
    about = {"format": 1, "version": "0", "names": ["ship", "car"]}
    about["model"] = net.config.model_dump(mode="json")
    save_weights(tmp_path / "x.safetensors", net.state_dict(), about)
    again, _ = load_model(tmp_path / "x.safetensors")
    assert isinstance(again, RFD) and again.config == net.config
    images = torch.randn(1, 3, 64, 64)
    ours, theirs = again.eval().raw(images), net.raw(images)
    assert all(
        torch.equal(a, b) for name in ours for a, b in zip(ours[name], theirs[name], strict=True)
    )


def test_no_boxes_and_autocast_stay_finite():
    net = small_net().train()
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    with torch.autocast("cpu", torch.bfloat16):
        losses = net(torch.randn(1, 3, 64, 64), [empty])
    assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values())
    assert losses["loss_bbox"] == losses["loss_side"] == 0
