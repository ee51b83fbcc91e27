"""From a checked `ModelConfig` to the parts of a detector with anchors.

The config object stops here.
"""

from rfla.assign import ATSSAssigner, MaxIoUAssigner, RandomSampler
from rfla.cfg.model_schema import ModelConfig
from rfla.errors import ConfigError
from rfla.models.backbones.detectors_resnet import DetectorsResNet
from rfla.models.build_dense import (
    build_backbone,
    build_hierarchical,
    build_limits,
    build_neck,
    receptive_fields,
)
from rfla.models.cascade_rcnn import CascadeRCNN
from rfla.models.detectors import DetectoRS
from rfla.models.faster_rcnn import FasterRCNN
from rfla.models.heads.priors import Anchors, Assigner
from rfla.models.heads.retina import RetinaHead
from rfla.models.heads.roi import BoxHead, RoIHead, Stage
from rfla.models.heads.rpn import RPNHead
from rfla.models.necks.fpn import FPN
from rfla.models.necks.rfp import RFP
from rfla.models.retinanet import RetinaNet
from rfla.models.roi_align import RoIAlignPyramid
from rfla.ops.coding import DeltaCoder

ROI_LEVELS = 4  # RoIs are pooled from P2 to P5
FED_BACK = 4  # levels P2 to P5: the last three go back into the later backbones of DetectoRS


def build_anchor_assigner(config: ModelConfig) -> Assigner:
    """Assigner of a head that predicts from anchors."""
    if config.assigner.name == "rfla":
        return build_hierarchical(config)
    if config.assigner.name == "atss":
        return ATSSAssigner(config.assigner.atss_topk)
    rule = config.anchors
    return MaxIoUAssigner(rule.pos_iou, rule.neg_iou, rule.min_pos_iou, match_low_quality=True)


def build_anchors(config: ModelConfig, strides: list[int]) -> Anchors:
    """Receptive fields with `assigner=rfla`, otherwise the anchors of the baseline."""
    section, border = config.anchors, config.assigner.allowed_border
    rfla = config.assigner.name == "rfla"
    octaves = [2 ** (step / section.octave_scales) for step in range(section.octave_scales)]
    return Anchors(
        build_anchor_assigner(config),
        strides,
        receptive_fields(config) if rfla else [section.scale * stride for stride in strides],
        fraction=config.assigner.fraction if rfla else 1.0,
        ratios=section.ratios,
        scales=(1.0,) if rfla else octaves,
        allowed_border=None if border < 0 else border,
    )


def build_retinanet(config: ModelConfig, num_classes: int) -> RetinaNet:
    """RetinaNet on P3 to P7."""
    backbone = build_backbone(config)
    neck = build_neck(config, backbone.channels)
    anchors = build_anchors(config, neck.strides)
    head, loss = config.head, config.loss
    return RetinaNet(
        backbone,
        neck,
        RetinaHead(neck.width, num_classes, anchors.per_cell, head.width, head.depth, head.norm),
        anchors,
        build_limits(config),
        num_classes=num_classes,
        box_loss_kind=loss.box,
        loss_weights=(loss.cls_weight, loss.box_weight),
        focal=(loss.focal_alpha, loss.focal_gamma),
    )


def build_rpn_head(config: ModelConfig, neck: FPN) -> RPNHead:
    """RPN on all levels of the pyramid."""
    section = config.rpn
    return RPNHead(
        neck.width,
        build_anchors(config, neck.strides),
        RandomSampler(section.samples, section.pos_fraction),
        width=config.head.width,
        beta=section.beta if section.box_loss == "smooth_l1" else 0.0,
        target_anchor_scale=section.target_anchor_scale,
        nms_pre=section.nms_pre,
        nms_iou=section.nms_iou,
        max_proposals=section.max_proposals,
    )


def build_roi_head(config: ModelConfig, neck: FPN, num_classes: int) -> RoIHead:
    """Box heads of all stages."""
    section = config.roi
    features = neck.width * section.pool_size**2
    return RoIHead(
        RoIAlignPyramid(neck.strides[:ROI_LEVELS], section.pool_size, section.finest_scale),
        [
            BoxHead(features, num_classes, section.width, section.class_agnostic)
            for _ in section.pos_iou
        ],
        [
            Stage(MaxIoUAssigner(iou, iou, iou, match_low_quality=False), DeltaCoder(stds), weight)
            for iou, stds, weight in zip(
                section.pos_iou, section.stds, section.stage_weights, strict=True
            )
        ],
        RandomSampler(section.samples, section.pos_fraction),
        build_limits(config),
        num_classes=num_classes,
        beta=section.beta if section.box_loss == "smooth_l1" else 0.0,
    )


def build_two_stage(config: ModelConfig, num_classes: int) -> FasterRCNN:
    """Faster R-CNN, or Cascade R-CNN where `roi` has several stages."""
    backbone = build_backbone(config)
    neck = build_neck(config, backbone.channels)
    rpn_head, roi_head = build_rpn_head(config, neck), build_roi_head(config, neck, num_classes)
    kind = FasterRCNN if len(config.roi.pos_iou) == 1 else CascadeRCNN
    return kind(backbone, neck, rpn_head, roi_head, num_classes=num_classes)


def build_detectors(config: ModelConfig, num_classes: int) -> DetectoRS:
    """DetectoRS with `neck.steps` passes.

    Raises:
        ConfigError: the pyramid is not the one that the later passes take back in.
    """
    if config.neck.start_level != 2 or config.neck.levels < FED_BACK or config.neck.extra != "pool":
        raise ConfigError(
            f"detectors feeds P3 to P5 back: neck.start_level=2 neck.extra=pool neck.levels>={FED_BACK}"
        )
    section, width = config.backbone, config.neck.width
    options = (
        section.name,
        section.style,
        section.frozen_stages,
        section.norm_eval,
        section.norm_trainable,
    )
    backbone = DetectorsResNet(*options)
    later = [
        DetectorsResNet(*options, feedback_channels=width // 4 * 4)
        for _ in range(config.neck.steps - 1)
    ]
    neck = RFP(backbone.channels, later, width, config.neck.levels)
    rpn_head, roi_head = build_rpn_head(config, neck), build_roi_head(config, neck, num_classes)
    return DetectoRS(backbone, neck, rpn_head, roi_head, num_classes=num_classes)
