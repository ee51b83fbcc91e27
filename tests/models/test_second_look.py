"""The second look: where it looks, how it moves a box, and what the loss of RFD sees of it."""

import math

import pytest
import torch

from rfla.models import build_detector
from rfla.models.heads.second_look import SecondLook

SMALL = {"backbone": "resnet18", "neck.width": 32, "head.width": 32, "head.depth": 1}
BOX = torch.tensor([[[16.0, 20.0, 24.0, 24.0]]])
"""One box of 8 x 4 px round (20, 22)."""


def ramps(height=16, width=16, stride=4):
    """(1, 64, H, W): x (px) of the middle of each cell, y, and 62 zeros."""
    maps = torch.zeros(1, 64, height, width)
    maps[0, 0] = (torch.arange(width) + 0.5) * stride
    maps[0, 1] = ((torch.arange(height) + 0.5) * stride)[:, None]
    return maps


def test_no_box_moves_before_training():
    torch.manual_seed(0)
    torch.testing.assert_close(SecondLook(8, 4)(ramps(), BOX), BOX)


@pytest.mark.parametrize("shift", [0.0, -10.0])
def test_it_looks_at_the_middle_the_sides_and_the_corners(shift):
    """Nine places, half a side apart: on maps of coordinates their mean is the centre.

    The box is moved along x: at 0 its y2 - x1 happens to be its width.
    """
    look = SecondLook(8, 4)
    seen = []
    look.shared_fc.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    look(ramps(), BOX + torch.tensor([shift, 0, shift, 0]))
    x, y = seen[0].view(64, 3, 3)[:2]
    assert x.tolist() == [[16.0 + shift, 20.0 + shift, 24.0 + shift]] * 3
    assert y.tolist() == [[20.0] * 3, [22.0] * 3, [24.0] * 3]


def test_it_moves_a_box_by_quarters_of_its_sides():
    look = SecondLook(8, 4)
    look.fc_reg.bias.data = torch.tensor([1.0, -1.0, 4 * math.log(2), 0.0])
    # the centre by 8 / 4 px to the right and 4 / 4 px up, the width twice as large
    torch.testing.assert_close(look(ramps(), BOX), torch.tensor([[[14.0, 19.0, 30.0, 23.0]]]))


def test_each_image_is_looked_at_in_its_own_map():
    torch.manual_seed(0)
    look = SecondLook(8, 4)
    torch.nn.init.normal_(look.fc_reg.weight)
    maps, boxes = torch.rand(3, 64, 16, 16), BOX.expand(3, 2, 4)
    together = look(maps, boxes)
    for image in range(3):
        alone = look(maps[image : image + 1], boxes[image : image + 1])
        torch.testing.assert_close(together[image : image + 1], alone)
    assert not torch.equal(together[0], together[1])


def test_the_map_learns_and_the_box_does_not():
    look = SecondLook(8, 4)
    torch.nn.init.ones_(look.fc_reg.weight)
    features, boxes = ramps().requires_grad_(), BOX.clone().requires_grad_()
    look(features, boxes).sum().backward()
    assert features.grad is not None
    assert features.grad.abs().sum() > 0
    assert boxes.grad is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -1e30])
def test_a_box_that_is_no_box_reads_nothing_beyond_the_map(value):
    look = SecondLook(8, 4)
    seen = []
    look.shared_fc.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    look(ramps(), torch.full((1, 1, 4), value))
    assert seen[0].min() >= 0 and seen[0].max() <= 62  # px, the middle of the last cell


def test_it_sees_both_towers():
    torch.manual_seed(0)
    look, tower = SecondLook(8, 4), torch.rand(1, 8, 4, 4)
    nothing = torch.zeros_like(tower)
    both = look.features(tower, tower)
    assert both.shape == (1, 64, 4, 4)
    assert not torch.equal(both, look.features(tower, nothing))
    assert not torch.equal(both, look.features(nothing, tower))


def one_tiny_box(net, boxes):
    """Raw predictions where every point predicts its own field, and the truth."""
    raw = net.raw(torch.zeros(1, 3, 64, 64))
    raw["reg"] = [torch.zeros_like(level) for level in raw["reg"]]
    return raw, [{"boxes": torch.tensor(boxes), "labels": torch.zeros(len(boxes)).long()}]


def test_its_loss_is_that_of_the_first_boxes_before_training():
    net = build_detector("rfd", 1, settings=SMALL)
    raw, targets = one_tiny_box(net, [[8.0, 8.0, 14.0, 15.0], [40.0, 30.0, 43.0, 33.0]])
    losses, _ = net.loss(raw, targets, [(64, 64)])
    torch.testing.assert_close(losses["loss_look"], 2 * losses["loss_bbox"])


def test_more_positives_than_it_learns_from(monkeypatch):
    """Every point predicts the same fit, so that a mean over one is the mean over all."""
    monkeypatch.setattr("rfla.models.rfd.LOOKS", 1)
    net = build_detector("rfd", 1, settings=SMALL | {"assigner.topk": [1, 1]})
    # both boxes lie on the middle of a cell, as wide as its field
    boxes = [[5.25, 5.25, 22.75, 22.75], [33.25, 33.25, 50.75, 50.75]]
    raw, targets = one_tiny_box(net, boxes)
    net.head.second_look.fc_reg.bias.data = torch.tensor([4.0, 0.0, 0.0, 0.0])
    losses, counts = net.loss(raw, targets, [(64, 64)])
    assert int(counts["positives"]) > 1
    # moved by its own side: no overlap, and the hull is as large as both
    assert losses["loss_look"].item() == pytest.approx(2.0, abs=1e-5)


def test_the_class_score_learns_the_fit_of_the_moved_box():
    """First boxes fit, but the second look moves them far away: nothing is worth a score."""
    net = build_detector("rfd", 1, settings=SMALL | {"loss.quality": "iou"})
    raw, targets = one_tiny_box(net, [[5.25, 5.25, 22.75, 22.75]])
    raw["cls"] = [torch.full_like(level, -20.0) for level in raw["cls"]]
    before = net.loss(raw, targets, [(64, 64)]).losses["loss_cls"]
    net.head.second_look.fc_reg.bias.data = torch.tensor([40.0, 0.0, 0.0, 0.0])
    after = net.loss(raw, targets, [(64, 64)]).losses["loss_cls"]
    assert before.item() > 1
    assert after.item() == pytest.approx(0.0, abs=1e-6)


def test_without_it():
    net = build_detector("rfd", 1, settings=SMALL | {"head.second_look": 0})
    assert net.head.second_look is None
    raw, targets = one_tiny_box(net, [[8.0, 8.0, 14.0, 15.0]])
    assert "loss_look" not in net.loss(raw, targets, [(64, 64)]).losses
    assert not [key for key in net.state_dict() if "second_look" in key]
