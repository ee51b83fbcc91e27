"""AutoAssign (arXiv 2007.03496) learns how much each point near a box counts.

With RFLA, among those that HLA chose.

Everything runs on (point, box) pairs, and never on the points x boxes matrix. `forward` and
`decode` are in `PointDetector`; `assign` and `loss` are here.

Shapes: B images, P points over all levels, M boxes of all images together, C classes, K pairs.
Boxes are xyxy in px of the network input.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from rfla.models.detector import Losses, Raw, Target
from rfla.models.heads.priors import Points
from rfla.models.necks.fpn import FPN
from rfla.models.points import PointDetector
from rfla.ops.boxes import distance_to_boxes, flatten_levels
from rfla.ops.iou import best_iou
from rfla.ops.losses import BoxLoss, box_loss, mean_over_ranks
from rfla.ops.nms import Limits

EPS = 1e-12
CONFIDENCE_SHARPNESS = 3.0  # equation 6: how much more a confident point counts
PAIR_BUDGET = 4_000_000  # (point, box) tests at a time


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
    """How much a point counts by where it lies from the box centre: one Gaussian, in strides, for each class."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(num_classes, 2))
        self.sigma = nn.Parameter(torch.ones(num_classes, 2))

    def forward(self, offsets: Tensor, labels: Tensor) -> Tensor:
        """(K, 2) offsets of points from box centres in strides and (K,) labels of the boxes, to (K,) weights."""
        squared = (offsets - self.mean[labels].float()).square()
        return torch.exp(-squared / (2 * self.sigma[labels].float().square())).prod(dim=-1)


class AutoAssign(PointDetector):
    """AutoAssign on any pyramid.

    Args:
        backbone: pixels to stages.
        neck: stages to levels.
        head: `FCOSHead`; its centerness is AutoAssign's objectness.
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
        backbone: nn.Module,
        neck: FPN,
        head: nn.Module,
        points: Points,
        limits: Limits,
        *,
        num_classes: int,
        box_loss_kind: BoxLoss = "giou",
        box_weight: float = 5.0,
        loss_weights: tuple[float, float, float] = (0.25, 0.75, 0.75),
    ) -> None:
        super().__init__(backbone, neck, head, points, limits, num_classes=num_classes)
        self.center_prior = CenterPrior(num_classes)
        self.box_loss_kind, self.box_weight, self.loss_weights = (
            box_loss_kind,
            box_weight,
            loss_weights,
        )

    @torch.no_grad()
    def assign(self, raw: Raw, targets: list[Target]) -> Pairs:
        """The points among which each box learns to choose."""
        if self.points.assigner is None:
            return self._points_inside(raw, targets)
        counts = [len(target["boxes"]) for target in targets]
        matched = self.points.assign(raw["cls"], targets)
        image, point = torch.nonzero(matched >= 0, as_tuple=True)
        first = torch.tensor([sum(counts[:i]) for i in range(len(counts))], device=matched.device)
        box = matched[image, point] + first[image]
        order = torch.argsort(box, stable=True)
        return Pairs(image[order], point[order], box[order])

    def loss(self, raw: Raw, targets: list[Target]) -> Losses:
        """`loss_pos`, `loss_neg` and `loss_center` (equations 5 to 9), in float32 whatever autocast says."""
        with torch.autocast(raw["cls"][0].device.type, enabled=False):
            truth = _Truth(
                torch.cat([target["boxes"].float().reshape(-1, 4) for target in targets]),
                torch.cat([target["labels"] for target in targets]),
                [len(target["boxes"]) for target in targets],
            )
            pairs = self.assign(raw, targets)
            self.statistics = {
                "positives": torch.tensor(len(pairs.point)),
                "boxes": torch.tensor(len(truth.boxes)),
            }
            classes = flatten_levels(raw["cls"], self.num_classes).float().sigmoid()
            objectness = flatten_levels(raw["centerness"], 1).float().sigmoid()
            confidence = classes * objectness  # (B, P, C)
            prior = self._prior_weights(raw, pairs, truth)
            pred_boxes = self._pred_boxes(raw, pairs)
            positive = self._positive_loss(confidence, pred_boxes, prior, pairs, truth)
            negative = self._negative_loss(confidence, pred_boxes.detach(), pairs, truth)
            boxes = mean_over_ranks(prior.new_tensor(len(truth.boxes))).clamp(min=1)
            weight_sum = mean_over_ranks(prior.detach().sum()).clamp(min=1)
            center = self._center_loss(prior, pairs, truth.counts)
        pos_weight, neg_weight, center_weight = self.loss_weights
        return {
            "loss_pos": positive / boxes * pos_weight,
            "loss_neg": negative / weight_sum * neg_weight,
            "loss_center": center * center_weight,
        }

    def _prior_weights(self, raw: Raw, pairs: Pairs, truth: _Truth) -> Tensor:
        """(K,) weight of each pair by the centre prior of the box's class."""
        boxes = truth.boxes[pairs.box]
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        points, strides = (
            self.points.grid(raw["cls"]).centers,
            self.points.stride_of_each(raw["cls"]),
        )
        offsets = (points[pairs.point] - centres) / strides[pairs.point]
        weights: Tensor = self.center_prior(offsets, truth.labels[pairs.box])
        return weights

    def _pred_boxes(self, raw: Raw, pairs: Pairs) -> Tensor:
        """(K, 4) predicted box of the point of each pair, px."""
        distances = flatten_levels(raw["reg"], 4).float()[pairs.image, pairs.point]
        return distance_to_boxes(self.points.grid(raw["cls"]).centers[pairs.point], distances)

    def _positive_loss(
        self, confidence: Tensor, pred_boxes: Tensor, prior: Tensor, pairs: Pairs, truth: _Truth
    ) -> Tensor:
        """Negative log of each box's confidence, weighed over its points (equations 5 to 7), summed."""
        box_losses = (
            box_loss(pred_boxes, truth.boxes[pairs.box], self.box_loss_kind) * self.box_weight
        )
        of_class = confidence[pairs.image, pairs.point, truth.labels[pairs.box]]
        joint = of_class * torch.exp(-box_losses)
        weight = torch.exp(CONFIDENCE_SHARPNESS * joint) * prior
        zeros = joint.new_zeros(len(truth.boxes))
        total = zeros.index_add(0, pairs.box, weight).clamp(min=EPS)
        weighed = zeros.index_add(0, pairs.box, joint * weight / total[pairs.box])
        return functional.binary_cross_entropy(weighed, torch.ones_like(weighed), reduction="sum")

    def _negative_loss(
        self, confidence: Tensor, pred_boxes: Tensor, pairs: Pairs, truth: _Truth
    ) -> Tensor:
        """Focal-like loss on all confidences, less where a point localises its box well (equations 8 and 9), summed."""
        weight = self._negative_weight(confidence.shape, pred_boxes, pairs, truth)
        logits = confidence * weight
        losses = functional.binary_cross_entropy(logits, torch.zeros_like(logits), reduction="none")
        return (logits.square() * losses).sum()

    @torch.no_grad()
    def _negative_weight(
        self, shape: torch.Size, pred_boxes: Tensor, pairs: Pairs, truth: _Truth
    ) -> Tensor:
        """(B, P, C): 1, and less for the class of a box at the points that predict a box of the image well."""
        iou = best_iou(pred_boxes, pairs.image, truth.boxes, truth.counts)
        quality = 1 / (1 - iou).clamp(min=EPS)
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
        """Boxes of an image over the sum of its weights, averaged over the images: keeps the prior from vanishing."""
        zeros = prior.new_zeros(len(counts))
        total = zeros.index_add(0, pairs.image, prior)
        chosen = zeros.index_add(0, pairs.image, torch.ones_like(prior)) > 0
        boxes = torch.tensor(counts, dtype=prior.dtype, device=prior.device)
        return torch.where(
            chosen, boxes / torch.where(chosen, total, 1.0).clamp(min=EPS), 0.0
        ).mean()

    def _points_inside(self, raw: Raw, targets: list[Target]) -> Pairs:
        """All points strictly inside each box, a few boxes at a time."""
        points = self.points.grid(raw["cls"]).centers
        at_a_time = max(1, PAIR_BUDGET // max(len(points), 1))
        found: list[Pairs] = []
        first = 0
        for image, target in enumerate(targets):
            for boxes in torch.split(target["boxes"].float().reshape(-1, 4), at_a_time):
                inside = ((points > boxes[:, None, :2]) & (points < boxes[:, None, 2:])).all(
                    dim=-1
                )  # (G, P)
                box, point = torch.nonzero(inside, as_tuple=True)
                found.append(Pairs(torch.full_like(box, image), point, box + first))
                first += len(boxes)
        empty = torch.zeros(0, dtype=torch.int64, device=points.device)
        columns = (
            zip(*[(part.image, part.point, part.box) for part in found], strict=True)
            if found
            else [(empty,)] * 3
        )
        return Pairs(*[torch.cat(column) for column in columns])
