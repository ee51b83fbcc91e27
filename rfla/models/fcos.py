"""FCOS: a fully convolutional one-stage detector (arXiv 1904.01355), with RFLA or its own rule as label assignment.

`forward` pixels to losses or detections, `assign` points to boxes, `loss`, `decode`.

Shapes: B images, P points over all levels, G boxes of one image, C classes. Boxes are xyxy in px of the network input;
distances (left, top, right, bottom) are in strides inside the head and the loss, in px outside.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from rfla.assign.priors import PriorGrid
from rfla.models.detector import Detections, Detector, ImageSizes, Losses, Raw, Target, feature_sizes, sizes_or_full
from rfla.ops.boxes import boxes_to_distance, clip_boxes, distance_to_boxes, flatten_levels, pad_boxes
from rfla.ops.losses import BoxLoss, box_loss, focal_loss, mean_over_ranks
from rfla.ops.nms import select_detections

IGNORED = -2
GRIDS_KEPT = 8


class Assigner(Protocol):
    """What a dense detector asks of its assigner."""

    def batch(
        self, grid: PriorGrid, gt_boxes: Sequence[Tensor], ignore_boxes: Sequence[Tensor | None] | None = None
    ) -> Tensor:
        """(B, P) int64: index of the box, -1 background, -2 ignored."""


class FCOS(Detector):
    """FCOS on any pyramid.

    Args:
        backbone: pixels to stages.
        neck: stages to levels; has `strides`.
        head: `FCOSHead`.
        assigner: matches points to boxes.
        receptive_fields: full side of the theoretical receptive field of each level, px.
        fraction: share of it that is effective.
        box_loss_kind: `diou`, `giou`, `iou` or `ciou`.
        loss_weights: of classification, box and centerness.
        focal: alpha and gamma.
        centerness_floor: least distance to a side in the centerness target, in strides. RFLA has positive points
            outside their box, whose centerness would be undefined; the authors floor it at 0.01.
        score_thr: see `select_detections`.
        nms_iou: see `select_detections`.
        nms_pre: candidates of each level.
        max_det: detections of each image.
    """

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        head: nn.Module,
        assigner: Assigner,
        *,
        num_classes: int,
        receptive_fields: list[float],
        fraction: float = 0.5,
        box_loss_kind: BoxLoss = "diou",
        loss_weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
        focal: tuple[float, float] = (0.25, 2.0),
        centerness_floor: float = 0.01,
        score_thr: float = 0.05,
        nms_iou: float = 0.5,
        nms_pre: int = 3000,
        max_det: int = 3000,
    ) -> None:
        super().__init__(backbone, neck, num_classes)
        self.head, self.assigner = head, assigner
        self.strides: list[int] = neck.strides
        self.receptive_fields, self.fraction = receptive_fields, fraction
        self.box_loss_kind, self.loss_weights, self.focal = box_loss_kind, loss_weights, focal
        self.centerness_floor = centerness_floor
        self.score_thr, self.nms_iou, self.nms_pre, self.max_det = score_thr, nms_iou, nms_pre, max_det
        self._grids: OrderedDict[tuple[object, ...], tuple[PriorGrid, Tensor, Tensor]] = OrderedDict()

    def forward(
        self, images: Tensor, targets: list[Target] | None = None, image_sizes: ImageSizes | None = None
    ) -> Losses | list[Detections]:
        """Losses in training mode, detections in evaluation mode.

        Args:
            images: (B, 3, H, W) normalised.
            targets: B truths; needed in training mode.
            image_sizes: (height, width) of each image before padding; boxes are clipped to it.
        """
        raw = self.head(self.pyramid(images))
        if not self.training:
            return self.decode(raw, sizes_or_full(images, image_sizes))
        if targets is None:
            raise ValueError("training needs targets")
        return self.loss(raw, targets)

    def raw(self, images: Tensor) -> Raw:
        """Predictions before decoding, lists per level: `cls`, `centerness` logits, `reg` distances in px."""
        raw = self.head(self.pyramid(images))
        raw["reg"] = [level * stride for level, stride in zip(raw["reg"], self.strides, strict=True)]
        return raw

    @torch.no_grad()
    def assign(self, raw: Raw, targets: list[Target]) -> Tensor:
        """Which box each point learns: (B, P) int64, -1 background, -2 inside an ignore region."""
        grid, _, _ = self._points(raw)
        boxes = [target["boxes"] for target in targets]
        return self.assigner.batch(grid, boxes, [target.get("ignore") for target in targets])

    def loss(self, raw: Raw, targets: list[Target]) -> Losses:
        """`loss_cls` (focal), `loss_bbox` and `loss_centerness`, in float32 whatever autocast says.

        Points that learn nothing weigh 0 in place of being picked out: the host never waits for the device.
        """
        with torch.autocast(raw["cls"][0].device.type, enabled=False):
            matched = self.assign(raw, targets)
            positive = matched >= 0
            labels, distances = self._targets(raw, matched, targets)
            centerness = torch.where(positive, self._centerness(distances), 0.0)
            count = positive.sum()
            self.statistics = {"positives": count, "boxes": count.new_tensor(sum(len(t["boxes"]) for t in targets))}
            positives = mean_over_ranks(count.float()).clamp(min=1)

            logits = flatten_levels(raw["cls"], self.num_classes)
            one_hot = (labels[..., None] == torch.arange(self.num_classes, device=labels.device)) & positive[..., None]
            loss_cls = focal_loss(logits, one_hot, *self.focal).masked_fill((matched == IGNORED)[..., None], 0.0).sum()

            origin = distances.new_zeros(())
            pred_boxes = distance_to_boxes(origin, flatten_levels(raw["reg"], 4).float().flatten(0, 1))
            true_boxes = distance_to_boxes(origin, distances.flatten(0, 1))
            box_losses = box_loss(pred_boxes, true_boxes, self.box_loss_kind)
            weights = centerness.flatten()
            loss_box = (box_losses * weights).sum() / mean_over_ranks(weights.sum()).clamp(min=1e-6)

            center_logits = flatten_levels(raw["centerness"], 1)[..., 0].float()
            center_losses = functional.binary_cross_entropy_with_logits(center_logits, centerness, reduction="none")
            loss_center = center_losses.masked_fill(~positive, 0.0).sum()
        cls_weight, box_weight, center_weight = self.loss_weights
        return {
            "loss_cls": loss_cls / positives * cls_weight,
            "loss_bbox": loss_box * box_weight,
            "loss_centerness": loss_center / positives * center_weight,
        }

    @torch.no_grad()
    def decode(self, raw: Raw, image_sizes: ImageSizes) -> list[Detections]:
        """Raw predictions (distances in strides, as the head gives them) to the detections of each image."""
        with torch.autocast(raw["cls"][0].device.type, enabled=False):
            _, points, strides = self._points(raw)
            scores = flatten_levels(raw["cls"], self.num_classes).float().sigmoid()
            centerness = flatten_levels(raw["centerness"], 1)[..., 0].float().sigmoid()
            boxes = distance_to_boxes(points, flatten_levels(raw["reg"], 4).float() * strides[:, None])
            counts = [height * width for height, width in feature_sizes(raw["cls"])]
            return [
                self._decode_image(boxes[image], scores[image], centerness[image], counts, size)
                for image, size in enumerate(image_sizes)
            ]

    def _decode_image(
        self, boxes: Tensor, scores: Tensor, centerness: Tensor, counts: list[int], size: tuple[int, int]
    ) -> Detections:
        best = scores.amax(dim=1) * centerness
        kept = []
        for level, (count, level_best) in enumerate(zip(counts, best.split(counts), strict=True)):
            first = sum(counts[:level])
            if count > self.nms_pre:
                kept.append(level_best.topk(self.nms_pre).indices + first)
            else:
                kept.append(torch.arange(first, first + count, device=best.device))
        rows = torch.cat(kept)
        detections = select_detections(
            clip_boxes(boxes[rows], size), scores[rows], centerness[rows], self.score_thr, self.nms_iou, self.max_det
        )
        return Detections(**detections)

    def _points(self, raw: Raw) -> tuple[PriorGrid, Tensor, Tensor]:
        """Grid, points (P, 2) px and stride (P,) of each point, kept for the last few feature sizes."""
        sizes, device = feature_sizes(raw["cls"]), raw["cls"][0].device
        if (sizes, device) not in self._grids:
            grid = PriorGrid.points(
                sizes, self.strides, self.receptive_fields, fraction=self.fraction, offset="half"
            ).to(device)
            points = (grid.boxes[:, :2] + grid.boxes[:, 2:]) / 2
            strides = torch.cat([torch.full((h * w,), float(s)) for (h, w), s in zip(sizes, self.strides, strict=True)])
            self._grids[sizes, device] = grid, points.round(), strides.to(device)
            if len(self._grids) > GRIDS_KEPT:
                self._grids.popitem(last=False)
        return self._grids[sizes, device]

    def _targets(self, raw: Raw, matched: Tensor, targets: list[Target]) -> tuple[Tensor, Tensor]:
        """Label (B, P) and distances to the sides of the matched box (B, P, 4), in strides; any if unmatched."""
        _, points, strides = self._points(raw)
        boxes, labels = pad_boxes([target["boxes"] for target in targets], [target["labels"] for target in targets])
        index = matched.clamp(min=0)
        own_boxes = boxes.gather(1, index[..., None].expand(-1, -1, 4))
        return labels.gather(1, index), boxes_to_distance(points, own_boxes) / strides[:, None]

    def _centerness(self, distances: Tensor) -> Tensor:
        """How central a point is in its box, 0 to 1 (arXiv 1904.01355, equation 3): (B, P, 4) to (B, P)."""
        sides = torch.stack((distances[..., 0::2], distances[..., 1::2]), dim=-2)  # (B, P, 2 axes, 2 sides)
        nearest = sides.amin(dim=-1).clamp(min=self.centerness_floor)
        farthest = sides.amax(dim=-1).clamp(min=1e-6)
        return (nearest / farthest).prod(dim=-1).clamp(0, 1).sqrt()
