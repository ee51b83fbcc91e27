"""What FCOS, RFD and AutoAssign share: predictions at the points of a pyramid, and their decoding.

A box is coded by its distances from the point (left, top, right, bottom), in px, or by the signed
code of `FieldCoder`.

Shapes: B images, P points over all levels, G boxes of one image, K candidates of one image,
C classes. Boxes are xyxy in px of the network input.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from rfla.assign import IGNORED, PriorGrid
from rfla.cfg.model_schema import ModelConfig
from rfla.models.backbones.backbone import Backbone
from rfla.models.detector import DenseDetector, ImageSizes, Raw, Target
from rfla.models.heads.fcos import FCOSHead
from rfla.models.heads.rfd import FieldHead
from rfla.models.necks.fpn import FPN
from rfla.models.priors import Points, best_candidates, take
from rfla.models.ranks import divisor_over_ranks
from rfla.names import QualityLoss
from rfla.ops.boxes import clip_boxes, distance_to_boxes, flatten_levels, pad_boxes
from rfla.ops.coding import FieldCoder
from rfla.ops.losses import quality_loss
from rfla.ops.nms import Candidates, DetectionLimits


class PointDetector(DenseDetector):
    """A detector that predicts, at each point, classes, a box and, often, how central the point is.

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
        head: FCOSHead | FieldHead,
        points: Points,
        limits: DetectionLimits,
        *,
        num_classes: int,
    ) -> None:
        super().__init__(backbone, neck, limits, num_classes)
        self.head, self.points = head, points

    @property
    def has_signed_code(self) -> bool:
        """Whether the head codes boxes by `FieldCoder`, and not by distances."""
        return isinstance(self.head, FieldHead)

    def raw(self, images: Tensor) -> Raw:
        """Predictions before decoding, lists per level.

        `cls` (B, C, H, W) and, where it is predicted, `centerness` (B, 1, H, W) logits; `reg`
        (B, 4, H, W) distances in px or code.
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

    def boxes(self, raw: Raw) -> Tensor:
        """(B, P, 4) predicted boxes, float32."""
        code = flatten_levels(raw["reg"], 4).float()
        if self.has_signed_code:
            return self.coder(raw).decode(code)
        return distance_to_boxes(self.grid(raw).centers, code)

    def boxes_at(self, raw: Raw, index: Tensor) -> Tensor:
        """(B, K, 4) boxes of the points `index` (B, K) as they are detected, float32."""
        return take(self.boxes(raw), index)

    def coder(self, raw: Raw) -> FieldCoder:
        """The signed box code of these maps' points."""
        levels = raw["cls"]
        return FieldCoder(
            self.grid(raw).centers,
            self.points.stride_of_each(levels),
            self.points.field_of_each(levels),
        )

    def matched_boxes(
        self, raw: Raw, matched: Tensor, targets: Sequence[Target]
    ) -> tuple[Tensor, Tensor]:
        """Label (B, P) and box (B, P, 4) that each point learns.

        A point without a box gets its own field, so that every loss of it is finite.
        """
        boxes, labels = pad_boxes(
            [target["boxes"] for target in targets], [target["labels"] for target in targets]
        )
        index = matched.clamp(min=0)
        own_boxes = torch.where((matched >= 0)[..., None], take(boxes, index), self.grid(raw).boxes)
        return labels.gather(1, index), own_boxes

    @torch.no_grad()
    def candidates(self, raw: Raw, image_sizes: Tensor) -> Candidates:
        """The best points of each level, decoded and clipped to their image."""
        with torch.autocast(raw["cls"][0].device.type, enabled=False):
            scores = flatten_levels(raw["cls"], self.num_classes).float().sigmoid()  # (B, P, C)
            best = scores.amax(dim=2)
            centerness = None
            if "centerness" in raw:
                centerness = flatten_levels(raw["centerness"], 1)[..., 0].float().sigmoid()
                best = best * centerness

            # the best points of each level, by what their best class will score in the end
            counts = self.grid(raw).level_counts
            index = torch.cat(best_candidates(best, counts, self.limits.nms_pre), dim=1)  # (B, K)
            boxes = clip_boxes(self.boxes_at(raw, index), image_sizes)
            factors = None if centerness is None else centerness.gather(1, index)
            return Candidates(boxes, take(scores, index), factors)


def build_point_head(
    config: ModelConfig,
    neck: FPN,
    num_classes: int,
    *,
    centerness: bool,
    start_probability: float = 0.01,
    start_distance: float = 0.0,
) -> FCOSHead | FieldHead:
    """The head of the configured box code, `loss.coding`, with random weights.

    Args:
        config: of the model.
        neck: whose levels it looks at.
        num_classes: without background.
        centerness: whether to predict it.
        start_probability: of every class at every point, before training.
        start_distance: to every side in strides, before training; the signed code starts by the
            field.
    """
    section = config.head
    sizes = (section.width, section.depth, section.norm, start_probability)
    if config.loss.coding == "field":
        levels = len(neck.strides)
        return FieldHead(neck.width, num_classes, levels, *sizes, centerness)
    return FCOSHead(neck.width, num_classes, neck.strides, *sizes, start_distance, centerness)


def quality_class_loss(
    logits: Tensor,
    labels: Tensor,
    quality: Tensor,
    matched: Tensor,
    kind: QualityLoss,
    focal: tuple[float, float],
) -> Tensor:
    """Class loss of all points where a score learns how well its box sits.

    Args:
        logits: (B, P, C).
        labels: (B, P) class of each positive point.
        quality: (B, P) fit of its box from 0 to 1; 0 where it has none.
        matched: (B, P) from the assigner; points in an ignore region learn nothing.
        kind: see `quality_loss`.
        focal: alpha and gamma, see there too.

    Returns:
        The sum over points and classes for each unit of quality, a scalar.
    """
    classes = torch.arange(logits.shape[-1], device=labels.device)
    soft = quality[..., None] * (labels[..., None] == classes)  # (B, P, C)
    losses = quality_loss(logits, soft, kind, focal)
    total = losses.masked_fill((matched == IGNORED)[..., None], 0.0).sum()
    return total / divisor_over_ranks(quality.sum())
