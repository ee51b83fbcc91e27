"""RFD: a dense detector that can fit what RFLA assigns to it.

RFLA gives tiny boxes points that lie outside of them. FCOS codes a box by distances that are never
negative and scales its losses by centerness, so it cannot learn from such points. RFD keeps the
paper's assignment and changes the head: a signed box code (`FieldCoder`), the fit of the predicted
box as the target of its class score (`localization_quality`), and no centerness.

Shapes: B images, P points over all levels, G boxes of one image, K candidates of one image,
C classes. Boxes are xyxy in px of the network input.
"""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from rfla.assign import IGNORED, PriorGrid
from rfla.cfg.model_schema import ModelConfig
from rfla.models.assigners import build_assigner, points_baseline
from rfla.models.backbones.backbone import Backbone
from rfla.models.backbones.build import build_backbone
from rfla.models.detector import Detector, ImageSizes, Raw, StepLosses, Target, step_counts
from rfla.models.heads.priors import Points, best_candidates, build_points, take
from rfla.models.heads.rfd import FieldHead
from rfla.models.limits import build_limits
from rfla.models.necks.fpn import FPN
from rfla.ops.boxes import clip_boxes, flatten_levels, pad_boxes
from rfla.ops.coding import FieldCoder
from rfla.ops.losses import BoxLoss, box_loss, mean_over_ranks, quality_focal_loss
from rfla.ops.nms import DetectionLimits, ImageDetections, select_detections
from rfla.ops.quality import Quality, localization_quality


class RFD(Detector):
    """A dense detector whose prior is the receptive field.

    Args:
        backbone: pixels to stages.
        neck: stages to levels.
        head: levels to raw predictions.
        points: the points and their assigner.
        limits: which detections are kept.
        num_classes: without background.
        box_loss_kind: `giou`, `diou`, `iou` or `ciou`.
        quality: what the class score of a positive point learns, see `localization_quality`.
        loss_weights: of classification, boxes and the coded sides.
        focal_beta: exponent of the quality focal loss.
    """

    def __init__(
        self,
        backbone: Backbone,
        neck: FPN,
        head: FieldHead,
        points: Points,
        limits: DetectionLimits,
        *,
        num_classes: int,
        box_loss_kind: BoxLoss = "giou",
        quality: Quality = "max",
        loss_weights: tuple[float, float, float] = (1.0, 1.0, 0.5),
        focal_beta: float = 2.0,
    ) -> None:
        super().__init__(backbone, neck, num_classes)
        self.head, self.points, self.limits = head, points, limits
        self.box_loss_kind, self.quality = box_loss_kind, quality
        self.loss_weights, self.focal_beta = loss_weights, focal_beta

    @classmethod
    def from_config(cls, config: ModelConfig, num_classes: int) -> Self:
        """Build RFD on P2 to P5, or the levels of `neck`, with random weights."""
        section, loss = config.head, config.loss
        backbone = build_backbone(config.backbone)
        neck = FPN.from_config(config.neck, backbone)
        own_rule = points_baseline(config.assigner, len(neck.strides))
        assigner = build_assigner(config.assigner, baseline=own_rule)
        levels = len(neck.strides)
        return cls(
            backbone,
            neck,
            FieldHead(neck.width, num_classes, levels, section.width, section.depth, section.norm),
            build_points(config, backbone, neck.strides, assigner),
            build_limits(config.test),
            num_classes=num_classes,
            box_loss_kind=loss.box,
            quality=loss.quality,
            loss_weights=(loss.cls_weight, loss.box_weight, loss.side_weight),
            focal_beta=loss.focal_gamma,
        )

    def raw(self, images: Tensor) -> Raw:
        """Predictions before decoding, lists per level.

        `cls` (B, C, H, W) logits, `reg` (B, 4, H, W) box code.
        """
        raw: Raw = self.head(self.pyramid(images))
        return raw

    def assign(self, raw: Raw, targets: Sequence[Target], image_sizes: ImageSizes) -> Tensor:
        """Which box each point learns: (B, P) int64, -1 background, -2 in an ignore region."""
        return self.points.assign(raw["cls"], targets, image_sizes)

    def grid(self, raw: Raw) -> PriorGrid:
        """The points of these maps."""
        return self.points.grid(raw["cls"])

    def loss(self, raw: Raw, targets: Sequence[Target], image_sizes: ImageSizes) -> StepLosses:
        """`loss_cls` (quality focal), `loss_bbox` and `loss_side`, in float32.

        Points that learn no box weigh 0 in place of being picked out: the host never waits for the
        device.
        """
        with torch.autocast(raw["cls"][0].device.type, enabled=False):
            matched = self.assign(raw, targets, image_sizes)  # (B, P)
            positive = matched >= 0
            labels, gt_boxes = self._targets(raw, matched, targets)
            coder = self._coder(raw)
            code = flatten_levels(raw["reg"], 4)  # (B, P, 4)
            pred_boxes = coder.decode(code)

            # A class score says how well the box sits: it ranks boxes of one object for NMS.
            quality = localization_quality(
                pred_boxes.flatten(0, 1), gt_boxes.flatten(0, 1), self.quality
            ).view_as(labels)
            quality = torch.where(positive, quality, 0.0)
            classes = torch.arange(self.num_classes, device=labels.device)
            soft = quality[..., None] * (labels[..., None] == classes)  # (B, P, C)
            logits = flatten_levels(raw["cls"], self.num_classes)
            cls_losses = quality_focal_loss(logits, soft, self.focal_beta)
            loss_cls = cls_losses.masked_fill((matched == IGNORED)[..., None], 0.0).sum()
            quality_sum = mean_over_ranks(quality.sum()).clamp(min=1)

            # Positives count alike: weights by centre or fit would silence those outside a box,
            # the ones that tiny objects have.
            count = positive.sum()
            positives = mean_over_ranks(count.float()).clamp(min=1)
            fit_losses = box_loss(
                pred_boxes.flatten(0, 1), gt_boxes.flatten(0, 1), self.box_loss_kind
            ).view_as(labels)
            loss_box = torch.where(positive, fit_losses, 0.0).sum()

            # GIoU hardly sees a side that is 1 px off on a 3 px box; its logarithm does.
            side_losses = (code - coder.encode(gt_boxes))[..., 2:].abs().mean(dim=-1)
            loss_side = torch.where(positive, side_losses, 0.0).sum()
        cls_weight, box_weight, side_weight = self.loss_weights
        losses = {
            "loss_cls": loss_cls / quality_sum * cls_weight,
            "loss_bbox": loss_box / positives * box_weight,
            "loss_side": loss_side / positives * side_weight,
        }
        return StepLosses(losses, step_counts(count, targets))

    @torch.no_grad()
    def decode(self, raw: Raw, image_sizes: ImageSizes) -> list[ImageDetections]:
        """Raw predictions to the detections of each image, clipped to it."""
        with torch.autocast(raw["cls"][0].device.type, enabled=False):
            scores = flatten_levels(raw["cls"], self.num_classes).float().sigmoid()  # (B, P, C)
            best = scores.amax(dim=2)
            counts = self.grid(raw).level_counts
            index = torch.cat(best_candidates(best, counts, self.limits.nms_pre), dim=1)  # (B, K)
            boxes = take(self._coder(raw).decode(flatten_levels(raw["reg"], 4)), index)
            return [
                select_detections(clip_boxes(own, size), own_scores, None, self.limits)
                for own, own_scores, size in zip(
                    boxes, take(scores, index), image_sizes, strict=True
                )
            ]

    def _coder(self, raw: Raw) -> FieldCoder:
        """The box code of these maps' points."""
        levels = raw["cls"]
        return FieldCoder(
            self.grid(raw).centers,
            self.points.stride_of_each(levels),
            self.points.field_of_each(levels),
        )

    def _targets(
        self, raw: Raw, matched: Tensor, targets: Sequence[Target]
    ) -> tuple[Tensor, Tensor]:
        """Label (B, P) and box (B, P, 4) that each point learns.

        A point without a box gets its own field, so that every loss of it is finite.
        """
        boxes, labels = pad_boxes(
            [target["boxes"] for target in targets], [target["labels"] for target in targets]
        )
        index = matched.clamp(min=0)
        own_boxes = boxes.gather(1, index[..., None].expand(-1, -1, 4))
        own_boxes = torch.where((matched >= 0)[..., None], own_boxes, self.grid(raw).boxes)
        return labels.gather(1, index), own_boxes
