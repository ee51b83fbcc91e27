"""What detectors are given: sizes that no stride divides, odd boxes, thousands of them."""

import copy

import pytest
import test_trainable_anchors as anchors
import torch

from rfla.models import build_detector

ALL = {"rpn.samples": 10**9, "roi.samples": 10**9}
TINY = anchors.TINY | {"backbone.norm_eval": True, "test.score_thr": 0.0, "test.max_det": 30}
MODELS = ["fcos", "fcos_p2", "rfd", "retinanet", "autoassign", "faster_rcnn", "cascade_rcnn"]


@pytest.fixture(scope="module", params=[*MODELS, pytest.param("detectors", marks=pytest.mark.slow)])
def net(request):
    torch.manual_seed(0)
    return build_detector(request.param, 2, "rfla", TINY | ALL)


def target(*boxes):
    return {
        "boxes": torch.tensor(boxes).float().reshape(-1, 4),
        "labels": torch.zeros(len(boxes), dtype=torch.int64),
    }


def test_any_size_and_the_sizes_before_padding(net):
    """Boxes end at `image_sizes`, also on a tensor of 75 x 101 px."""
    net.eval()
    images = torch.randn(2, 3, 75, 101)
    sizes = [(75, 101), (40, 30)]
    with torch.no_grad():
        found, whole = net(images, image_sizes=sizes), net(images)
    for one, (height, width) in zip(found, sizes, strict=True):
        assert (one["boxes"] >= 0).all()
        assert one["boxes"][:, 2].max() <= width
        assert one["boxes"][:, 3].max() <= height
    assert whole[1]["boxes"][:, 2].max() > 30
    with pytest.raises(ValueError, match="needs targets"):
        net.train()(images)


def test_sizes_are_never_guessed(net):
    """What stands in the place of the targets is targets: in evaluation mode there are none."""
    images = torch.randn(1, 3, 64, 64)
    with pytest.raises(ValueError, match="image_sizes="):
        net.eval()(images, [(64, 64)])
    with pytest.raises(TypeError):
        net.train()(images, [target([5, 5, 15, 17])], [(64, 64)])


def test_boxes_out_of_place(net):
    """Outside the image, across its border, larger than it, no area, a thousandth of a pixel."""
    net.train().zero_grad()
    odd = target(
        [500, 500, 510, 510],
        [-20, -20, 5, 5],
        [-1e4, -1e4, 1e4, 1e4],
        [9, 9, 9, 20],
        [30, 30, 30.001, 30.001],
    )
    losses = net(torch.randn(2, 3, 64, 64), [odd, target()], image_sizes=[(64, 64), (50, 40)])
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", ["fcos", "autoassign", "retinanet", "faster_rcnn"])
def test_a_network_in_half_precision(name):
    """`net.bfloat16()`: losses and boxes are float32 all the same."""
    net = build_detector(name, 2, "rfla", TINY | ALL).bfloat16()
    images = torch.randn(1, 3, 64, 64, dtype=torch.bfloat16)
    losses = net.train()(images, [target([5, 5, 15, 17])])
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    with torch.no_grad():
        (found,) = net.eval()(images)
    assert found["boxes"].dtype == found["scores"].dtype == torch.float32


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_the_default_type_of_a_program_changes_nothing(net, kind):
    images, truth = torch.randn(1, 3, 64, 64), target([5, 5, 15, 17], [30, 30, 33, 33])

    def outcome():
        with torch.no_grad():
            torch.manual_seed(0)
            losses = net.train()(images, [truth])
            (found,) = net.eval()(images, image_sizes=[(64, 63)])
        return losses | {key: found[key] for key in ("boxes", "scores")}

    expected = outcome()
    torch.set_default_dtype(kind)
    try:
        got = outcome()
    finally:
        torch.set_default_dtype(torch.float32)
    for name, value in expected.items():
        assert got[name].dtype == value.dtype, name
        torch.testing.assert_close(got[name], value, rtol=1e-6, atol=1e-6)


def test_what_no_detector_takes(net):
    images = torch.randn(1, 3, 64, 64)
    with pytest.raises(ValueError, match="at least one"):
        net.eval()(images[:0])
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.tensor([])}
    assert all(loss.isfinite() for loss in net.train()(images, [empty]).values())
    for labels in (torch.tensor([0.7]), torch.tensor([True])):
        with pytest.raises(ValueError, match="numbers of classes, not torch"):
            net.train()(images, [target([5, 5, 15, 17]) | {"labels": labels}])


def test_three_thousand_boxes(net):
    corner = torch.rand(3000, 2, generator=torch.Generator().manual_seed(0)) * 60
    crowd = {"boxes": torch.cat((corner, corner + 4), dim=1), "labels": torch.arange(3000) % 2}
    with torch.no_grad():
        losses = net.train()(torch.randn(1, 3, 64, 64), [crowd])
    assert all(loss.isfinite() for loss in losses.values())


def test_the_order_of_a_batch_does_not_matter(net):
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    targets = [target([5, 5, 15, 17]), target(), target([20, 30, 32, 40], [40, 8, 50, 16])]
    order = [2, 0, 1]
    with torch.no_grad():
        losses = net.train()(images, targets)
        moved = net(images[order], [targets[i] for i in order])
    for name, value in losses.items():
        torch.testing.assert_close(moved[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["fcos", "retinanet", "autoassign", "faster_rcnn"])
@pytest.mark.parametrize("assigner", ["rfla", "baseline"])
def test_what_can_be_looked_at(name, assigner):
    """`pyramid` and `raw` of any detector with DOTA's classes: levels from fine to coarse."""
    settings = {
        "backbone": "resnet18",
        "neck.width": 16,
        "assigner.distance": "wd",
        "assigner.topk": [2, 1],
    }
    net = build_detector(name, num_classes=18, assigner=assigner, settings=settings).eval()
    images = torch.randn(1, 3, 128, 160)
    with torch.no_grad():
        pyramid, raw = net.pyramid(images), net.raw(images)
    third = "objectness" if name == "faster_rcnn" else None if name == "retinanet" else "centerness"
    pooled = {"pyramid"} if name == "faster_rcnn" else set()
    assert raw.keys() == {"cls", "reg"} | ({third} if third else set()) | pooled
    for levels in raw.values():
        assert [level.shape[-2:] for level in levels] == [level.shape[-2:] for level in pyramid]
    anchors = 9 if (name, assigner) == ("retinanet", "baseline") else 3
    outputs = {"retinanet": 18 * anchors, "faster_rcnn": anchors}.get(name, 18)
    assert {level.shape[1] for level in raw["cls"]} == {outputs}
    assert {level.shape[1] for level in raw["reg"]} == {4 if third == "centerness" else 4 * anchors}


@pytest.mark.parametrize("value", [float("nan"), 1e30])
def test_a_network_that_has_diverged_ends_as_any_other(net, value):
    """No detection of it is NaN, and no operator is asked for what is not there."""
    diverged = copy.deepcopy(net).eval()
    with torch.no_grad():
        for parameter in diverged.parameters():
            parameter.fill_(value)
        (found,) = diverged(torch.randn(1, 3, 64, 64))
    assert found["boxes"].isfinite().all()
    assert found["scores"].isfinite().all()
