"""The model YAMLs against the configurations that the records were made with."""

import pytest

from rfla.cfg.model_files import model_config, read_model_yaml

OPTIM = {
    "retinanet_rfla": ("retinanet", "rfla"),
    "faster_rfla": ("faster_rcnn", "rfla"),
    "faster_base": ("faster_rcnn", "baseline"),
    "cascade_rfla": ("cascade_rcnn", "rfla"),
    "cascade_base": ("cascade_rcnn", "baseline"),
    "detectors_rfla": ("detectors", "rfla"),
    "detectors_base": ("detectors", "baseline"),
}
MODELS = ["retinanet_rfla", "faster_rfla", "faster_base", "cascade_rfla", "detectors_rfla", "detectors_base"]


@pytest.mark.parametrize("record", OPTIM)
def test_training_settings(parity, record):
    case = next(case for case in parity("optim")[0]["cases"] if case["model"] == record)
    settings = read_model_yaml(*OPTIM[record])
    optimizer, schedule = case["optimizer"], case["lr_config"]
    assert (settings["optimizer"], settings["lr0"]) == ("sgd", optimizer["lr"])
    assert (settings["momentum"], settings["weight_decay"]) == (optimizer["momentum"], optimizer["weight_decay"])
    # no paramwise_cfg: biases learn and decay like everything else
    assert "paramwise_cfg" not in optimizer
    assert (settings["bias_lr_mult"], settings["bias_decay"]) == (1.0, 1.0)
    assert settings["clip_grad"] == (case["optimizer_config"]["grad_clip"] or 0)
    assert settings["lr_steps"] == schedule["step"]
    assert settings["warmup"] == schedule["warmup"]
    assert settings["warmup_iters"] == schedule["warmup_iters"]
    assert settings["warmup_ratio"] == pytest.approx(schedule["warmup_ratio"])
    assert (settings["epochs"], settings["batch"]) == (case["runner"]["max_epochs"], case["samples_per_gpu"])


@pytest.mark.parametrize("record", MODELS)
def test_model_settings(parity, record):
    theirs = parity(f"models/{record}")[0]["model_cfg"]
    config = model_config(*OPTIM[record])
    backbone = theirs["backbone"]
    assert config.backbone.name == f"resnet{backbone['depth']}"
    assert config.backbone.style == backbone["style"]
    assert config.backbone.frozen_stages == backbone["frozen_stages"]
    assert (config.backbone.norm_eval, config.backbone.norm_trainable) == (True, True)
    assert config.neck.width == theirs["neck"]["out_channels"]
    assert config.neck.levels == theirs["neck"]["num_outs"]
    if "rpn_head" in theirs:
        check_rpn(config, theirs)
        check_roi(config, theirs)
    else:
        test = theirs["test_cfg"]
        assert (config.test.nms_pre, config.test.score_thr) == (test["nms_pre"], test["score_thr"])
        assert (config.test.max_det, config.test.nms_iou) == (test["max_per_img"], test["nms"]["iou_threshold"])


def check_rpn(config, theirs):
    train, test, head = theirs["train_cfg"]["rpn"], theirs["test_cfg"]["rpn"], theirs["rpn_head"]
    assert config.rpn.pos_fraction == train["sampler"]["pos_fraction"]
    assert config.assigner.allowed_border == train["allowed_border"]
    assert config.rpn.box_loss == {"L1Loss": "l1", "SmoothL1Loss": "smooth_l1"}[head["loss_bbox"]["type"]]
    assert config.rpn.beta == pytest.approx(head["loss_bbox"].get("beta", config.rpn.beta))
    assert config.head.width == head["feat_channels"]
    for limits in (test, theirs["train_cfg"]["rpn_proposal"]):
        assert (config.rpn.nms_pre, config.rpn.max_proposals) == (limits["nms_pre"], limits["max_per_img"])
        assert config.rpn.nms_iou == limits["nms"]["iou_threshold"]
    rule = train["assigner"]
    if rule["type"] == "HieAssigner":
        assert (config.assigner.distance, rule["assign_metric"]) == ("kld", "kl")
        assert (list(config.assigner.topk), config.assigner.decay) == (rule["topk"], rule["ratio"])
        assert config.assigner.fraction == head["anchor_generator"]["fraction"]
    else:
        ours = (config.anchors.pos_iou, config.anchors.neg_iou, config.anchors.min_pos_iou)
        assert ours == (rule["pos_iou_thr"], rule["neg_iou_thr"], rule["min_pos_iou"])
        assert [config.anchors.scale] == head["anchor_generator"]["scales"]
        assert list(config.anchors.ratios) == head["anchor_generator"]["ratios"]


def check_roi(config, theirs):
    heads, stages = theirs["roi_head"]["bbox_head"], theirs["train_cfg"]["rcnn"]
    heads, stages = (part if isinstance(part, list) else [part] for part in (heads, stages))
    weights = theirs["roi_head"].get("stage_loss_weights", [1])
    assert list(config.roi.pos_iou) == [stage["assigner"]["pos_iou_thr"] for stage in stages]
    assert list(config.roi.stage_weights) == weights
    assert [list(stds) for stds in config.roi.stds] == [head["bbox_coder"]["target_stds"] for head in heads]
    assert config.roi.class_agnostic == heads[0]["reg_class_agnostic"]
    assert config.roi.width == heads[0]["fc_out_channels"]
    assert config.roi.pool_size == heads[0]["roi_feat_size"]
    assert config.roi.box_loss == {"L1Loss": "l1", "SmoothL1Loss": "smooth_l1"}[heads[0]["loss_bbox"]["type"]]
    assert config.roi.pos_fraction == stages[0]["sampler"]["pos_fraction"]
    limits = theirs["test_cfg"]["rcnn"]
    assert (config.test.score_thr, config.test.max_det) == (limits["score_thr"], limits["max_per_img"])
    assert config.test.nms_iou == limits["nms"]["iou_threshold"]
