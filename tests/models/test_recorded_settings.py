"""The model YAMLs against the configurations that the records were made with, value by value.

Every value of a recorded configuration is either compared with a setting of ours or named in
`FIXED`, the values that our code has built in. One that is neither fails the test.
"""

import json
import os
import re
from pathlib import Path

import pytest
import torch

from rfla.cfg import Config, load_config, model_config
from rfla.engine.optimizer import parameter_groups
from rfla.models.mmdet import our_key
from rfla.models.zoo import DETECTORS

# What a person types for each recorded configuration.
OPTIM = {
    "fcos_p3_rfla": {"model": "fcos"},
    "fcos_p3_base": {"model": "fcos", "assigner": "baseline"},
    "fcos_p2_rfla": {"model": "fcos_p2"},
    "fcos_p2_base": {"model": "fcos_p2", "assigner": "baseline"},
    "retinanet_rfla": {"model": "retinanet"},
    "autoassign_rfla": {"model": "autoassign"},
    "autoassign_base": {"model": "autoassign", "assigner": "baseline"},
    "faster_rfla": {"model": "faster_rcnn"},
    "faster_rfla_wd": {"model": "faster_rcnn", "assigner.distance": "wd"},
    "faster_base": {"model": "faster_rcnn", "assigner": "baseline"},
    "cascade_rfla": {"model": "cascade_rcnn"},
    "cascade_base": {"model": "cascade_rcnn", "assigner": "baseline"},
    "detectors_rfla": {"model": "detectors"},
    "detectors_base": {"model": "detectors", "assigner": "baseline"},
    "dota_faster_rfla": {"model": "faster_rcnn", "data": "dota2"},
    "dota_fcos_rfla": {"model": "fcos", "data": "dota2"},
}


@pytest.fixture(params=OPTIM)
def training(request, parity) -> tuple[Config, dict]:
    """Our settings and the recorded case."""
    case = next(case for case in parity("optim")[0]["cases"] if case["model"] == request.param)
    return load_config({"data": "aitod", **OPTIM[request.param]}), case


def test_every_recorded_configuration_is_compared(parity):
    assert {case["model"] for case in parity("optim")[0]["cases"]} <= OPTIM.keys()


def test_training_settings(training):
    ours, case = training
    optimizer, schedule = case["optimizer"], case["lr_config"]
    rules = optimizer.get("paramwise_cfg", {})
    clip = case["optimizer_config"]["grad_clip"]
    assert (ours.optimizer, ours.lr0) == ("sgd", optimizer["lr"])
    assert (ours.momentum, ours.weight_decay) == (optimizer["momentum"], optimizer["weight_decay"])
    assert ours.bias_lr_mult == rules.get("bias_lr_mult", 1)
    assert ours.bias_decay == rules.get("bias_decay_mult", 1)
    assert ours.norm_decay == rules.get("norm_decay_mult", 1)
    assert ours.clip_grad == (clip["max_norm"] if clip else 0)
    assert (schedule["policy"], list(ours.lr_steps), ours.lr_gamma) == (
        "step",
        schedule["step"],
        0.1,
    )
    assert (ours.warmup, ours.warmup_iters) == (schedule["warmup"], schedule["warmup_iters"])
    assert ours.warmup_ratio == pytest.approx(schedule["warmup_ratio"])
    assert (ours.epochs, ours.batch) == (case["runner"]["max_epochs"], case["samples_per_gpu"])
    assert ours.imgsz == (1024 if "dota" in case["model"] else 800)


def test_rate_and_decay_of_every_parameter(training):
    """Our optimiser's groups of the real network, against those that mmcv made of the authors'."""
    ours, case = training
    with torch.device("meta"):
        net = DETECTORS[ours.detector].from_config(ours, 8)
    groups = parameter_groups(
        net,
        ours.lr0,
        ours.weight_decay,
        ours.bias_lr_mult,
        ours.bias_decay,
        ours.backbone_lr_mult,
        ours.norm_decay,
    )
    recorded, usual = {}, None
    for text, entry in case["param_settings"].items():
        setting = tuple(float(number) for number in text.strip("()").split(","))[:2]
        if isinstance(entry["keys"], list):
            recorded |= {our_key(key): setting for key in entry["keys"]}
        else:
            usual = setting
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    found = {
        names[id(p)]: (group["lr"], group["weight_decay"])
        for group in groups
        for p in group["params"]
    }
    assert recorded.keys() <= found.keys()
    assert len(found) == case["n_params_in_optimizer"] - case["params_in_optimizer_without_grad"]
    for name, setting in found.items():
        assert setting == pytest.approx(recorded.get(name, usual)), name


MODELS = (
    Path(os.environ.get("RFLA_PARITY", Path(__file__).parents[3] / "shared" / "parity")) / "models"
)


def leaves(value, prefix=""):
    """Dotted names and values of a nested configuration.

    The heads and rules of a cascade are numbered.
    """
    if isinstance(value, dict):
        for key, part in value.items():
            yield from leaves(part, f"{prefix}.{key}" if prefix else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for index, part in enumerate(value):
            yield from leaves(part, f"{prefix}.{index}")
    else:
        yield prefix, value


def stage(match):
    return int(match[1] or 0)


LOSSES = {"DIoULoss": "diou", "GIoULoss": "giou", "L1Loss": "l1", "SmoothL1Loss": "smooth_l1"}
EXTRA = {
    "on_output": "on_output",
    "on_input": "on_input",
    True: "on_input",
}  # True: on C5, for compatibility's sake
ASSIGNER = {"HieAssigner": "rfla", "MaxIoUAssigner": "baseline"}
RCNN = r"train_cfg\.rcnn(?:\.(\d))?"
BOX_HEAD = r"roi_head\.bbox_head(?:\.(\d))?"
# Name in the recorded configuration; what ours says of it; how theirs is written in our words.
SETTINGS = [
    (r"type", lambda c, m: {"fcos": "FCOS", "retinanet": "RetinaNet", "autoassign": "AutoAssign",
                            "faster_rcnn": "FasterRCNN", "cascade_rcnn": "CascadeRCNN",
                            "detectors": "CascadeRCNN"}[c.detector], None),
    (r"(?:neck\.rfp_)?backbone\.type",
     lambda c, m: "DetectoRS_ResNet" if c.detector == "detectors" else "ResNet", None),
    (r"(?:neck\.rfp_)?backbone\.depth",
     lambda c, m: int(c.backbone.name.removeprefix("resnet")), None),
    (r"(?:neck\.rfp_)?backbone\.frozen_stages", lambda c, m: c.backbone.frozen_stages, None),
    (r"(?:neck\.rfp_)?backbone\.norm_eval", lambda c, m: c.backbone.norm_eval, None),
    (r"(?:neck\.rfp_)?backbone\.norm_cfg\.requires_grad",
     lambda c, m: c.backbone.norm_trainable, None),
    (r"(?:neck\.rfp_)?backbone\.style", lambda c, m: c.backbone.style, None),
    (r"neck\.type", lambda c, m: "RFP" if c.detector == "detectors" else "FPN", None),
    (r"neck\.(?:out_channels|rfp_backbone\.rfp_inplanes)", lambda c, m: c.neck.width, None),
    (r"neck\.start_level", lambda c, m: c.neck.start_level, lambda value: value + 2),
    (r"neck\.num_outs", lambda c, m: c.neck.levels, None),
    (r"neck\.add_extra_convs", lambda c, m: c.neck.extra, EXTRA.get),
    (r"neck\.relu_before_extra_convs", lambda c, m: c.neck.relu_before_extra, None),
    (r"neck\.rfp_steps", lambda c, m: c.neck.steps, None),
    (r"neck\.aspp_out_channels", lambda c, m: c.neck.width // 4, None),
    (r"(?:bbox|rpn)_head\.in_channels", lambda c, m: c.neck.width, None),
    (r"(?:bbox|rpn)_head\.feat_channels", lambda c, m: c.head.width, None),
    (r"bbox_head\.stacked_convs", lambda c, m: c.head.depth, None),
    (r"bbox_head\.norm_cfg",
     lambda c, m: c.head.norm, lambda value: "none" if value is None else value),
    (r"(?:bbox|rpn)_head\.(?:anchor_generator\.)?strides",
     lambda c, m: [2 ** (c.neck.start_level + level) for level in range(c.neck.levels)], None),
    (r"(?:bbox|rpn)_head\.(?:anchor_generator\.)?fpn_layer",
     lambda c, m: f"p{c.neck.start_level}", None),
    (r"(?:bbox|rpn)_head\.(?:anchor_generator\.)?fraction", lambda c, m: c.assigner.fraction, None),
    (r"rpn_head\.anchor_generator\.scales", lambda c, m: [c.anchors.scale], None),
    (r"rpn_head\.anchor_generator\.ratios", lambda c, m: list(c.anchors.ratios), None),
    (r"bbox_head\.center_sampling", lambda c, m: c.assigner.center_radius == 1.5, None),
    (r"bbox_head\.loss_bbox\.type", lambda c, m: c.loss.box, LOSSES.get),
    (r"bbox_head\.loss_bbox\.loss_weight", lambda c, m: c.loss.box_weight, None),
    (r"bbox_head\.loss_cls\.loss_weight", lambda c, m: c.loss.cls_weight, None),
    (r"bbox_head\.loss_cls\.alpha", lambda c, m: c.loss.focal_alpha, None),
    (r"bbox_head\.loss_cls\.gamma", lambda c, m: c.loss.focal_gamma, None),
    (r"bbox_head\.loss_centerness\.loss_weight", lambda c, m: c.loss.centerness_weight, None),
    (r"rpn_head\.loss_bbox\.type", lambda c, m: c.rpn.box_loss, LOSSES.get),
    (r"rpn_head\.loss_bbox\.beta", lambda c, m: c.rpn.beta, None),
    (r"roi_head\.type",
     lambda c, m: "CascadeRoIHead" if len(c.roi.pos_iou) > 1 else "StandardRoIHead", None),
    (r"roi_head\.num_stages", lambda c, m: len(c.roi.pos_iou), None),
    (r"roi_head\.stage_loss_weights", lambda c, m: list(c.roi.stage_weights), None),
    (r"roi_head\.bbox_roi_extractor\.roi_layer\.output_size", lambda c, m: c.roi.pool_size, None),
    (r"roi_head\.bbox_roi_extractor\.out_channels", lambda c, m: c.neck.width, None),
    (BOX_HEAD + r"\.in_channels", lambda c, m: c.neck.width, None),
    (BOX_HEAD + r"\.fc_out_channels", lambda c, m: c.roi.width, None),
    (BOX_HEAD + r"\.roi_feat_size", lambda c, m: c.roi.pool_size, None),
    (BOX_HEAD + r"\.bbox_coder\.target_stds", lambda c, m: list(c.roi.stds[stage(m)]), None),
    (BOX_HEAD + r"\.reg_class_agnostic", lambda c, m: c.roi.class_agnostic, None),
    (BOX_HEAD + r"\.loss_bbox\.type", lambda c, m: c.roi.box_loss, LOSSES.get),
    (BOX_HEAD + r"\.loss_bbox\.beta", lambda c, m: c.roi.beta, None),
    (r"train_cfg\.(?:rpn\.)?assigner\.type", lambda c, m: c.assigner.name, ASSIGNER.get),
    (r"train_cfg\.(?:rpn\.)?assigner\.assign_metric",
     lambda c, m: c.assigner.distance, {"kl": "kld", "wd": "wd"}.get),
    (r"train_cfg\.(?:rpn\.)?assigner\.topk", lambda c, m: list(c.assigner.topk), None),
    (r"train_cfg\.(?:rpn\.)?assigner\.ratio", lambda c, m: c.assigner.decay, None),
    (r"train_cfg\.(?:rpn\.)?assigner\.inside", lambda c, m: c.assigner.centers_inside, None),
    (r"train_cfg\.rpn\.assigner\.pos_iou_thr", lambda c, m: c.anchors.pos_iou, None),
    (r"train_cfg\.rpn\.assigner\.neg_iou_thr", lambda c, m: c.anchors.neg_iou, None),
    (r"train_cfg\.rpn\.assigner\.min_pos_iou", lambda c, m: c.anchors.min_pos_iou, None),
    (r"train_cfg\.(?:rpn\.)?allowed_border", lambda c, m: c.assigner.allowed_border, None),
    (r"train_cfg\.rpn\.sampler\.pos_fraction", lambda c, m: c.rpn.pos_fraction, None),
    (RCNN + r"\.sampler\.pos_fraction", lambda c, m: c.roi.pos_fraction, None),
    (RCNN + r"\.assigner\.(?:pos_iou_thr|neg_iou_thr|min_pos_iou)",
     lambda c, m: c.roi.pos_iou[stage(m)], None),
    (r"(?:train_cfg\.rpn_proposal|test_cfg\.rpn)\.nms_pre", lambda c, m: c.rpn.nms_pre, None),
    (r"(?:train_cfg\.rpn_proposal|test_cfg\.rpn)\.max_per_img",
     lambda c, m: c.rpn.max_proposals, None),
    (r"(?:train_cfg\.rpn_proposal|test_cfg\.rpn)\.nms\.iou_threshold",
     lambda c, m: c.rpn.nms_iou, None),
    (r"test_cfg\.nms_pre", lambda c, m: c.test.nms_pre, None),
    (r"test_cfg\.(?:rcnn\.)?max_per_img", lambda c, m: c.test.max_det, None),
    (r"test_cfg\.(?:rcnn\.)?score_thr", lambda c, m: c.test.score_thr, None),
    (r"test_cfg\.(?:rcnn\.)?nms\.iou_threshold", lambda c, m: c.test.nms_iou, None),
]  # fmt: skip
# Values that our code has built in, or that say nothing about numbers.
FIXED = {
    r"(backbone\.)?(pretrained|init_cfg)|neck\.rfp_backbone\.pretrained": (
        None,
    ),  # taken off for the records
    r".*gpu_assign_thr": (256, 512),  # when to fall back to the CPU
    r".*\.debug": (False,),
    r".*num_classes": (8, 18),  # an argument of build_detector
    r"(neck\.rfp_)?backbone\.(num_stages|out_indices)": (4, [0, 1, 2, 3]),
    r"(neck\.rfp_)?backbone\.norm_cfg\.type": ("BN",),
    r"(neck\.rfp_)?backbone\.conv_cfg\.type": ("ConvAWS",),
    r"(neck\.rfp_)?backbone\.sac\.(type|use_deform)": ("SAC", True),
    r"(neck\.rfp_)?backbone\.stage_with_sac": ([False, True, True, True],),
    r"backbone\.output_img": (True,),
    r"neck\.in_channels": ([256, 512, 1024, 2048],),
    r"neck\.init_cfg\.(type|layer)": (
        "Caffe2Xavier",
        "Conv2d",
    ),  # of AutoAssign alone, `gain_by_input`
    r"neck\.aspp_dilations": ([1, 3, 6, 1],),
    r"bbox_head\.type": (
        "FCOSHead",
        "RFLA_FCOSHead",
        "AutoAssignHead",
        "RFLA_AutoAssignHead",
        "RetinaHead",
    ),
    r"rpn_head\.type": ("RPNHead",),
    r"(bbox|rpn)_head\.anchor_generator\.type": ("RFGenerator", "AnchorGenerator"),
    r".*bbox_coder\.type": ("DeltaXYWHBBoxCoder",),
    r".*bbox_coder\.target_means": ([0.0] * 4,),
    r"(bbox|rpn)_head\.bbox_coder\.target_stds": ([1.0] * 4,),
    r"bbox_head\.(norm_on_bbox|centerness_on_reg|conv_bias|reg_decoded_bbox)": (True,),
    r"bbox_head\.dcn_on_last_conv": (False,),
    r"bbox_head\.loss_cls\.(type|use_sigmoid)": ("FocalLoss", True),
    r"bbox_head\.loss_centerness\.(type|use_sigmoid)": ("CrossEntropyLoss", True),
    r"rpn_head\.loss_cls\.(type|use_sigmoid)": ("CrossEntropyLoss", True),
    r"roi_head\..*loss_cls\.(type|use_sigmoid)": ("CrossEntropyLoss", False),
    r"(rpn_head|roi_head\.bbox_head(\.\d)?)\.loss_(cls|bbox)\.loss_weight": (1.0,),
    r"roi_head\.bbox_roi_extractor\.type": ("SingleRoIExtractor",),
    r"roi_head\.bbox_roi_extractor\.roi_layer\.(type|sampling_ratio)": ("RoIAlign", 0),
    r"roi_head\.bbox_roi_extractor\.featmap_strides": ([4, 8, 16, 32],),
    r"roi_head\.bbox_head(\.\d)?\.type": ("Shared2FCBBoxHead",),
    r"train_cfg": (None,),
    r"train_cfg\..*assigner\.type": ("MaxIoUAssigner",),  # of the box heads
    r"train_cfg\..*iou_calculator\.type|train_cfg\.assigner\.iou_calculator\.type": (
        "BboxDistanceMetric",
    ),
    r"train_cfg\.(.*\.)?ignore_iof_thr": (-1,),
    r"train_cfg\.(.*\.)?pos_weight": (-1,),
    r"train_cfg\.rpn\.assigner\.match_low_quality": (True,),
    r"train_cfg\.rcnn(\.\d)?\.assigner\.match_low_quality": (False,),
    r"train_cfg\.(rpn|rcnn(\.\d)?)\.sampler\.type": ("RandomSampler",),
    r"train_cfg\.(rpn|rcnn(\.\d)?)\.sampler\.num": (
        10**9,
    ),  # everything, for the records; 256 and 512 in training
    r"train_cfg\.(rpn|rcnn(\.\d)?)\.sampler\.neg_pos_ub": (-1,),
    r"train_cfg\.rpn\.sampler\.add_gt_as_proposals": (False,),
    r"train_cfg\.rcnn(\.\d)?\.sampler\.add_gt_as_proposals": (True,),
    r".*min_bbox_size": (0,),
    r".*nms\.type": ("nms",),
    r"train_cfg\.assigner\.(pos_iou_thr|neg_iou_thr|min_pos_iou)": (
        0.5,
        0.4,
        0,
    ),  # FCOS's own rule does not use it
}


@pytest.mark.parametrize(
    "record", sorted(path.name for path in MODELS.glob("*")) or ["fcos_p3_rfla"]
)
def test_model_settings(parity_dir, record):
    typed = dict(OPTIM[record])
    theirs = json.loads((parity_dir / "models" / record / "manifest.json").read_text())["model_cfg"]
    if typed.get("data") == "dota2":
        ours = load_config(typed)
    else:
        name, assigner = typed.pop("model"), typed.pop("assigner", None)
        ours = model_config(name, assigner, typed)
    compared = 0
    for name, value in leaves(theirs):
        rule = next(
            (
                (found, say, word)
                for key, say, word in SETTINGS
                if (found := re.fullmatch(key, name))
            ),
            None,
        )
        if (
            name == "train_cfg.assigner.type"
            and ours.detector == "fcos"
            and value == "MaxIoUAssigner"
        ):
            assert ours.assigner.name == "baseline"
        elif rule is None:
            allowed = [values for key, values in FIXED.items() if re.fullmatch(key, name)]
            assert allowed, f"{name}={value!r} is not compared"
            assert any(value in values for values in allowed), f"{name}={value!r}"
        else:
            found, say, word = rule
            assert say(ours, found) == (word(value) if word else value), name
            compared += 1
    assert compared > 20
    assert (ours.rpn.samples, ours.roi.samples) == (256, 512)
