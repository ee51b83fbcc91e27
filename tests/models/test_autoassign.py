"""AutoAssign against the records: the original rule, and the repaired RFLA with a mask by box.

The official RFLA variant indexes with an integer mask by accident; its training records are not
compared.
"""

import pytest
import torch

from rfla.models import build_detector

SMALL = {"backbone": "resnet18", "neck.width": 8, "head.width": 8, "head.depth": 0}
SIZES = [(800, 800)]  # points do not look at it


def make_case(case, inputs):
    """Detector, raw predictions as lists per level, their leaves, targets."""
    name = case["id"]
    net = build_detector(
        "autoassign", 8, "rfla" if case["head"].startswith("RFLA") else "baseline", SMALL
    ).train()
    with torch.no_grad():
        net.center_prior.mean.copy_(torch.tensor(case["center_prior_mean"]))
        net.center_prior.sigma.copy_(torch.tensor(case["center_prior_sigma"]))
    sizes = case["featmap_sizes"]
    counts = [height * width for height, width in sizes]
    leaves = {
        part: inputs[f"{name}.pred_{part}"].clone().requires_grad_()
        for part in ("cls", "reg", "obj")
    }
    levels = {
        part: [
            level.unflatten(2, size)
            for level, size in zip(leaf.split(counts, dim=2), sizes, strict=True)
        ]
        for part, leaf in leaves.items()
    }
    raw = {"cls": levels["cls"], "reg": levels["reg"], "centerness": levels["obj"]}
    targets = [
        {"boxes": inputs[f"{name}.gts{i}"], "labels": inputs[f"{name}.gt_labels{i}"].long()}
        for i in range(len(case["gts"]))
    ]
    return net, raw, leaves, targets


def check(case, inputs):
    net, raw, leaves, targets = make_case(case, inputs)
    losses, counts = net.loss(raw, targets, SIZES * len(targets))
    assert int(counts["boxes"]) == sum(len(target["boxes"]) for target in targets)
    for name, value in losses.items():
        assert value.item() == pytest.approx(case["losses"][name], rel=1e-4, abs=1e-6), (
            case["id"],
            name,
        )
    sum(losses.values()).backward()
    for name, leaf in leaves.items():
        total = leaf.grad.double().abs().sum().item()
        assert total == pytest.approx(case["grad_abs_sum"][name], rel=1e-4, abs=1e-6), (
            case["id"],
            name,
        )
    gradient = torch.tensor(case["grad_center_prior_mean"])
    torch.testing.assert_close(net.center_prior.mean.grad, gradient, rtol=1e-4, atol=1e-6)


def test_the_original_rule(parity):
    manifest, tensors = parity("autoassign")
    cases = [case for case in manifest["cases"] if case["id"].startswith("base.")]
    assert cases
    for case in cases:
        check(case, tensors)


def test_rfla_masks_by_box(parity):
    manifest, _ = parity("repaired_autoassign")
    inputs = parity("autoassign")[1]
    for case in manifest["cases"]:
        check(case, inputs)


def test_a_batch_assigns_as_its_images_one_by_one(parity):
    manifest, tensors = parity("autoassign")
    case = next(case for case in manifest["cases"] if case["id"] == "rfla.init.b1")
    net, raw, _, targets = make_case(case, tensors)
    together = net.pairs(raw, targets, SIZES * len(targets))
    first = 0
    for image, target in enumerate(targets):
        alone = net.pairs(raw, [target], SIZES)
        rows = together.image == image
        assert torch.equal(together.point[rows], alone.point)
        assert torch.equal(together.box[rows] - first, alone.box)
        first += len(target["boxes"])


def test_a_box_that_no_point_is_near():
    """The prior's weights underflow at 10,000 px: nothing to learn, and no loss of 10^11."""
    net = build_detector("autoassign", 2, "baseline", SMALL).train()
    far = {"boxes": torch.tensor([[-1e4, -1e4, 64.0, 64.0]]), "labels": torch.tensor([0])}
    losses = net(torch.zeros(1, 3, 64, 64), [far])
    assert losses["loss_center"] == 0


def test_no_boxes_at_all():
    net = build_detector("autoassign", 3, "rfla", SMALL).train()
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    losses = net(torch.randn(2, 3, 64, 64), [empty, empty])
    assert losses["loss_pos"] == 0
    assert losses["loss_center"] == 0
    assert losses["loss_neg"] > 0
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in net.parameters() if p.requires_grad)
