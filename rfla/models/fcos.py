"""FCOS: a fully convolutional one-stage detector (arXiv 1904.01355), with RFLA or its own rule.

`loss` is here, and how it is built; `raw` and `assign` are in `PointDetector`, `decode` is in
`DenseDetector`. The parts of RFD (`rfd.py`) can be had one at a time: its box code
(`loss.coding=field`), its class scores (`loss.quality=max`), positives that weigh alike
(`loss.weighting=equal`), and no centerness.

Shapes: B images, P points over all levels, G boxes of one image, C classes. Boxes are xyxy in px of
the network input; distances (left, top, right, bottom) are in px in `raw`, in strides in the
targets and losses.
"""

from collections.abc import Sequence
from typing import Literal, Self

import torch
from torch import Tensor
from torch.nn import functional

from rfla.assign import IGNORED
from rfla.cfg.model_schema import ModelConfig
from rfla.errors import ConfigError
from rfla.models.assigners import build_assigner, points_baseline
from rfla.models.backbones.backbone import Backbone
from rfla.models.backbones.build import build_backbone
from rfla.models.detector import ImageSizes, Raw, StepLosses, Target, step_counts
from rfla.models.heads.fcos import FCOSHead
from rfla.models.heads.rfd import FieldHead
from rfla.models.limits import build_limits
from rfla.models.necks.fpn import FPN
from rfla.models.points import PointDetector, build_point_head, quality_class_loss
from rfla.models.priors import Points, build_points
from rfla.models.ranks import divisor_over_ranks, mean_over_ranks
from rfla.names import BoxLoss, Quality, QualityLoss, Weighting
from rfla.ops.boxes import boxes_to_distance, distance_to_boxes, flatten_levels
from rfla.ops.losses import box_loss, focal_loss
from rfla.ops.nms import DetectionLimits
from rfla.ops.quality import centerness, localization_quality

RFLA_CENTERNESS_FLOOR = 0.01  # of the authors' RFLA head; their baseline head has none


class FCOS(PointDetector):
    """FCOS on any pyramid.

    Args:
        backbone: pixels to stages.
        neck: stages to levels.
        head: levels to raw predictions: distances from the point to the sides, or the signed code
            of RFD.
        points: the points and their assigner.
        limits: which detections are kept.
        num_classes: without background.
        box_loss_kind: `diou`, `giou`, `iou` or `ciou`.
        quality: `none`, or what the class score of a positive point learns in place of 1, see
            `localization_quality`.
        cls_loss: how it learns that, see `quality_class_loss`; without a quality it is focal loss.
        weighting: what a positive weighs in the box loss: its `centerness`, its `quality`, or all
            alike (`equal`).
        loss_weights: of classification, box, centerness and coded sides.
        focal: alpha and gamma; gamma is the exponent of the quality focal loss too.
        centerness_floor: least distance to a side in the centerness target, in strides. RFLA has
            positive points outside their box, whose centerness would be undefined; the authors
            floor it at 0.01.
    """

    def __init__(
        self,
        backbone: Backbone,
        neck: FPN,
        head: FCOSHead | FieldHead,
        points: Points,
        limits: DetectionLimits,
        *,
        num_classes: int,
        box_loss_kind: BoxLoss = "diou",
        quality: Literal["none", Quality] = "none",
        cls_loss: QualityLoss = "quality_focal",
        weighting: Weighting = "centerness",
        loss_weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 0.5),
        focal: tuple[float, float] = (0.25, 2.0),
        centerness_floor: float = RFLA_CENTERNESS_FLOOR,
    ) -> None:
        super().__init__(backbone, neck, head, points, limits, num_classes=num_classes)
        self.box_loss_kind, self.loss_weights, self.focal = box_loss_kind, loss_weights, focal
        self.quality, self.cls_loss, self.weighting = quality, cls_loss, weighting
        self.centerness_floor = centerness_floor

    @classmethod
    def from_config(cls, config: ModelConfig, num_classes: int) -> Self:
        """Build FCOS, on P3 to P7 or P2 to P6, with random weights.

        Raises:
            ConfigError: positives weighed by a quality that is not measured.
        """
        loss = config.loss
        if loss.weighting == "quality" and loss.quality == "none":
            raise ConfigError("loss.weighting=quality needs loss.quality=iou, gaussian, max or kl")
        backbone = build_backbone(config.backbone)
        neck = FPN.from_config(config.neck, backbone)
        own_rule = points_baseline(config.assigner, len(neck.strides))
        assigner = build_assigner(config.assigner, baseline=own_rule)
        # Both stand for the quality, so one of them is enough, unless told otherwise.
        hard_labels = loss.quality == "none"
        with_centerness = hard_labels if loss.centerness is None else loss.centerness
        return cls(
            backbone,
            neck,
            build_point_head(config, neck, num_classes, centerness=with_centerness),
            build_points(config, backbone, neck.strides, assigner),
            build_limits(config.test),
            num_classes=num_classes,
            box_loss_kind=loss.box,
            quality=loss.quality,
            cls_loss=loss.cls,
            weighting=loss.weighting or ("centerness" if hard_labels else "equal"),
            loss_weights=(
                loss.cls_weight,
                loss.box_weight,
                loss.centerness_weight,
                loss.side_weight,
            ),
            focal=(loss.focal_alpha, loss.focal_gamma),
            centerness_floor=0.0 if config.assigner.name == "baseline" else RFLA_CENTERNESS_FLOOR,
        )

    def loss(self, raw: Raw, targets: Sequence[Target], image_sizes: ImageSizes) -> StepLosses:
        """`loss_cls`, `loss_bbox` and `loss_centerness`, in float32 whatever autocast says.

        With the signed code `loss_side` is added; a head without centerness has no loss of it.
        Points that learn nothing weigh 0 in place of being picked out: the host never waits for
        the device.
        """
        with torch.autocast(raw["cls"][0].device.type, enabled=False):
            matched = self.assign(raw, targets, image_sizes)  # (B, P)
            assert matched is not None  # only AutoAssign can do without an assigner
            positive = matched >= 0
            labels, gt_boxes = self.matched_boxes(raw, matched, targets)
            count = positive.sum()
            positives = divisor_over_ranks(count.float())
            strides = self.points.stride_of_each(raw["cls"])  # (P, 1)
            distances = boxes_to_distance(self.grid(raw).centers, gt_boxes) / strides  # (B, P, 4)
            pred, true = self._box_pairs(raw, gt_boxes, distances, strides)  # (B P, 4)
            cls_weight, box_weight, center_weight, side_weight = self.loss_weights

            central = torch.where(positive, centerness(distances, self.centerness_floor), 0.0)
            fit = central  # not looked at without a quality
            if self.quality != "none":
                fit = localization_quality(pred, true, self.quality).view_as(central)
                fit = torch.where(positive, fit, 0.0)
            loss_cls = self._class_loss(raw, labels, fit, matched, positives)
            losses = {"loss_cls": loss_cls * cls_weight}

            # Central points localise better (section 3.2 of the paper); but with RFLA those of tiny
            # boxes lie outside, and only equal weights let them learn.
            weight = {"centerness": central, "quality": fit, "equal": positive}[self.weighting]
            weight = weight.float()
            weight_sum = mean_over_ranks(weight.sum()).clamp(min=1e-6)
            box_losses = box_loss(pred, true, self.box_loss_kind) * weight.flatten()
            losses["loss_bbox"] = box_losses.sum() / weight_sum * box_weight

            if self.has_signed_code:
                code = flatten_levels(raw["reg"], 4)
                sides = torch.where(positive, self.coder(raw).side_errors(code, gt_boxes), 0.0)
                losses["loss_side"] = sides.sum() / positives * side_weight
            if "centerness" in raw:
                center_losses = functional.binary_cross_entropy_with_logits(
                    flatten_levels(raw["centerness"], 1)[..., 0].float(), central, reduction="none"
                )
                loss_center = center_losses.masked_fill(~positive, 0.0).sum() / positives
                losses["loss_centerness"] = loss_center * center_weight
        return StepLosses(losses, step_counts(count, targets))

    def _class_loss(
        self, raw: Raw, labels: Tensor, fit: Tensor, matched: Tensor, positives: Tensor
    ) -> Tensor:
        """Focal loss for each of the `positives`, or that of the `fit` (B, P) for each unit of it.

        Every point learns every class, but those in an ignore region.
        """
        logits = flatten_levels(raw["cls"], self.num_classes)  # (B, P, C)
        if self.quality != "none":
            return quality_class_loss(logits, labels, fit, matched, self.cls_loss, self.focal)
        classes = torch.arange(self.num_classes, device=labels.device)
        one_hot = (labels[..., None] == classes) & (matched >= 0)[..., None]
        losses = focal_loss(logits, one_hot, *self.focal)
        return losses.masked_fill((matched == IGNORED)[..., None], 0.0).sum() / positives

    def _box_pairs(
        self, raw: Raw, gt_boxes: Tensor, distances: Tensor, strides: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Predicted and true boxes (B P, 4): in px, or in strides round one origin.

        No score of a pair sees where the point is, so distances need not be added to it.
        """
        if self.has_signed_code:
            return self.boxes(raw).flatten(0, 1), gt_boxes.flatten(0, 1)
        pred = flatten_levels(raw["reg"], 4).float() / strides
        origin = pred.new_zeros(())
        pred_boxes = distance_to_boxes(origin, pred.flatten(0, 1))
        return pred_boxes, distance_to_boxes(origin, distances.flatten(0, 1))
