"""AutoAssign (arXiv 2007.03496) learns how much each point near a box counts.

With RFLA, among those that HLA chose. Its class score learns the fit of a box as it is: a box's
points share its loss by score and fit together, and where a box fits the negative loss is small.
So it takes the signed box code of RFD (`loss.coding=field`), and no `loss.quality`.

Everything runs on (point, box) pairs, and never on the points x boxes matrix. `raw` and `assign`
are in `PointDetector`, `decode` in `DenseDetector`; `loss` is here, and how it is built.

Shapes: B images, P points over all levels, M boxes of all images together, C classes, K pairs.
Boxes are xyxy in px of the network input.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from rfla.assign.ignore_regions import covered_by
from rfla.cfg.model_schema import ModelConfig
from rfla.models.assigners import build_assigner
from rfla.models.backbones.backbone import Backbone
from rfla.models.backbones.build import build_backbone
from rfla.models.detector import ImageSizes, Raw, StepLosses, Target, step_counts
from rfla.models.heads.fcos import FCOSHead
from rfla.models.heads.rfd import FieldHead
from rfla.models.limits import build_limits
from rfla.models.necks.fpn import FPN
from rfla.models.points import PointDetector, build_point_head
from rfla.models.priors import Points, build_points
from rfla.models.ranks import divisor_over_ranks
from rfla.names import BoxLoss
from rfla.ops.boxes import flatten_levels, starts_of
from rfla.ops.device import to_device
from rfla.ops.iou import best_iou
from rfla.ops.losses import box_loss, log_losses
from rfla.ops.nms import DetectionLimits

EPS = 1e-12
CONFIDENCE_SHARPNESS = 3.0  # equation 6: how much more a confident point counts
PAIR_BUDGET = 4_000_000  # (point, box) tests at a time
START_PROBABILITY = 0.02  # of every class at every point, before training
START_DISTANCE = 4.0  # strides to every side, before training


@dataclass(frozen=True)
class Pairs:
    """K (point, box) pairs, ordered by image, then box, then point."""

    image: Tensor  # (K,) int64
    point: Tensor  # (K,) int64, 0 to P - 1
    box: Tensor  # (K,) int64, 0 to M - 1


@dataclass(frozen=True)
class _Truth:
    boxes: Tensor  # (M, 4)
    labels: Tensor  # (M,)
    counts: list[int]  # boxes of each image


class CenterPrior(nn.Module):
    """How much a point counts by its offset from the box centre: one Gaussian for each class.

    Mean and deviation are in strides (equation 4).
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(num_classes, 2))
        self.sigma = nn.Parameter(torch.ones(num_classes, 2))

    def forward(self, offsets: Tensor, labels: Tensor) -> Tensor:
        """Offsets (K, 2) from box centres in strides, and labels (K,) of the boxes, to (K,)."""
        squared = (offsets - self.mean[labels].float()).square()
        return torch.exp(-squared / (2 * self.sigma[labels].float().square())).prod(dim=-1)


class AutoAssign(PointDetector):
    """AutoAssign on any pyramid.

    Args:
        backbone: pixels to stages.
        neck: stages to levels.
        head: levels to raw predictions; its centerness is AutoAssign's objectness.
        points: the points and the assigner that chooses those of each box; without one, the
            original rule: all inside.
        limits: which detections are kept.
        num_classes: without background.
        box_loss_kind: `giou` in the paper.
        box_weight: factor on the box loss inside the localisation confidence.
        loss_weights: of positives, negatives and the centre prior.
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
        box_loss_kind: BoxLoss = "giou",
        box_weight: float = 5.0,
        loss_weights: tuple[float, float, float] = (0.25, 0.75, 0.75),
    ) -> None:
        super().__init__(backbone, neck, head, points, limits, num_classes=num_classes)
        self.center_prior = CenterPrior(num_classes)
        self.box_loss_kind, self.box_weight = box_loss_kind, box_weight
        self.loss_weights = loss_weights

    @classmethod
    def from_config(cls, config: ModelConfig, num_classes: int) -> Self:
        """Build AutoAssign, on P3 to P7, with random weights.

        `assigner=baseline` lets each box choose among all points inside it.
        """
        backbone = build_backbone(config.backbone)
        neck = FPN.from_config(config.neck, backbone, gain_by_input=True)
        head = build_point_head(
            config,
            neck,
            num_classes,
            centerness=True,
            start_probability=START_PROBABILITY,
            start_distance=START_DISTANCE,
        )
        assigner = build_assigner(config.assigner, baseline=None)
        return cls(
            backbone,
            neck,
            head,
            build_points(config, backbone, neck.strides, assigner, offset="corner"),
            build_limits(config.test),
            num_classes=num_classes,
            box_loss_kind=config.loss.box,
            box_weight=config.loss.box_weight,
        )

    def loss(self, raw: Raw, targets: Sequence[Target], image_sizes: ImageSizes) -> StepLosses:
        """`loss_pos`, `loss_neg` and `loss_center` (equations 5 to 9), in float32 always."""
        with torch.autocast(raw["cls"][0].device.type, enabled=False):
            truth = _Truth(
                torch.cat([target["boxes"].float().reshape(-1, 4) for target in targets]),
                torch.cat([target["labels"] for target in targets]),
                [len(target["boxes"]) for target in targets],
            )
            pairs = self.pairs(raw, targets, image_sizes)
            classes = flatten_levels(raw["cls"], self.num_classes).float().sigmoid()
            objectness = flatten_levels(raw["centerness"], 1).float().sigmoid()
            confidence = classes * objectness  # (B, P, C)
            prior = self._prior_weights(raw, pairs, truth)
            pred_boxes = self.boxes(raw)[pairs.image, pairs.point]  # (K, 4)
            positive = self._positive_loss(confidence, pred_boxes, prior, pairs, truth)
            ignored = self._ignored(raw, targets, pairs)
            negative = self._negative_loss(confidence, pred_boxes.detach(), pairs, truth, ignored)
            boxes = divisor_over_ranks(to_device(float(len(truth.boxes)), prior.device))
            weight_sum = divisor_over_ranks(prior.detach().sum())
            center = self._center_loss(prior, pairs, truth.counts)
        pos_weight, neg_weight, center_weight = self.loss_weights
        losses = {
            "loss_pos": positive / boxes * pos_weight,
            "loss_neg": negative / weight_sum * neg_weight,
            "loss_center": center * center_weight,
        }
        positives = torch.full((), len(pairs.point), device=prior.device)
        return StepLosses(losses, step_counts(positives, targets))

    @torch.no_grad()
    def pairs(self, raw: Raw, targets: Sequence[Target], image_sizes: ImageSizes) -> Pairs:
        """The points among which each box learns to choose."""
        matched = self.assign(raw, targets, image_sizes)
        if matched is None:
            return self._points_inside(raw, targets)
        image, point = torch.nonzero(matched >= 0, as_tuple=True)
        first = starts_of([len(target["boxes"]) for target in targets])
        box = matched[image, point] + to_device(first, matched.device)[image]
        # By box, as sums over the points of a box are taken below.
        order = torch.argsort(box, stable=True)
        return Pairs(image[order], point[order], box[order])

    @torch.no_grad()
    def _ignored(self, raw: Raw, targets: Sequence[Target], pairs: Pairs) -> Tensor:
        """(B, P) bool: points of no box that an ignore region covers."""
        grid = self.grid(raw)
        ignored = torch.zeros(len(targets), len(grid), dtype=torch.bool, device=grid.device)
        for row, target in zip(ignored, targets, strict=True):
            if len(target.get("ignore", ())):
                row |= covered_by(grid.boxes, target["ignore"])  # few kernels on a GPU
        taken = pairs.image * len(grid) + pairs.point
        return ignored.view(-1).index_fill_(0, taken, False).view_as(ignored)

    def _prior_weights(self, raw: Raw, pairs: Pairs, truth: _Truth) -> Tensor:
        """(K,) weight of each pair by the centre prior of the box's class."""
        boxes = truth.boxes[pairs.box]
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        points, strides = self.grid(raw).centers, self.points.stride_of_each(raw["cls"])
        offsets = (points[pairs.point] - centres) / strides[pairs.point]
        weights: Tensor = self.center_prior(offsets, truth.labels[pairs.box])
        return weights

    def _positive_loss(
        self, confidence: Tensor, pred_boxes: Tensor, prior: Tensor, pairs: Pairs, truth: _Truth
    ) -> Tensor:
        """Negative log of each box's confidence over its points (equations 5 to 7), summed."""
        box_losses = (
            box_loss(pred_boxes, truth.boxes[pairs.box], self.box_loss_kind) * self.box_weight
        )
        of_class = confidence[pairs.image, pairs.point, truth.labels[pairs.box]]
        joint = of_class * torch.exp(-box_losses)
        # Points that fit their box well already count exponentially more: the box chooses them.
        weight = torch.exp(CONFIDENCE_SHARPNESS * joint) * prior
        zeros = joint.new_zeros(len(truth.boxes))
        total = zeros.index_add(0, pairs.box, weight).clamp(min=EPS)
        weighed = zeros.index_add(0, pairs.box, joint * weight / total[pairs.box])
        return log_losses(weighed, 1).sum()

    def _negative_loss(
        self, confidence: Tensor, pred_boxes: Tensor, pairs: Pairs, truth: _Truth, ignored: Tensor
    ) -> Tensor:
        """Focal-like loss on all confidences but those ignored, summed (equations 8 and 9).

        It is less where a point localises its box well.
        """
        weight = self._negative_weight(confidence.shape, pred_boxes, pairs, truth)
        weight = weight.masked_fill(ignored[..., None], 0.0)
        wrong = confidence * weight  # the probability that ought to be 0
        return (wrong.square() * log_losses(wrong, 0)).sum()

    @torch.no_grad()
    def _negative_weight(
        self, shape: torch.Size, pred_boxes: Tensor, pairs: Pairs, truth: _Truth
    ) -> Tensor:
        """(B, P, C): 1, and less for a box's class at the points that predict a box well."""
        iou = best_iou(pred_boxes, pairs.image, truth.boxes, truth.counts)
        quality = 1 / (1 - iou).clamp(min=EPS)
        # The quality is stretched to 0..1 among the points of each box.
        lowest = quality.new_full((len(truth.boxes),), torch.inf).scatter_reduce(
            0, pairs.box, quality, "amin"
        )
        highest = quality.new_full((len(truth.boxes),), -torch.inf).scatter_reduce(
            0, pairs.box, quality, "amax"
        )
        low, high = lowest[pairs.box], highest[pairs.box]
        quality = (quality - low + EPS) / (high - low + EPS)
        weight = quality.new_ones(shape).flatten()
        cell = (pairs.image * shape[1] + pairs.point) * shape[2] + truth.labels[pairs.box]
        # of two boxes of a class at one point the later one counts
        last = torch.full_like(weight, -1, dtype=torch.int64)
        last.scatter_reduce_(0, cell, torch.arange(len(cell), device=cell.device), "amax")
        weight[cell] = 1 - quality[last[cell]]
        return weight.view(shape)

    def _center_loss(self, prior: Tensor, pairs: Pairs, counts: list[int]) -> Tensor:
        """Boxes of an image over the sum of its weights, averaged over the images.

        It keeps the prior from vanishing.
        """
        total = prior.new_zeros(len(counts)).index_add(0, pairs.image, prior)
        chosen = total > EPS  # else no point is near a box, and there is nothing to learn
        boxes = to_device([float(count) for count in counts], prior.device)
        return torch.where(chosen, boxes / torch.where(chosen, total, 1.0), 0.0).mean()

    def _points_inside(self, raw: Raw, targets: Sequence[Target]) -> Pairs:
        """All points strictly inside each box, a few boxes at a time."""
        points = self.grid(raw).centers
        at_a_time = max(1, PAIR_BUDGET // max(len(points), 1))
        found: list[Pairs] = []
        first = 0
        for image, target in enumerate(targets):
            for boxes in torch.split(target["boxes"].float().reshape(-1, 4), at_a_time):
                after_low, before_high = points > boxes[:, None, :2], points < boxes[:, None, 2:]
                inside = (after_low & before_high).all(dim=-1)  # (G, P)
                box, point = torch.nonzero(inside, as_tuple=True)
                found.append(Pairs(torch.full_like(box, image), point, box + first))
                first += len(boxes)
        return Pairs(
            torch.cat([part.image for part in found]),
            torch.cat([part.point for part in found]),
            torch.cat([part.box for part in found]),
        )
