"""RetinaNet: a one-stage detector on anchors (arXiv 1708.02002), with RFLA, the IoU rule or ATSS.

`raw`, `assign`, `loss` and how it is built are here, `decode` is in `DenseDetector`.

Shapes: B images, P anchors over all levels, G boxes of one image, K candidates, C classes. Boxes
are xyxy in px of the network input.
"""

from collections.abc import Sequence
from typing import Literal, Self

import torch
from torch import Tensor

from rfla.assign import IGNORED, PriorGrid
from rfla.cfg.model_schema import ModelConfig
from rfla.models.backbones.backbone import Backbone
from rfla.models.backbones.build import build_backbone
from rfla.models.detector import DenseDetector, ImageSizes, Raw, StepLosses, Target, step_counts
from rfla.models.heads.retina import RetinaHead
from rfla.models.limits import build_limits
from rfla.models.necks.fpn import FPN
from rfla.models.priors import Anchors, best_candidates, build_anchors, take
from rfla.models.ranks import divisor_over_ranks, mean_over_ranks
from rfla.names import BoxLoss, Quality, QualityLoss
from rfla.ops.boxes import flatten_levels, starts_of
from rfla.ops.coding import DeltaCoder
from rfla.ops.device import to_device
from rfla.ops.losses import box_loss, focal_loss, quality_loss
from rfla.ops.nms import Candidates, DetectionLimits
from rfla.ops.quality import localization_quality


class RetinaNet(DenseDetector):
    """RetinaNet on any pyramid.

    Args:
        backbone: pixels to stages.
        neck: stages to levels.
        head: levels to raw predictions.
        anchors: the anchors and their assigner.
        limits: which detections are kept.
        num_classes: without background.
        box_loss_kind: loss of the decoded boxes, see `rfla.ops.losses.box_loss`.
        quality: `none`, or what the class score of a positive anchor learns in place of 1, see
            `localization_quality`.
        cls_loss: how it learns that, see `quality_loss`; without a quality it is focal loss.
        loss_weights: of classification and boxes.
        focal: alpha and gamma.
    """

    def __init__(
        self,
        backbone: Backbone,
        neck: FPN,
        head: RetinaHead,
        anchors: Anchors,
        limits: DetectionLimits,
        *,
        num_classes: int,
        box_loss_kind: BoxLoss = "diou",
        quality: Literal["none", Quality] = "none",
        cls_loss: QualityLoss = "quality_focal",
        loss_weights: tuple[float, float] = (1.0, 1.0),
        focal: tuple[float, float] = (0.25, 2.0),
    ) -> None:
        super().__init__(backbone, neck, limits, num_classes)
        self.head, self.anchors, self.coder = head, anchors, DeltaCoder()
        self.box_loss_kind, self.loss_weights, self.focal = box_loss_kind, loss_weights, focal
        self.quality, self.cls_loss = quality, cls_loss

    @classmethod
    def from_config(cls, config: ModelConfig, num_classes: int) -> Self:
        """Build RetinaNet, on P3 to P7, with random weights."""
        section, loss = config.head, config.loss
        backbone = build_backbone(config.backbone)
        neck = FPN.from_config(config.neck, backbone)
        anchors = build_anchors(config, backbone, neck.strides)
        return cls(
            backbone,
            neck,
            RetinaHead(
                neck.width,
                num_classes,
                anchors.per_cell,
                section.width,
                section.depth,
                section.norm,
            ),
            anchors,
            build_limits(config.test),
            num_classes=num_classes,
            box_loss_kind=loss.box,
            quality=loss.quality,
            cls_loss=loss.cls,
            loss_weights=(loss.cls_weight, loss.box_weight),
            focal=(loss.focal_alpha, loss.focal_gamma),
        )

    def raw(self, images: Tensor) -> Raw:
        """Predictions before decoding, lists per level.

        `cls` (B, A * C, H, W) logits, `reg` (B, A * 4, H, W) encoded offsets from the anchors.
        """
        raw: Raw = self.head(self.pyramid(images))
        return raw

    def assign(self, raw: Raw, targets: Sequence[Target], image_sizes: ImageSizes) -> Tensor:
        """Which box each anchor learns: (B, P) int64, -1 background, -2 ignored."""
        return self.anchors.assign(raw["cls"], targets, image_sizes)

    def grid(self, raw: Raw) -> PriorGrid:
        """The anchors of these maps."""
        return self.anchors.grid(raw["cls"])

    def loss(self, raw: Raw, targets: Sequence[Target], image_sizes: ImageSizes) -> StepLosses:
        """`loss_cls` and `loss_bbox` (on decoded boxes), in float32 always."""
        matched = self.assign(raw, targets, image_sizes)
        positive = matched >= 0
        # An image without a positive counts as having one, as in the authors' code.
        normalizer = mean_over_ranks(positive.sum(dim=1).clamp(min=1).sum().float())
        with torch.autocast(matched.device.type, enabled=False):
            # indices of the matched boxes into the boxes of the whole batch
            images, anchors = positive.nonzero(as_tuple=True)
            starts = starts_of([len(target["boxes"]) for target in targets])
            own = matched[images, anchors] + to_device(starts, matched.device)[images]

            offsets = flatten_levels(raw["reg"], 4)[images, anchors]
            boxes = self.coder.decode(self.grid(raw).boxes[anchors], offsets)
            true_boxes = torch.cat([target["boxes"] for target in targets]).float()[own]
            loss_box = box_loss(boxes, true_boxes, self.box_loss_kind).sum()

            logits = flatten_levels(raw["cls"], self.num_classes).float()
            labels = torch.cat([target["labels"] for target in targets])[own]
            truth = torch.zeros_like(logits)
            if self.quality == "none":
                truth[images, anchors, labels] = truth.new_ones(())
                cls_losses, total = focal_loss(logits, truth, *self.focal), normalizer
            else:  # a class score says how well the box sits, and each unit of it counts alike
                truth[images, anchors, labels] = localization_quality(
                    boxes, true_boxes, self.quality
                )
                cls_losses = quality_loss(logits, truth, self.cls_loss, self.focal)
                total = divisor_over_ranks(truth.sum())
            loss_cls = cls_losses.masked_fill((matched == IGNORED)[..., None], 0.0).sum() / total
        cls_weight, box_weight = self.loss_weights
        losses = {
            "loss_cls": loss_cls * cls_weight,
            "loss_bbox": loss_box / normalizer * box_weight,
        }
        return StepLosses(losses, step_counts(positive.sum(), targets))

    @torch.no_grad()
    def candidates(self, raw: Raw, image_sizes: Tensor) -> Candidates:
        """The best anchors of each level, decoded and clipped to their image."""
        with torch.autocast(raw["cls"][0].device.type, enabled=False):
            grid = self.grid(raw)
            logits = flatten_levels(raw["cls"], self.num_classes).float()
            levels = best_candidates(logits.amax(dim=2), grid.level_counts, self.limits.nms_pre)
            index = torch.cat(levels, dim=1)  # (B, K)
            scores = take(logits, index).sigmoid()
            deltas = take(flatten_levels(raw["reg"], 4), index)
            boxes = self.coder.decode(grid.boxes[index], deltas, image_sizes[:, None])
            return Candidates(boxes, scores, None)
