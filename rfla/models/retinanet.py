"""RetinaNet: a one-stage detector on anchors (arXiv 1708.02002), with RFLA, the IoU rule or ATSS as label assignment.

`forward` pixels to losses or detections, `assign` anchors to boxes, `loss`, `decode`.
Shapes: B images, P anchors over all levels, G boxes of one image, C classes. Boxes are xyxy in px
of the network input.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rfla.assign import IGNORED, PriorGrid
from rfla.models.detector import Detections, Detector, ImageSizes, Losses, Raw, Target, inputs
from rfla.models.heads.priors import Anchors, best_candidates, take
from rfla.models.heads.retina import RetinaHead
from rfla.ops.boxes import flatten_levels
from rfla.ops.coding import DeltaCoder
from rfla.ops.losses import BoxLoss, box_loss, focal_loss, mean_over_ranks
from rfla.ops.nms import Limits, select_detections


class RetinaNet(Detector):
    """RetinaNet on any pyramid.

    Args:
        backbone: pixels to stages.
        neck: stages to levels.
        head: levels to raw predictions.
        anchors: the anchors and their assigner.
        limits: which detections are kept.
        num_classes: without background.
        box_loss_kind: loss of the decoded boxes, see `rfla.ops.losses.box_loss`.
        loss_weights: of classification and boxes.
        focal: alpha and gamma.
    """

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        head: RetinaHead,
        anchors: Anchors,
        limits: Limits,
        *,
        num_classes: int,
        box_loss_kind: BoxLoss = "diou",
        loss_weights: tuple[float, float] = (1.0, 1.0),
        focal: tuple[float, float] = (0.25, 2.0),
    ) -> None:
        super().__init__(backbone, neck, num_classes)
        self.head, self.anchors, self.limits, self.coder = head, anchors, limits, DeltaCoder()
        self.box_loss_kind, self.loss_weights, self.focal = box_loss_kind, loss_weights, focal

    def forward(
        self,
        images: Tensor,
        targets: list[Target] | None = None,
        image_sizes: ImageSizes | None = None,
    ) -> Losses | list[Detections]:
        """Losses in training mode, detections in evaluation mode.

        Args:
            images: (B, 3, H, W) normalised.
            targets: B truths in training mode; in evaluation mode left out, `image_sizes` may stand
                in their place.
            image_sizes: (height, width) of each image before padding; anchors and boxes stay within
                it.
        """
        targets, image_sizes = inputs(self, images, targets, image_sizes)
        raw = self.raw(images)
        return (
            self.loss(raw, targets, image_sizes) if self.training else self.decode(raw, image_sizes)
        )

    def raw(self, images: Tensor) -> Raw:
        """Predictions before decoding, lists per level: `cls` logits, `reg` encoded offsets from the anchors."""
        raw: Raw = self.head(self.pyramid(images))
        return raw

    def assign(self, raw: Raw, targets: Sequence[Target], image_sizes: ImageSizes) -> Tensor:
        """Which box each anchor learns: (B, P) int64, -1 background, -2 ignored."""
        return self.anchors.assign(raw["cls"], targets, image_sizes)

    def priors(
        self, raw: Raw, targets: Sequence[Target], image_sizes: ImageSizes
    ) -> tuple[PriorGrid, Tensor]:
        """Return the anchors and which box each learns (B, P), for pictures."""
        return self.anchors.grid(raw["cls"]), self.assign(raw, targets, image_sizes)

    def loss(self, raw: Raw, targets: Sequence[Target], image_sizes: ImageSizes) -> Losses:
        """Compute `loss_cls` (focal) and `loss_bbox` (on decoded boxes), in float32 whatever autocast says."""
        matched = self.assign(raw, targets, image_sizes)
        positive = matched >= 0
        count = positive.sum()
        self.statistics = {
            "positives": count,
            "boxes": count.new_tensor(sum(len(t["boxes"]) for t in targets)),
        }
        # An image without a positive counts as having one, as in the authors' code.
        normalizer = mean_over_ranks(positive.sum(dim=1).clamp(min=1).sum().float())
        cls_weight, box_weight = self.loss_weights
        with torch.autocast(matched.device.type, enabled=False):
            images, anchors = positive.nonzero(as_tuple=True)
            own = matched[images, anchors]
            counts = [len(target["boxes"]) for target in targets]
            starts = torch.tensor(
                [sum(counts[:image]) for image in range(len(counts))], device=own.device
            )
            own = own + starts[images]  # into the boxes of the whole batch
            logits = flatten_levels(raw["cls"], self.num_classes).float()
            truth = torch.zeros_like(logits)
            truth[images, anchors, torch.cat([target["labels"] for target in targets])[own]] = 1
            loss_cls = (
                focal_loss(logits, truth, *self.focal)
                .masked_fill((matched == IGNORED)[..., None], 0.0)
                .sum()
            )

            offsets = flatten_levels(raw["reg"], 4)[images, anchors]
            boxes = self.coder.decode(self.anchors.grid(raw["cls"]).boxes[anchors], offsets)
            true_boxes = torch.cat([target["boxes"] for target in targets]).float()[own]
            loss_box = box_loss(boxes, true_boxes, self.box_loss_kind).sum()
        return {
            "loss_cls": loss_cls / normalizer * cls_weight,
            "loss_bbox": loss_box / normalizer * box_weight,
        }

    @torch.no_grad()
    def decode(self, raw: Raw, image_sizes: ImageSizes) -> list[Detections]:
        """Raw predictions to the detections of each image."""
        with torch.autocast(raw["cls"][0].device.type, enabled=False):
            grid = self.anchors.grid(raw["cls"])
            logits = flatten_levels(raw["cls"], self.num_classes).float()
            levels = best_candidates(logits.amax(dim=2), grid.level_counts, self.limits.nms_pre)
            index = torch.cat(levels, dim=1)  # (B, K)
            scores = take(logits, index).sigmoid()
            limits = torch.tensor(image_sizes, device=scores.device)[:, None]
            boxes = self.coder.decode(
                grid.boxes[index], take(flatten_levels(raw["reg"], 4), index), limits
            )
            return [
                select_detections(own, own_scores, None, self.limits)
                for own, own_scores in zip(boxes, scores, strict=True)
            ]
