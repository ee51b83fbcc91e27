"""Targets and losses of RPN and RetinaNet against the records, on the recorded raw predictions.

`rpn_rfla` holds what the authors trained with: box targets encoded against anchors that the
assigner had shrunk to 0.9, re-created by `rpn.target_anchor_scale=0.9`. `repaired_rpn_rfla` holds
the same inputs with that accident mended.
"""

import pytest
import torch

from rfla.assign import PseudoSampler
from rfla.cfg import model_config
from rfla.models.heads.rpn import RPNHead
from rfla.models.priors import Anchors, build_anchors
from rfla.models.retinanet import RetinaNet
from rfla.ops.nms import DetectionLimits

MODELS = {
    "rpn_faster_kld": ("faster_rcnn", "rfla", {}),
    "rpn_faster_wd": ("faster_rcnn", "rfla", {"assigner.distance": "wd"}),
    "rpn_cascade": ("cascade_rcnn", "rfla", {}),
    "rpn_detectors": ("detectors", "rfla", {}),
    "rpn_faster_baseline": ("faster_rcnn", "baseline", {}),
    "retina_rfla": ("retinanet", "rfla", {}),
}
FOLDERS = ["rpn_rfla", "repaired_rpn_rfla"]
NO_BACKBONE = None  # with assigner.fields=authors nobody asks it


def strides(name):
    return [8, 16, 32, 64, 128] if name == "retinanet" else [4, 8, 16, 32, 64]


def make_head(model, folder):
    name, assigner, settings = MODELS[model]
    config = model_config(name, assigner, settings)
    if name == "retinanet":
        part = torch.nn.Identity()
        anchors = build_anchors(config, NO_BACKBONE, strides(name))
        return RetinaNet(
            part,
            part,
            part,
            anchors,
            DetectionLimits(),
            num_classes=8,
            box_loss_kind=config.loss.box,
        )
    accident = folder == "rpn_rfla" and assigner == "rfla"
    config = model_config(
        name, assigner, settings | {"rpn.target_anchor_scale": 0.9 if accident else 1.0}
    )
    head = RPNHead.from_config(config, NO_BACKBONE, strides(name))
    head.sampler = lambda matched, seed: PseudoSampler()(matched)
    return head


def record_inputs(case, tensors, base):
    """Raw predictions by level, and targets."""

    def tensor(name):
        name = name.removesuffix(" (see base set)")
        return tensors[name] if name in tensors else base[name]

    sizes = [height * width for height, width in case["featmap_sizes"]]
    raw = {}
    for key, name in (("cls", "pred_cls"), ("reg", "pred_reg")):
        # cases without losses have no predictions either: only the sizes matter then
        empty = torch.zeros(len(case["gts"]), 1, sum(sizes))
        flat = (tensor(f"{case['id']}.{name}") if "losses" in case else empty).split(sizes, dim=2)
        raw[key] = [
            part.unflatten(2, size) for part, size in zip(flat, case["featmap_sizes"], strict=True)
        ]
    raw["objectness"] = raw["cls"]
    boxes = [tensor(name) for name in case["gts"]]
    labels = [tensor(name).long() for name in case.get("labels", [])] or [
        torch.zeros(len(b)).long() for b in boxes
    ]
    return raw, [{"boxes": b, "labels": c} for b, c in zip(boxes, labels, strict=True)]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("folder", FOLDERS)
def test_targets_and_losses(parity, folder, model):
    manifest, tensors = parity(folder)
    base = parity("rpn_rfla")[1]
    head = make_head(model, folder)
    chosen = [case for case in manifest["cases"] if case["id"].rsplit(".", 1)[0] == model]
    assert chosen or folder == "repaired_rpn_rfla"
    for case in chosen:
        raw, targets = record_inputs(case, tensors, base)
        sizes = [tuple(case["image_hw"])] * len(targets)
        matched = head.assign(raw, targets, sizes)
        for image in range(len(targets)):
            check_image(case, image, head, raw, matched[image], targets[image]["boxes"], tensors)
        if "losses" in case:
            if model == "retina_rfla":
                losses = head.loss(raw, targets, sizes).losses
            else:
                losses = head.loss(raw, matched, targets, [0] * len(targets))
            for name, value in case["losses"].items():
                assert losses[name].item() == pytest.approx(value, rel=1e-4, abs=1e-7), (
                    case["id"],
                    name,
                )


def check_image(case, image, head, raw, matched, boxes, tensors):
    prefix = f"{case['id']}.img{image}."
    positive = (matched >= 0).nonzero().squeeze(1)
    assert positive.tolist() == tensors[prefix + "pos_index"].tolist(), case["id"]
    assert matched[positive].tolist() == tensors[prefix + "pos_gt_index"].tolist(), case["id"]
    assert torch.equal((matched != -2).to(torch.uint8), tensors[prefix + "label_weights"]), case[
        "id"
    ]
    if isinstance(head, RetinaNet):
        expected = boxes[matched[positive]]
    else:
        expected = head.coder.encode(head.target_anchors(raw)[positive], boxes[matched[positive]])
    torch.testing.assert_close(expected, tensors[prefix + "pos_bbox_targets"], rtol=1e-4, atol=1e-5)


def test_decoding_a_target_gives_the_box_back():
    """The default encodes against the anchors of decoding.

    With the authors' 0.9 boxes come out 1/0.9 as large.
    """
    boxes = torch.tensor([[20.0, 30.0, 32.0, 40.0]])
    for scale, growth in ((1.0, 1.0), (0.9, 1 / 0.9)):
        config = model_config("faster_rcnn", "rfla", {"rpn.target_anchor_scale": scale})
        head = RPNHead.from_config(config, NO_BACKBONE, [4, 8, 16, 32, 64])
        raw = {"objectness": [torch.zeros(1, 3, 64 >> level, 64 >> level) for level in range(5)]}
        matched = head.assign(raw, [{"boxes": boxes}], [(256, 256)])[0]
        positive = (matched >= 0).nonzero().squeeze(1)
        targets = head.coder.encode(head.target_anchors(raw)[positive], boxes[matched[positive]])
        decoded = head.coder.decode(head.anchors.grid(raw["objectness"]).boxes[positive], targets)
        sizes = (decoded[:, 2:] - decoded[:, :2]) / torch.tensor([12.0, 10.0])
        torch.testing.assert_close(sizes, torch.full_like(sizes, growth), rtol=1e-4, atol=0)


def test_cells_of_the_padding_count_up_to_a_multiple_of_32():
    """An image of 40 x 20 px in a 64 x 64 batch: the authors would have padded it to 64 x 32."""
    anchors = Anchors(Recorder(), [4], [16.0])
    anchors.assign([torch.zeros(1, 1, 16, 16)], [{"boxes": torch.zeros(0, 4)}], [(40, 20)])
    assert anchors.assigner.sizes == [(64, 32)]
    anchors.allowed_border = 0
    anchors.assign([torch.zeros(1, 1, 16, 16)], [{"boxes": torch.zeros(0, 4)}], [(40, 20)])
    assert anchors.assigner.sizes == [(40, 20)]


class Recorder:
    def batch(self, grid, gt_boxes, ignore_boxes, image_sizes, allowed_border):
        self.sizes = image_sizes
        return torch.zeros(len(gt_boxes), len(grid))


def test_anchors_of_the_retinanet_paper():
    """Three octave scales from 4 strides, three ratios: nine anchors.

    The first level's sides are 32, 40.3, 50.8 px.
    """
    config = model_config("retinanet", "baseline", {})
    anchors = build_anchors(config, NO_BACKBONE, [8, 16, 32, 64, 128])
    assert anchors.per_cell == 9
    boxes = anchors.grid([torch.zeros(1, 1, 1, 1)] * 5).boxes[:9]
    sides = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt()
    torch.testing.assert_close(
        sides, torch.tensor([32.0, 32 * 2 ** (1 / 3), 32 * 2 ** (2 / 3)]).repeat(3)
    )
