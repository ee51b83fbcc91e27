"""FCOS: a fully convolutional one-stage detector (arXiv 1904.01355), with RFLA or its own rule as label assignment.

`forward` pixels to losses or detections and `decode` are in `PointDetector`; `assign` and `loss`
are here.

Shapes: B images, P points over all levels, G boxes of one image, C classes. Boxes are xyxy in px of
the network input; distances (left, top, right, bottom) are in px in `raw`, in strides in the
targets and losses.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from rfla.assign import IGNORED
from rfla.models.detector import Losses, Raw, Target
from rfla.models.heads.priors import Points
from rfla.models.necks.fpn import FPN
from rfla.models.points import PointDetector
from rfla.ops.boxes import boxes_to_distance, distance_to_boxes, flatten_levels, pad_boxes
from rfla.ops.losses import BoxLoss, box_loss, focal_loss, mean_over_ranks
from rfla.ops.nms import Limits


class FCOS(PointDetector):
    """FCOS on any pyramid.

    Args:
        backbone: pixels to stages.
        neck: stages to levels.
        head: `FCOSHead`.
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
        backbone: nn.Module,
        neck: FPN,
        head: nn.Module,
        points: Points,
        limits: Limits,
        *,
        num_classes: int,
        box_loss_kind: BoxLoss = "diou",
        loss_weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
        focal: tuple[float, float] = (0.25, 2.0),
        centerness_floor: float = 0.01,
    ) -> None:
        super().__init__(backbone, neck, head, points, limits, num_classes=num_classes)
        self.box_loss_kind, self.loss_weights, self.focal = box_loss_kind, loss_weights, focal
        self.centerness_floor = centerness_floor

    def assign(self, raw: Raw, targets: list[Target]) -> Tensor:
        """Which box each point learns: (B, P) int64, -1 background, -2 inside an ignore region."""
        return self.points.assign(raw["cls"], targets)

    def loss(self, raw: Raw, targets: list[Target]) -> Losses:
        """`loss_cls` (focal), `loss_bbox` and `loss_centerness`, in float32 whatever autocast says.

        Points that learn nothing weigh 0 in place of being picked out: the host never waits for the
        device.
        """
        with torch.autocast(raw["cls"][0].device.type, enabled=False):
            matched = self.assign(raw, targets)
            positive = matched >= 0
            labels, distances = self._targets(raw, matched, targets)
            centerness = torch.where(positive, self._centerness(distances), 0.0)
            count = positive.sum()
            boxes = sum(len(target["boxes"]) for target in targets)
            self.statistics = {"positives": count, "boxes": torch.full_like(count, boxes)}
            positives = mean_over_ranks(count.float()).clamp(min=1)

            logits = flatten_levels(raw["cls"], self.num_classes)
            one_hot = (
                labels[..., None] == torch.arange(self.num_classes, device=labels.device)
            ) & positive[..., None]
            loss_cls = (
                focal_loss(logits, one_hot, *self.focal)
                .masked_fill((matched == IGNORED)[..., None], 0.0)
                .sum()
            )

            origin = distances.new_zeros(())
            pred_distances = flatten_levels(raw["reg"], 4).float() / self.points.stride_of_each(
                raw["cls"]
            )
            pred_boxes = distance_to_boxes(origin, pred_distances.flatten(0, 1))
            true_boxes = distance_to_boxes(origin, distances.flatten(0, 1))
            box_losses = box_loss(pred_boxes, true_boxes, self.box_loss_kind)
            weights = centerness.flatten()
            loss_box = (box_losses * weights).sum() / mean_over_ranks(weights.sum()).clamp(min=1e-6)

            center_logits = flatten_levels(raw["centerness"], 1)[..., 0].float()
            center_losses = functional.binary_cross_entropy_with_logits(
                center_logits, centerness, reduction="none"
            )
            loss_center = center_losses.masked_fill(~positive, 0.0).sum()
        cls_weight, box_weight, center_weight = self.loss_weights
        return {
            "loss_cls": loss_cls / positives * cls_weight,
            "loss_bbox": loss_box * box_weight,
            "loss_centerness": loss_center / positives * center_weight,
        }

    def _targets(self, raw: Raw, matched: Tensor, targets: list[Target]) -> tuple[Tensor, Tensor]:
        """Label (B, P) and distances to the sides of the matched box (B, P, 4), in strides.

        Any if unmatched.
        """
        boxes, labels = pad_boxes(
            [target["boxes"] for target in targets], [target["labels"] for target in targets]
        )
        index = matched.clamp(min=0)
        own_boxes = boxes.gather(1, index[..., None].expand(-1, -1, 4))
        distances = boxes_to_distance(self.points.grid(raw["cls"]).centers, own_boxes)
        return labels.gather(1, index), distances / self.points.stride_of_each(raw["cls"])

    def _centerness(self, distances: Tensor) -> Tensor:
        """How central a point is in its box, 0 to 1 (arXiv 1904.01355, equation 3): (B, P, 4) to (B, P)."""
        sides = torch.stack(
            (distances[..., 0::2], distances[..., 1::2]), dim=-2
        )  # (B, P, 2 axes, 2 sides)
        nearest = sides.amin(dim=-1).clamp(min=self.centerness_floor)
        farthest = sides.amax(dim=-1).clamp(min=1e-6)
        return (nearest / farthest).prod(dim=-1).clamp(0, 1).sqrt()
