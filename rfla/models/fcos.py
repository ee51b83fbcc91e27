"""FCOS: a fully convolutional one-stage detector (arXiv 1904.01355), with RFLA or its own rule.

`raw`, `assign` and `decode` are in `PointDetector`; `loss` is here, and how it is built.

Shapes: B images, P points over all levels, G boxes of one image, C classes. Boxes are xyxy in px of
the network input; distances (left, top, right, bottom) are in px in `raw`, in strides in the
targets and losses.
"""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from rfla.assign import IGNORED
from rfla.cfg.model_schema import ModelConfig
from rfla.models.assigners import build_assigner, points_baseline
from rfla.models.backbones.backbone import Backbone
from rfla.models.backbones.build import build_backbone
from rfla.models.detector import ImageSizes, Raw, StepLosses, Target, step_counts
from rfla.models.heads.fcos import FCOSHead
from rfla.models.heads.priors import Points, build_points
from rfla.models.limits import build_limits
from rfla.models.necks.fpn import FPN
from rfla.models.points import PointDetector
from rfla.ops.boxes import boxes_to_distance, distance_to_boxes, flatten_levels, pad_boxes
from rfla.ops.losses import BoxLoss, box_loss, focal_loss, mean_over_ranks
from rfla.ops.nms import DetectionLimits

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
        loss_weights: of classification, box and centerness.
        focal: alpha and gamma.
        centerness_floor: least distance to a side in the centerness target, in strides. RFLA has
            positive points outside their box, whose centerness would be undefined; the authors
            floor it at 0.01.
    """

    def __init__(
        self,
        backbone: Backbone,
        neck: FPN,
        head: FCOSHead,
        points: Points,
        limits: DetectionLimits,
        *,
        num_classes: int,
        box_loss_kind: BoxLoss = "diou",
        loss_weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
        focal: tuple[float, float] = (0.25, 2.0),
        centerness_floor: float = RFLA_CENTERNESS_FLOOR,
    ) -> None:
        super().__init__(backbone, neck, head, points, limits, num_classes=num_classes)
        self.box_loss_kind, self.loss_weights, self.focal = box_loss_kind, loss_weights, focal
        self.centerness_floor = centerness_floor

    @classmethod
    def from_config(cls, config: ModelConfig, num_classes: int) -> Self:
        """Build FCOS, on P3 to P7 or P2 to P6, with random weights."""
        section, loss = config.head, config.loss
        backbone = build_backbone(config.backbone)
        neck = FPN.from_config(config.neck, backbone)
        own_rule = points_baseline(config.assigner, len(neck.strides))
        assigner = build_assigner(config.assigner, baseline=own_rule)
        return cls(
            backbone,
            neck,
            FCOSHead(
                neck.width, num_classes, neck.strides, section.width, section.depth, section.norm
            ),
            build_points(config, backbone, neck.strides, assigner),
            build_limits(config.test),
            num_classes=num_classes,
            box_loss_kind=loss.box,
            loss_weights=(loss.cls_weight, loss.box_weight, loss.centerness_weight),
            focal=(loss.focal_alpha, loss.focal_gamma),
            centerness_floor=0.0 if config.assigner.name == "baseline" else RFLA_CENTERNESS_FLOOR,
        )

    def loss(self, raw: Raw, targets: Sequence[Target], image_sizes: ImageSizes) -> StepLosses:
        """`loss_cls` (focal), `loss_bbox` and `loss_centerness`, in float32 whatever autocast says.

        Points that learn nothing weigh 0 in place of being picked out: the host never waits for the
        device.
        """
        with torch.autocast(raw["cls"][0].device.type, enabled=False):
            matched = self.points.assign(raw["cls"], targets, image_sizes)
            positive = matched >= 0
            labels, distances = self._targets(raw, matched, targets)
            centerness = torch.where(positive, self._centerness(distances), 0.0)
            count = positive.sum()
            positives = mean_over_ranks(count.float()).clamp(min=1)

            # every point learns every class, but those in an ignore region
            logits = flatten_levels(raw["cls"], self.num_classes)
            classes = torch.arange(self.num_classes, device=labels.device)
            one_hot = (labels[..., None] == classes) & positive[..., None]
            cls_losses = focal_loss(logits, one_hot, *self.focal)
            loss_cls = cls_losses.masked_fill((matched == IGNORED)[..., None], 0.0).sum()

            # boxes as distances in strides round one origin: the IoU does not see where a point is
            origin = distances.new_zeros(())
            strides = self.points.stride_of_each(raw["cls"])
            pred_distances = flatten_levels(raw["reg"], 4).float() / strides
            pred_boxes = distance_to_boxes(origin, pred_distances.flatten(0, 1))
            true_boxes = distance_to_boxes(origin, distances.flatten(0, 1))
            box_losses = box_loss(pred_boxes, true_boxes, self.box_loss_kind)

            # central points weigh more: they localise better (section 3.2 of the paper)
            weights = centerness.flatten()
            weight_sum = mean_over_ranks(weights.sum()).clamp(min=1e-6)
            loss_box = (box_losses * weights).sum() / weight_sum

            center_logits = flatten_levels(raw["centerness"], 1)[..., 0].float()
            center_losses = functional.binary_cross_entropy_with_logits(
                center_logits, centerness, reduction="none"
            )
            loss_center = center_losses.masked_fill(~positive, 0.0).sum()
        cls_weight, box_weight, center_weight = self.loss_weights
        losses = {
            "loss_cls": loss_cls / positives * cls_weight,
            "loss_bbox": loss_box * box_weight,
            "loss_centerness": loss_center / positives * center_weight,
        }
        return StepLosses(losses, step_counts(count, targets))

    def _targets(
        self, raw: Raw, matched: Tensor, targets: Sequence[Target]
    ) -> tuple[Tensor, Tensor]:
        """Label (B, P) and distances to the sides of the matched box (B, P, 4), in strides.

        Any if unmatched.
        """
        boxes, labels = pad_boxes(
            [target["boxes"] for target in targets], [target["labels"] for target in targets]
        )
        index = matched.clamp(min=0)
        own_boxes = boxes.gather(1, index[..., None].expand(-1, -1, 4))
        distances = boxes_to_distance(self.grid(raw).centers, own_boxes)
        return labels.gather(1, index), distances / self.points.stride_of_each(raw["cls"])

    def _centerness(self, distances: Tensor) -> Tensor:
        """How central a point is in its box, 0 to 1 (equation 3): (B, P, 4) to (B, P)."""
        left_right, top_bottom = distances[..., 0::2], distances[..., 1::2]
        sides = torch.stack((left_right, top_bottom), dim=-2)  # (B, P, 2 axes, 2 sides)
        nearest = sides.amin(dim=-1).clamp(min=self.centerness_floor)
        farthest = sides.amax(dim=-1).clamp(min=1e-6)
        return (nearest / farthest).prod(dim=-1).clamp(0, 1).sqrt()
