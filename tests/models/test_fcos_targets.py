"""Targets, losses and gradients of the FCOS head on recorded predictions.

`fcos_targets` holds the official code's numbers, with its accident for the later images of a batch
(`shrunken_fields` re-creates it); `repaired_fcos_targets` holds what ours computes by default.
Small backbones: only the loss is used.
"""

from contextlib import nullcontext

import pytest
import torch

from rfla.models import build_detector
from rfla.ops.boxes import boxes_to_distance
from rfla.ops.quality import centerness

SMALL = {"backbone": "resnet18", "neck.width": 8, "head.width": 8, "head.depth": 0}
SIZES = [(800, 800)]  # points do not look at it


def make_net(case):
    name = "fcos_p2" if case["level"] == "p2" else "fcos"
    settings = dict(SMALL)
    if case["head"] == "FCOSHead" and not case["center_sampling"]:
        settings["assigner.center_radius"] = 0
    assigner = "rfla" if case["head"].startswith("RFLA") else "baseline"
    return build_detector(name, 8, assigner, settings).train()


def make_raw(case, tensors):
    """Recorded predictions (B, K, P), distances in strides, as raw predictions.

    And the leaves of the gradients.
    """
    sizes = case["featmap_sizes"]
    counts = [height * width for height, width in sizes]
    leaves = {
        name: tensors[f"{case['id']}.pred_{name}"].clone().requires_grad_()
        for name in ("cls", "reg", "ctr")
    }
    raw = {
        name: [
            part.unflatten(2, size)
            for part, size in zip(leaf.split(counts, dim=2), sizes, strict=True)
        ]
        for name, leaf in leaves.items()
    }
    reg = [level * stride for level, stride in zip(raw["reg"], case["strides"], strict=True)]
    return {"cls": raw["cls"], "reg": reg, "centerness": raw["ctr"]}, leaves


def level_major(case, values):
    """(B, P, ...) to the records' order: level, image, point."""
    counts = [height * width for height, width in case["featmap_sizes"]]
    return torch.cat([part.flatten(0, 1) for part in values.split(counts, dim=1)])


def check(case, tensors, inputs, accident):
    net = make_net(case)
    raw, leaves = make_raw(case, inputs)
    targets = [
        {
            "boxes": inputs[f"{case['id']}.gts{i}"],
            "labels": inputs[f"{case['id']}.gt_labels{i}"].long(),
        }
        for i in range(len(case["gts"]))
    ]
    with accident(net):
        matched = net.assign(raw, targets, SIZES * len(targets))
        losses = net.loss(raw, targets, SIZES * len(targets)).losses
    labels, boxes = net.matched_boxes(raw, matched, targets)
    strides = net.points.stride_of_each(raw["cls"])
    distances = boxes_to_distance(net.grid(raw).centers, boxes) / strides
    positive = level_major(case, matched >= 0)
    labels = torch.where(positive, level_major(case, labels), 8)
    assert torch.equal(labels, tensors[f"{case['id']}.targets.labels"].long())
    assert torch.equal(positive.nonzero()[:, 0], tensors[f"{case['id']}.targets.pos_index"].long())
    torch.testing.assert_close(
        level_major(case, distances)[positive],
        tensors[f"{case['id']}.targets.pos_bbox_targets"],
        rtol=0,
        atol=1e-5,
    )
    torch.testing.assert_close(
        level_major(case, centerness(distances, net.centerness_floor))[positive],
        tensors[f"{case['id']}.targets.centerness"],
    )
    for name, value in losses.items():
        assert value.item() == pytest.approx(case["losses"][name], rel=1e-4, abs=1e-7), name
    sum(losses.values()).backward()
    for name, leaf in leaves.items():
        expected = case["grad_abs_sum"][name]
        assert leaf.grad.double().abs().sum().item() == pytest.approx(
            expected, rel=1e-4, abs=1e-7
        ), name


@pytest.mark.parametrize(
    "prefix",
    ["rfla_p3.", "rfla_p2.", "base_p3.", "base_p2.", "base_p2_nocenter.", "base_p3_nocenter."],
)
def test_official_targets_and_losses(parity, shrunken_fields, prefix):
    manifest, tensors = parity("fcos_targets")
    cases = [case for case in manifest["cases"] if case["id"].startswith(prefix)]
    assert cases
    for case in cases:
        check(case, tensors, tensors, shrunken_fields)


def test_repaired_targets_and_losses(parity):
    manifest, tensors = parity("repaired_fcos_targets")
    inputs = parity("fcos_targets")[1]
    for case in manifest["cases"]:
        check(case, tensors, inputs, nullcontext)


def test_a_batch_equals_its_images_one_by_one(parity):
    manifest, tensors = parity("fcos_targets")
    case = next(case for case in manifest["cases"] if case["id"] == "rfla_p2.b5")
    net = make_net(case)
    raw, _ = make_raw(case, tensors)
    targets = [
        {
            "boxes": tensors[f"rfla_p2.b5.gts{i}"],
            "labels": tensors[f"rfla_p2.b5.gt_labels{i}"].long(),
        }
        for i in (0, 1)
    ]
    together = net.assign(raw, targets, SIZES * len(targets))
    for image, target in enumerate(targets):
        assert torch.equal(together[image], net.assign(raw, [target], SIZES)[0])
