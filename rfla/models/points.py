"""What FCOS and AutoAssign share: predictions at the points of a pyramid, and their decoding.

Shapes: B images, P points over all levels, K candidates of one image, C classes. Boxes are xyxy in
px of the network input; distances (left, top, right, bottom) are in px too.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from rfla.assign import PriorGrid
from rfla.models.backbones.backbone import Backbone
from rfla.models.detector import Detector, ImageSizes, Raw, Target
from rfla.models.heads.fcos import FCOSHead
from rfla.models.heads.priors import Points, best_candidates, take
from rfla.models.necks.fpn import FPN
from rfla.ops.boxes import clip_boxes, distance_to_boxes, flatten_levels
from rfla.ops.nms import DetectionLimits, ImageDetections, select_detections


class PointDetector(Detector):
    """A detector that predicts, at each point, classes, a box and how well the point sits in it.

    Args:
        backbone: pixels to stages.
        neck: stages to levels.
        head: levels to raw predictions.
        points: the points and their assigner.
        limits: which detections are kept.
        num_classes: without background.
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
    ) -> None:
        super().__init__(backbone, neck, num_classes)
        self.head, self.points, self.limits = head, points, limits

    def raw(self, images: Tensor) -> Raw:
        """Predictions before decoding, lists per level.

        `cls` (B, C, H, W) and `centerness` (B, 1, H, W) logits, `reg` (B, 4, H, W) distances in px.
        """
        raw: Raw = self.head(self.pyramid(images))
        return raw

    def assign(self, raw: Raw, targets: Sequence[Target], image_sizes: ImageSizes) -> Tensor | None:
        """Which box each point learns: (B, P) int64, -1 background, -2 in an ignore region.

        None without an assigner.
        """
        if self.points.assigner is None:
            return None
        return self.points.assign(raw["cls"], targets, image_sizes)

    def grid(self, raw: Raw) -> PriorGrid:
        """The points of these maps."""
        return self.points.grid(raw["cls"])

    @torch.no_grad()
    def decode(self, raw: Raw, image_sizes: ImageSizes) -> list[ImageDetections]:
        """Raw predictions to the detections of each image, clipped to it."""
        with torch.autocast(raw["cls"][0].device.type, enabled=False):
            grid = self.grid(raw)
            scores = flatten_levels(raw["cls"], self.num_classes).float().sigmoid()  # (B, P, C)
            centerness = flatten_levels(raw["centerness"], 1).float().sigmoid()  # (B, P, 1)

            # the best points of each level, by what their best class will score in the end
            best = scores.amax(dim=2) * centerness[..., 0]
            levels = best_candidates(best, grid.level_counts, self.limits.nms_pre)
            index = torch.cat(levels, dim=1)  # (B, K)

            distances = take(flatten_levels(raw["reg"], 4), index).float()
            boxes = distance_to_boxes(grid.centers[index], distances)  # (B, K, 4)
            scores, factors = take(scores, index), take(centerness, index)[..., 0]
            return [
                select_detections(clip_boxes(own, size), own_scores, own_factors, self.limits)
                for own, own_scores, own_factors, size in zip(
                    boxes, scores, factors, image_sizes, strict=True
                )
            ]
