"""What FCOS and AutoAssign share: predictions at the points of a pyramid, and their decoding.

Shapes: B images, P points over all levels, C classes. Boxes are xyxy in px of the network input; distances (left, top,
right, bottom) are in strides inside the head and the loss, in px outside.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from rfla.assign import PriorGrid
from rfla.models.detector import Detections, Detector, ImageSizes, Losses, Raw, Target, feature_sizes, sizes_or_full
from rfla.models.necks.fpn import FPN
from rfla.ops.boxes import clip_boxes, distance_to_boxes, flatten_levels
from rfla.ops.nms import select_detections

IGNORED = -2
GRIDS_KEPT = 8


class Assigner(Protocol):
    """What a detector of points asks of its assigner."""

    def batch(
        self, grid: PriorGrid, gt_boxes: Sequence[Tensor], ignore_boxes: Sequence[Tensor | None] | None = None
    ) -> Tensor:
        """(B, P) int64: index of the box, -1 background, -2 ignored."""


class PointDetector(Detector):
    """Forward and decoding of a detector that predicts, at each point, classes, a box and how well it sits.

    Args:
        backbone: pixels to stages.
        neck: stages to levels; has `strides`.
        head: `FCOSHead`.
        assigner: matches points to boxes; None where the detector has its own rule.
        num_classes: without background.
        receptive_fields: full side of the theoretical receptive field of each level, px.
        fraction: share of it that is effective.
        offset: `half` puts a point in the middle of its cell, `corner` in the upper left corner.
        score_thr: see `select_detections`.
        nms_iou: see `select_detections`.
        nms_pre: candidates of each level.
        max_det: detections of each image.
    """

    def __init__(
        self,
        backbone: nn.Module,
        neck: FPN,
        head: nn.Module,
        assigner: Assigner | None,
        *,
        num_classes: int,
        receptive_fields: list[float],
        fraction: float,
        offset: Literal["half", "corner"],
        score_thr: float,
        nms_iou: float,
        nms_pre: int,
        max_det: int,
    ) -> None:
        super().__init__(backbone, neck, num_classes)
        self.head, self.assigner = head, assigner
        self.strides = neck.strides
        self.receptive_fields, self.fraction, self.offset = receptive_fields, fraction, offset
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
        raw: Raw = self.head(self.pyramid(images))
        if not self.training:
            return self.decode(raw, sizes_or_full(images, image_sizes))
        if targets is None:
            raise ValueError("training needs targets")
        return self.loss(raw, targets)

    def raw(self, images: Tensor) -> Raw:
        """Predictions before decoding, lists per level: `cls`, `centerness` logits, `reg` distances in px."""
        raw: Raw = self.head(self.pyramid(images))
        raw["reg"] = [level * stride for level, stride in zip(raw["reg"], self.strides, strict=True)]
        return raw

    def loss(self, raw: Raw, targets: list[Target]) -> Losses:
        """Named scalar losses, in float32 whatever autocast says."""
        raise NotImplementedError

    @torch.no_grad()
    def match(self, raw: Raw, targets: list[Target]) -> Tensor:
        """What the assigner says: (B, P) int64, -1 background, -2 inside an ignore region."""
        if self.assigner is None:
            raise ValueError("this detector has no assigner")
        grid, _, _ = self._points(raw)
        boxes = [target["boxes"] for target in targets]
        return self.assigner.batch(grid, boxes, [target.get("ignore") for target in targets])

    @torch.no_grad()
    def priors(self, raw: Raw, targets: list[Target], image_sizes: ImageSizes) -> tuple[PriorGrid, Tensor] | None:
        """The points and which box each is given (B, P), for pictures; None where boxes choose as they learn."""
        return (self._points(raw)[0], self.match(raw, targets)) if self.assigner is not None else None

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
        for level, (count, level_best) in enumerate(zip(counts, torch.split(best, counts), strict=True)):
            first = sum(counts[:level])
            if count > self.nms_pre:
                kept.append(level_best.topk(self.nms_pre).indices + first)
            else:
                kept.append(torch.arange(first, first + count, device=best.device))
        rows = torch.cat(kept)
        return select_detections(
            clip_boxes(boxes[rows], size), scores[rows], centerness[rows], self.score_thr, self.nms_iou, self.max_det
        )

    def _points(self, raw: Raw) -> tuple[PriorGrid, Tensor, Tensor]:
        """Grid, points (P, 2) px and stride (P,) of each point, kept for the last few feature sizes."""
        sizes, device = feature_sizes(raw["cls"]), raw["cls"][0].device
        if (sizes, device) not in self._grids:
            grid = PriorGrid.points(
                sizes, self.strides, self.receptive_fields, fraction=self.fraction, offset=self.offset
            ).to(device)
            points = (grid.boxes[:, :2] + grid.boxes[:, 2:]) / 2
            strides = torch.cat([torch.full((h * w,), float(s)) for (h, w), s in zip(sizes, self.strides, strict=True)])
            self._grids[sizes, device] = grid, points.round(), strides.to(device, non_blocking=True)
            if len(self._grids) > GRIDS_KEPT:
                self._grids.popitem(last=False)
        return self._grids[sizes, device]
