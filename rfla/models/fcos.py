"""FCOS: a fully convolutional one-stage detector (arXiv 1904.01355), with RFLA or its own rule.

`raw`, `assign` and `decode` are in `PointDetector`; `loss` is here, and how it is built. Two parts
of RFD (`rfd.py`) can be had one at a time: its box code (`loss.coding=field`) and its class scores
(`loss.quality=max`).

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
from rfla.models.assigners import build_assigner, points_baseline
from rfla.models.backbones.backbone import Backbone
from rfla.models.backbones.build import build_backbone
from rfla.models.detector import ImageSizes, Losses, Raw, StepLosses, Target, step_counts
from rfla.models.heads.fcos import FCOSHead
from rfla.models.heads.priors import Points, build_points
from rfla.models.heads.rfd import FieldHead
from rfla.models.limits import build_limits
from rfla.models.necks.fpn import FPN
from rfla.models.points import PointDetector, quality_class_loss
from rfla.names import BoxLoss, Coding, Quality
from rfla.ops.boxes import boxes_to_distance, distance_to_boxes, flatten_levels
from rfla.ops.losses import box_loss, focal_loss, mean_over_ranks
from rfla.ops.nms import DetectionLimits
from rfla.ops.quality import localization_quality

RFLA_CENTERNESS_FLOOR = 0.01  # of the authors' RFLA head; their baseline head has none


class FCOS(PointDetector):
    """FCOS on any pyramid.

    Args:
        backbone: pixels to stages.
        neck: stages to levels.
        head: levels to raw predictions.
        points: the points and their assigner.
        limits: which detections are kept.
        num_classes: without background.
        box_loss_kind: `diou`, `giou`, `iou` or `ciou`.
        coding: `distances` from the point to the sides, or `field`, the signed code of RFD; the
            head has to be made for it.
        quality: `none`, or what the class score of a positive point learns in place of 1, see
            `localization_quality`; the head then has no centerness.
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
        coding: Coding = "distances",
        quality: Literal["none", Quality] = "none",
        loss_weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 0.5),
        focal: tuple[float, float] = (0.25, 2.0),
        centerness_floor: float = RFLA_CENTERNESS_FLOOR,
    ) -> None:
        super().__init__(backbone, neck, head, points, limits, num_classes=num_classes)
        self.box_loss_kind, self.loss_weights, self.focal = box_loss_kind, loss_weights, focal
        self.coding, self.quality = coding, quality
        self.centerness_floor = centerness_floor

    @classmethod
    def from_config(cls, config: ModelConfig, num_classes: int) -> Self:
        """Build FCOS, on P3 to P7 or P2 to P6, with random weights."""
        section, loss = config.head, config.loss
        backbone = build_backbone(config.backbone)
        neck = FPN.from_config(config.neck, backbone)
        own_rule = points_baseline(config.assigner, len(neck.strides))
        assigner = build_assigner(config.assigner, baseline=own_rule)
        sizes = (section.width, section.depth, section.norm)
        centerness = loss.quality == "none"
        head: FCOSHead | FieldHead
        if loss.coding == "field":
            levels = len(neck.strides)
            head = FieldHead(neck.width, num_classes, levels, *sizes, centerness=centerness)
        else:
            head = FCOSHead(neck.width, num_classes, neck.strides, *sizes, centerness=centerness)
        return cls(
            backbone,
            neck,
            head,
            build_points(config, backbone, neck.strides, assigner),
            build_limits(config.test),
            num_classes=num_classes,
            box_loss_kind=loss.box,
            coding=loss.coding,
            quality=loss.quality,
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

        With `quality` a class score learns the fit of its box, and there is no centerness; with
        the signed code `loss_side` is added. Points that learn nothing weigh 0 in place of being
        picked out: the host never waits for the device.
        """
        with torch.autocast(raw["cls"][0].device.type, enabled=False):
            matched = self.points.assign(raw["cls"], targets, image_sizes)
            positive = matched >= 0
            labels, gt_boxes = self.matched_boxes(raw, matched, targets)
            count = positive.sum()
            positives = mean_over_ranks(count.float()).clamp(min=1)
            logits = flatten_levels(raw["cls"], self.num_classes)
            strides = self.points.stride_of_each(raw["cls"])
            distances = boxes_to_distance(self.grid(raw).centers, gt_boxes) / strides  # (B, P, 4)
            cls_weight, box_weight, center_weight, side_weight = self.loss_weights

            more: Losses = {}
            if self.coding == "field":
                coder, code = self.coder(raw), flatten_levels(raw["reg"], 4)
                pred, true = coder.decode(code).flatten(0, 1), gt_boxes.flatten(0, 1)
                side_losses = torch.where(positive, coder.side_errors(code, gt_boxes), 0.0)
                more["loss_side"] = side_losses.sum() / positives * side_weight
            else:
                # In strides round one origin: the IoU does not see where a point is.
                pred = _round_origin(flatten_levels(raw["reg"], 4).float() / strides)
                true = _round_origin(distances)

            if self.quality == "none":
                # Central points weigh more: they localise better (section 3.2 of the paper).
                weights = torch.where(positive, self._centerness(distances), 0.0)
                loss_cls = self._focal_losses(logits, labels, matched).sum() / positives
                center_losses = functional.binary_cross_entropy_with_logits(
                    flatten_levels(raw["centerness"], 1)[..., 0].float(), weights, reduction="none"
                )
                loss_center = center_losses.masked_fill(~positive, 0.0).sum() / positives
                more["loss_centerness"] = loss_center * center_weight
            else:
                # Positives weigh alike: by centre or fit those outside their box would be silenced.
                weights = positive.float()
                fit = localization_quality(pred, true, self.quality).view_as(weights) * weights
                loss_cls = quality_class_loss(logits, labels, fit, matched, self.focal[1])

            box_losses = box_loss(pred, true, self.box_loss_kind)
            weight_sum = mean_over_ranks(weights.sum()).clamp(min=1e-6)
            loss_box = (box_losses * weights.flatten()).sum() / weight_sum
            losses = {"loss_cls": loss_cls * cls_weight, "loss_bbox": loss_box * box_weight}
        return StepLosses(losses | more, step_counts(count, targets))

    def _focal_losses(self, logits: Tensor, labels: Tensor, matched: Tensor) -> Tensor:
        """(B, P, C): every point learns every class, but those in an ignore region."""
        classes = torch.arange(self.num_classes, device=labels.device)
        one_hot = (labels[..., None] == classes) & (matched >= 0)[..., None]
        losses = focal_loss(logits, one_hot, *self.focal)
        return losses.masked_fill((matched == IGNORED)[..., None], 0.0)

    def _centerness(self, distances: Tensor) -> Tensor:
        """How central a point is in its box, 0 to 1 (equation 3): (B, P, 4) to (B, P)."""
        left_right, top_bottom = distances[..., 0::2], distances[..., 1::2]
        sides = torch.stack((left_right, top_bottom), dim=-2)  # (B, P, 2 axes, 2 sides)
        nearest = sides.amin(dim=-1).clamp(min=self.centerness_floor)
        farthest = sides.amax(dim=-1).clamp(min=1e-6)
        return (nearest / farthest).prod(dim=-1).clamp(0, 1).sqrt()


def _round_origin(distances: Tensor) -> Tensor:
    """Boxes (B P, 4) of distances (B, P, 4) to the sides, each round the origin."""
    return distance_to_boxes(distances.new_zeros(()), distances.flatten(0, 1))
