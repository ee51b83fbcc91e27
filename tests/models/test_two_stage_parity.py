"""RetinaNet and the two-stage detectors against the authors' code: same weights, same numbers.

One accident of the official code is re-created by a setting: their RPN encodes its targets against
anchors that the assigner had shrunk (`rpn.target_anchor_scale=0.9`). The samplers take everything
(10**9), as in the records.
"""

from dataclasses import replace

import pytest
import torch

RPN_ALL = {"rpn.samples": 10**9, "roi.samples": 10**9}
SHRUNKEN = RPN_ALL | {"rpn.target_anchor_scale": 0.9}
CASES = {
    "retinanet_rfla": ("retinanet", "rfla", {}),
    "faster_rfla": ("faster_rcnn", "rfla", SHRUNKEN),
    "faster_base": ("faster_rcnn", "baseline", RPN_ALL),
    "cascade_rfla": ("cascade_rcnn", "rfla", SHRUNKEN),
    "detectors_rfla": ("detectors", "rfla", SHRUNKEN),
    "detectors_base": ("detectors", "baseline", RPN_ALL),
}
QUICK = {"retinanet_rfla", "faster_rfla"}
TWO_STAGE = [name for name in CASES if name != "retinanet_rfla"]


def cases(names):
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in names]


@pytest.fixture(scope="module")
def nets(official_net):
    """One detector at a time: they are large."""
    kept = {}

    def get(record):
        if record not in kept:
            kept.clear()
            kept[record] = official_net(record, *CASES[record])
        return kept[record]

    return get


@pytest.fixture(scope="module")
def records(parity):
    def get(record):
        manifest, tensors = parity(f"models/{record}")
        return {case["id"]: case for case in manifest["cases"]}, tensors

    return get


def close(actual, expected, rtol=1e-4):
    """Within rtol of the largest value, with which a difference of summation order scales."""
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=rtol * float(expected.abs().max()))


def check_detections(found, boxes_scores, labels, scale=1.0):
    torch.testing.assert_close(found["boxes"] / scale, boxes_scores[:, :4], rtol=0, atol=1e-2)
    torch.testing.assert_close(found["scores"], boxes_scores[:, 4], rtol=0, atol=1e-4)
    assert found["labels"].tolist() == labels.tolist()


def check_proposals(found, expected, ordered):
    """Proposals (K, 5): the best ones in order.

    Of DetectoRS as a set, since those of nearly equal score may swap.
    """
    if ordered:
        torch.testing.assert_close(found[: len(expected)], expected, rtol=0, atol=1e-2)
        return
    distance = torch.cdist(expected, found[: len(expected) + 30], p=torch.inf)
    assert float(distance.amin(dim=1).max()) < 1e-2
    assert len(distance.argmin(dim=1).unique()) == len(expected)


@pytest.mark.parametrize("record", cases(CASES))
def test_outputs(nets, records, recipe, record):
    net = nets(record).eval()
    expected, tensors = records(record)
    summary = expected["eval"]
    image = recipe.recipe_image()
    with torch.no_grad():
        stages = net.backbone(image)
        pyramid = (
            net.neck.recurse(image, stages) if hasattr(net.neck, "recurse") else net.neck(stages)
        )
        raw = net.raw(image)
        recorded_stages = summary["backbone"][-4:]  # that of DetectoRS begins with the image
        for stage, stage_summary in zip(stages, recorded_stages, strict=True):
            close(recipe.samples(stage), torch.tensor(stage_summary["sample"]))
        for level, level_summary in zip(pyramid, summary["fpn"], strict=True):
            assert list(level.shape) == level_summary["shape"]
            close(recipe.samples(level), torch.tensor(level_summary["sample"]))
            assert float(level.std(correction=0)) == pytest.approx(level_summary["std"], rel=1e-4)
        close(pyramid[3], tensors["fpn3"])
        close(pyramid[4], tensors["fpn4"])
        cls = raw["objectness"] if record in TWO_STAGE else raw["cls"]
        close(torch.cat([level.flatten(2) for level in cls], dim=2), tensors["head_cls"])
        close(torch.cat([level.flatten(2) for level in raw["reg"]], dim=2), tensors["head_reg"])
        if record in TWO_STAGE:
            check_second_stage(net, raw, summary, tensors, ordered="detectors" not in record)
            pooled = net.roi_head.pooler(pyramid, tensors["rois"])
            close(recipe.samples(pooled), torch.tensor(summary["roi_feat_stage0"]["sample"]))
        check_final(net, raw, summary, tensors)


def check_second_stage(net, raw, summary, tensors, ordered):
    (proposals,) = net.rpn_head.decode(raw, [(256, 320)])
    assert len(proposals) == summary["num_proposals"]
    assert float(proposals[:, 4].double().sum()) == pytest.approx(
        summary["proposal_score_sum"], rel=1e-6
    )
    check_proposals(proposals, tensors["proposals_top300"], ordered)
    rois = tensors["rois"][:, 1:]
    assert net.roi_head.pooler.levels(rois).tolist() == summary["roi_levels"]
    for stage in range(len(net.roi_head.stages)):
        logits, offsets = net.roi_head(raw["pyramid"], [rois], stage)
        close(logits, tensors[f"roi_cls_stage{stage}"])
        close(offsets, tensors[f"roi_reg_stage{stage}"])


def check_final(net, raw, summary, tensors):
    head = net if hasattr(net, "limits") else net.roi_head

    def decode(size, score_thr=summary["score_thr_used"]):
        head.limits = replace(head.limits, score_thr=score_thr)
        return net.decode(raw, [size])[0]

    usual = decode((256, 320), summary["config_score_thr"])
    assert len(usual["boxes"]) == summary["num_detections_at_config_thr"]
    check_detections(decode((256, 320)), tensors["det_boxes_scores"], tensors["det_labels"])
    padded = summary["det_padded_rescaled"]
    found = decode(tuple(padded["img_shape"]))
    boxes_scores, labels = (
        tensors["det_padded_rescaled_boxes_scores"],
        tensors["det_padded_rescaled_labels"],
    )
    check_detections(found, boxes_scores, labels, padded["scale_factor"])


def train_cases():
    """All recorded cases."""
    ids = [
        (record, case) for record in CASES for case in ("train_b1", "train_b2", "train_b1_padded")
    ]
    quick = [(record, "train_b1") for record in QUICK]
    return [pytest.param(*one, marks=() if one in quick else pytest.mark.slow) for one in ids]


@pytest.mark.parametrize(("record", "case_id"), train_cases())
def test_losses_and_gradients(nets, records, recipe, truth, record, case_id, check_training):
    case = records(record)[0][case_id]
    # The gradients of DetectoRS' switches and offsets are differences of nearly equal sums: up to
    # 4e-6 apart.
    noise = 1e-5 if "detectors" in record else 1e-9
    check_training(nets(record), case, recipe.recipe_image(len(case["gts"])), truth(case), noise)


@pytest.mark.parametrize("record", cases(CASES))
def test_keys_and_frozen_parameters(record, nets, check_keys):
    check_keys(nets(record), record)
