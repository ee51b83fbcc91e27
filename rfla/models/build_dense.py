"""From a checked `ModelConfig` to the parts of a one-stage detector.

The config object stops here.
"""

from typing import Literal

from rfla.assign import ATSSAssigner, HierarchicalAssigner, PointsAssigner, resnet_receptive_fields
from rfla.assign.points import FCOS_RANGES
from rfla.cfg.model_schema import ModelConfig
from rfla.models.autoassign import AutoAssign
from rfla.models.backbones.resnet import ResNet
from rfla.models.fcos import FCOS
from rfla.models.heads.fcos import FCOSHead
from rfla.models.heads.priors import Assigner, Points
from rfla.models.necks.fpn import FPN
from rfla.ops.nms import Limits

RFLA_CENTERNESS_FLOOR = 0.01  # of the authors' RFLA head; their baseline head has none


def build_backbone(config: ModelConfig) -> ResNet:
    """ResNet as configured, with random weights."""
    section = config.backbone
    return ResNet(
        section.name,
        section.style,
        section.frozen_stages,
        section.norm_eval,
        section.norm_trainable,
    )


def build_neck(config: ModelConfig, in_channels: list[int]) -> FPN:
    """Feature pyramid as configured."""
    section = config.neck
    return FPN(
        in_channels,
        section.width,
        section.start_level,
        section.levels,
        section.extra,
        section.relu_before_extra,
        gain_by_input=config.detector == "autoassign",
    )


def receptive_fields(config: ModelConfig) -> list[float]:
    """Full side (px) of the theoretical receptive field of each pyramid level, finest first.

    ATSS ranks square anchors in their place, 8 strides wide (arXiv 1912.02424, section 4).
    """
    if config.assigner.name == "atss":
        first = config.neck.start_level
        return [8.0 * 2 ** (first + level) for level in range(config.neck.levels)]
    network = config.backbone.name if config.assigner.fields == "backbone" else "resnet50"
    first = config.neck.start_level
    levels = range(first, first + config.neck.levels)
    return [
        float(side) for side in resnet_receptive_fields(int(network.removeprefix("resnet")), levels)
    ]


def build_hierarchical(config: ModelConfig) -> HierarchicalAssigner:
    """The paper's assigner."""
    section = config.assigner
    return HierarchicalAssigner(
        distance=section.distance,
        topk=section.topk,
        decay=section.decay,
        centers_inside=section.centers_inside,
        ignore_above=section.ignore_above,
        conflict=section.conflict,
    )


def build_point_assigner(config: ModelConfig) -> Assigner:
    """Assigner of a detector that predicts from points."""
    if config.assigner.name == "rfla":
        return build_hierarchical(config)
    if config.assigner.name == "atss":
        return ATSSAssigner(topk=config.assigner.atss_topk)
    radius = config.assigner.center_radius
    return PointsAssigner(
        _regress_ranges(config.neck.levels), center_sampling=radius > 0, center_radius=radius
    )


def _regress_ranges(levels: int) -> list[tuple[float, float]]:
    """The ranges of FCOS for any number of levels; the last one has no upper end."""
    ranges = [*FCOS_RANGES[: levels - 1]] + [
        (64.0 * 2**level, 64.0 * 2 ** (level + 1)) for level in range(4, levels)
    ]
    ranges = ranges[: levels - 1]
    return [*ranges, (ranges[-1][1] if ranges else -1.0, FCOS_RANGES[-1][1])]


def build_points(config: ModelConfig, neck: FPN, offset: Literal["half", "corner"]) -> Points:
    """The points of all levels and who assigns them: nobody in AutoAssign's own rule."""
    own_rule = config.detector == "autoassign" and config.assigner.name == "baseline"
    return Points(
        None if own_rule else build_point_assigner(config),
        neck.strides,
        receptive_fields(config),
        fraction=1.0 if config.assigner.name == "atss" else config.assigner.fraction,
        offset=offset,
    )


def build_limits(config: ModelConfig) -> Limits:
    """Which detections are kept."""
    return Limits(**config.test.model_dump())


def build_fcos(config: ModelConfig, num_classes: int) -> FCOS:
    """FCOS, on P3 to P7 or P2 to P6."""
    backbone, section, loss = build_backbone(config), config.head, config.loss
    neck = build_neck(config, backbone.channels)
    return FCOS(
        backbone,
        neck,
        FCOSHead(neck.width, num_classes, neck.strides, section.width, section.depth, section.norm),
        build_points(config, neck, "half"),
        build_limits(config),
        num_classes=num_classes,
        box_loss_kind=loss.box,
        loss_weights=(loss.cls_weight, loss.box_weight, loss.centerness_weight),
        focal=(loss.focal_alpha, loss.focal_gamma),
        centerness_floor=0.0 if config.assigner.name == "baseline" else RFLA_CENTERNESS_FLOOR,
    )


def build_autoassign(config: ModelConfig, num_classes: int) -> AutoAssign:
    """AutoAssign, on P3 to P7.

    `assigner=baseline` lets each box choose among all points inside it.
    """
    backbone, section = build_backbone(config), config.head
    neck = build_neck(config, backbone.channels)
    start = {"start_probability": 0.02, "start_distance": 4.0}
    return AutoAssign(
        backbone,
        neck,
        FCOSHead(
            neck.width,
            num_classes,
            neck.strides,
            section.width,
            section.depth,
            section.norm,
            **start,
        ),
        build_points(config, neck, "corner"),
        build_limits(config),
        num_classes=num_classes,
        box_loss_kind=config.loss.box,
        box_weight=config.loss.box_weight,
    )
