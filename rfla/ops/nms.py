"""Non-maximum suppression by class, on float32 boxes as they are.

Shapes: B images, K candidates of each, N candidates of one image, C classes. Boxes are xyxy px.
"""

from dataclasses import dataclass
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor
from torchvision.ops import nms


class ImageDetections(TypedDict):
    """Detections of one image, best first.

    `boxes` (N, 4) float32, `scores` (N,) float32, `labels` (N,) int64 from 0.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class Candidates(NamedTuple):
    """What a detector found in a batch before suppression, as many in each image.

    Attributes:
        boxes: (B, K, 4) for all classes or (B, K, C, 4), float32, clipped to their image.
        class_scores: (B, K, C) without background, 0 to 1.
        score_factors: (B, K) from 0 to 1, or None.
    """

    boxes: Tensor
    class_scores: Tensor
    score_factors: Tensor | None


@dataclass(frozen=True)
class DetectionLimits:
    """Which detections of an image are kept.

    Attributes:
        score_thr: class scores must be above it, before anything weighs in.
        nms_iou: IoU above which a box is suppressed by a higher-scoring box of its class.
        max_det: detections kept.
        nms_pre: candidates of each level before suppression; read by the heads that predict
            everywhere.
        conf: lowest final score that is kept.
    """

    score_thr: float = 0.05
    nms_iou: float = 0.5
    max_det: int = 3000
    nms_pre: int = 3000
    conf: float = 0.0


def class_nms(
    boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float, limit: int
) -> Tensor:
    """Indices that survive suppression within their class, best score first.

    The usual trick shifts each class by more than the image's size and suppresses once; the shift
    eats the precision of 2 px boxes (torchvision's `batched_nms` does so below 4,000 values). Class
    by class, no box is moved, and memory stays low.

    Args:
        boxes: (N, 4).
        scores: (N,).
        labels: (N,) int64.
        iou_threshold: IoU above which a box is suppressed by a higher-scoring box of its class.
        limit: how many to keep.

    Returns:
        (min(kept, limit),) int64.

    Raises:
        ValueError: another number of scores or labels than of boxes.
    """
    if not len(boxes) == len(scores) == len(labels):
        counts = f"{len(boxes)} boxes, {len(scores)} scores, {len(labels)} labels"
        raise ValueError(f"a score and a label for each box expected, got {counts}")
    boxes, scores = boxes.float(), scores.float()
    # On a GPU one call waits once; on a CPU small calls are faster than one large one.
    suppress = _all_at_once if boxes.is_cuda else _one_by_one
    survivors = suppress(boxes, scores, labels, iou_threshold)
    survivors = survivors.sort().values  # equal scores keep their order
    order = scores[survivors].sort(descending=True, stable=True).indices
    return survivors[order[:limit]]


def _one_by_one(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Suppress class by class: the work grows with the square of the boxes of a class."""
    order = labels.argsort(stable=True)  # a class is a run of it
    counts = torch.unique_consecutive(labels[order], return_counts=True)[1].tolist()
    parts = (torch.split(part, counts) for part in (order, boxes[order], scores[order]))
    kept = [
        members if len(members) == 1 else members[nms(own_boxes, own_scores, iou_threshold)]
        for members, own_boxes, own_scores in zip(*parts, strict=True)
    ]
    return torch.cat(kept) if kept else order


def _all_at_once(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Suppress all classes in one call, without a wait between."""
    if not len(boxes):
        return torch.zeros(0, dtype=torch.int64, device=boxes.device)
    low, high = boxes.nan_to_num(nan=0.0).double().aminmax()  # a NaN would join all classes
    room = high - low + 1
    return grouped_nms(boxes, scores, labels, room, iou_threshold)


def grouped_nms(
    boxes: Tensor, scores: Tensor, groups: Tensor, room: Tensor, iou_threshold: float
) -> Tensor:
    """Suppress within groups by one call, each group shifted to a place of its own.

    In float64 the shift moves no box: a coordinate of float32 has 24 of its 53 bits.

    Args:
        boxes: (N, 4).
        scores: (N,).
        groups: (N,) int64.
        room: () float64, px; more than the boxes reach.
        iou_threshold: IoU above which a box is suppressed by a higher-scoring box of its group.

    Returns:
        Indices of those that survive, best score first.
    """
    shifts = groups.double()[:, None] * room
    kept: Tensor = nms(boxes.double() + shifts, scores.double(), iou_threshold)
    return kept


def select_detections(
    boxes: Tensor, class_scores: Tensor, score_factors: Tensor | None, limits: DetectionLimits
) -> ImageDetections:
    """Threshold, suppress and sort the candidates of one image.

    There are two thresholds. `score_thr` sees the class scores alone, as in the authors' code; then
    the factors (centerness) weigh in, and `conf` sees the product, which is the score that a user
    gets. A box that `conf` drops cannot suppress one that it keeps, so it is applied before NMS.

    Args:
        boxes: (N, 4) for all classes, or (N, C, 4).
        class_scores: (N, C) without background, 0 to 1.
        score_factors: (N,) from 0 to 1, or None.
        limits: what is kept.

    Returns:
        The detections that are left, best score first.
    """
    rows, labels = torch.nonzero(class_scores > limits.score_thr, as_tuple=True)
    scores = class_scores[rows, labels]
    if score_factors is not None:
        scores = scores * score_factors[rows]
    if limits.conf > 0:
        sure = torch.nonzero(scores >= limits.conf).squeeze(1)
        rows, labels, scores = rows[sure], labels[sure], scores[sure]
    # One box for all classes, or one for each.
    candidates = boxes[rows] if boxes.dim() == 2 else boxes[rows, labels]
    kept = class_nms(candidates, scores, labels, limits.nms_iou, limits.max_det)
    return {"boxes": candidates[kept], "scores": scores[kept], "labels": labels[kept]}


def select_batch(found: Candidates, limits: DetectionLimits) -> list[ImageDetections]:
    """`select_detections` for each image of a batch."""
    boxes, scores, factors = found
    return [
        select_detections(
            boxes[image], scores[image], None if factors is None else factors[image], limits
        )
        for image in range(len(boxes))
    ]
