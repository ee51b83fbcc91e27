"""What FCOS and AutoAssign share: predictions at the points of a pyramid, and their decoding.

Shapes: B images, P points over all levels, K candidates of one image, C classes. Boxes are xyxy in
px of the network input; distances (left, top, right, bottom) are in px too.
"""

import torch
from torch import Tensor, nn

from rfla.assign import PriorGrid
from rfla.models.detector import Detections, Detector, ImageSizes, Losses, Raw, Target, inputs
from rfla.models.heads.priors import Points, best_candidates, take
from rfla.models.necks.fpn import FPN
from rfla.ops.boxes import clip_boxes, distance_to_boxes, flatten_levels
from rfla.ops.nms import Limits, select_detections


class PointDetector(Detector):
    """Forward and decoding of a detector that predicts, at each point, classes, a box and how well it sits.

    Args:
        backbone: pixels to stages.
        neck: stages to levels.
        head: `FCOSHead`.
        points: the points and their assigner.
        limits: which detections are kept.
        num_classes: without background.
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
    ) -> None:
        super().__init__(backbone, neck, num_classes)
        self.head, self.points, self.limits = head, points, limits

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
            image_sizes: (height, width) of each image before padding; boxes are clipped to it.
        """
        targets, image_sizes = inputs(self, images, targets, image_sizes)
        raw = self.raw(images)
        return self.loss(raw, targets) if self.training else self.decode(raw, image_sizes)

    def raw(self, images: Tensor) -> Raw:
        """Predictions before decoding, lists per level: `cls`, `centerness` logits, `reg` distances in px."""
        raw: Raw = self.head(self.pyramid(images))
        return raw

    def loss(self, raw: Raw, targets: list[Target]) -> Losses:
        """Named scalar losses, in float32 whatever autocast says."""
        raise NotImplementedError

    @torch.no_grad()
    def priors(
        self, raw: Raw, targets: list[Target], image_sizes: ImageSizes
    ) -> tuple[PriorGrid, Tensor] | None:
        """The points and which box each is given (B, P), for pictures.

        None where boxes choose as they learn.
        """
        if self.points.assigner is None:
            return None
        return self.points.grid(raw["cls"]), self.points.assign(raw["cls"], targets, image_sizes)

    @torch.no_grad()
    def decode(self, raw: Raw, image_sizes: ImageSizes) -> list[Detections]:
        """Raw predictions to the detections of each image."""
        with torch.autocast(raw["cls"][0].device.type, enabled=False):
            grid = self.points.grid(raw["cls"])
            scores = flatten_levels(raw["cls"], self.num_classes).float().sigmoid()  # (B, P, C)
            centerness = flatten_levels(raw["centerness"], 1).float().sigmoid()  # (B, P, 1)
            best = scores.amax(dim=2) * centerness[..., 0]
            index = torch.cat(
                best_candidates(best, grid.level_counts, self.limits.nms_pre), dim=1
            )  # (B, K)
            boxes = distance_to_boxes(
                grid.centers[index], take(flatten_levels(raw["reg"], 4), index).float()
            )
            candidates = zip(
                boxes,
                take(scores, index),
                take(centerness, index)[..., 0],
                image_sizes,
                strict=True,
            )
            return [
                select_detections(clip_boxes(own, size), own_scores, factors, self.limits)
                for own, own_scores, factors, size in candidates
            ]
