"""Suppression inside a graph, with a result of fixed size.

Shapes: B images, C classes, K candidates of an image, M detections of an image, S rows of scores
and N boxes to choose from in one call, n that were chosen. Boxes are xyxy px.
"""

from typing import Any

import torch
from torch import Tensor

from rfla.models.priors import take
from rfla.ops.nms import grouped_nms

DEAD = -1.0
"""Score of what is no detection: below a threshold, suppressed, or padding."""


class NonMaxSuppression(torch.autograd.Function):
    """ONNX's operator of that name: class by class, boxes as they are.

    Scores at or below half of `DEAD` are left out. Returns (n, 3) int64: batch, class, box.
    """

    @staticmethod
    def forward(ctx: Any, boxes: Tensor, scores: Tensor, iou: float, limit: int) -> Tensor:
        """Choose among boxes (S, N, 4) by scores (S, C, N), at most `limit` of each class."""
        return torch.stack(_all_at_once(boxes, scores, iou), dim=1)

    @staticmethod
    def symbolic(g: Any, boxes: Any, scores: Any, iou: float, limit: int) -> Any:
        """Write the operator into a graph."""

        def constant(value: float, dtype: torch.dtype) -> Any:
            return g.op("Constant", value_t=torch.tensor([value], dtype=dtype))

        numbers = (
            constant(limit, torch.int64),
            constant(iou, torch.float32),
            constant(DEAD / 2, torch.float32),
        )
        return g.op("NonMaxSuppression", boxes, scores, *numbers)


def best_of_classes(
    boxes: Tensor, scores: Tensor, iou: float, limit: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Suppress within classes, and keep the best of each image.

    Args:
        boxes: (B, K, 4) for all classes, or (B, K, C, 4).
        scores: (B, K, C), `DEAD` where there is no detection.
        iou: IoU above which a box is suppressed by a higher-scoring box of its class.
        limit: M.

    Returns:
        Boxes (B, M, 4), scores (B, M) from high to low, labels (B, M) int64. Places without a
        detection have the score `DEAD`, a box of zeros and the label -1.
    """
    batch, count, classes = scores.shape
    by_class = scores.transpose(1, 2)  # (B, C, K)
    if boxes.dim() == 4:  # each class has boxes of its own: it becomes an image of one class
        own = boxes.transpose(1, 2).reshape(-1, count, 4)
        row, _, box = _suppress(own, by_class.reshape(-1, 1, count), iou, limit)
        image, label = row // classes, row % classes
    else:
        image, label, box = _suppress(boxes, by_class, iou, limit)

    # Scores of the survivors stand where they stood; then the best M are picked. Padding makes
    # sure that there are M to pick from.
    alive = torch.full_like(scores, DEAD).index_put((image, box, label), scores[image, box, label])
    padding = scores.new_full((batch, limit), DEAD)
    best, place = torch.cat((alive.flatten(1), padding), dim=1).topk(limit, dim=1)
    found = best > DEAD / 2
    place = torch.where(found, place, 0)
    if boxes.dim() == 4:
        flat, index = boxes.flatten(1, 2), place
    else:
        flat, index = boxes, place // classes
    return take(flat, index) * found[..., None], best, torch.where(found, place % classes, -1)


def _suppress(boxes: Tensor, scores: Tensor, iou: float, limit: int) -> tuple[Tensor, ...]:
    """Row, class and box of what survives."""
    if torch.onnx.is_in_onnx_export():
        chosen: Tensor = NonMaxSuppression.apply(boxes, scores, iou, limit)
        return chosen.unbind(1)
    return _all_at_once(boxes, scores, iou)


def _all_at_once(boxes: Tensor, scores: Tensor, iou: float) -> tuple[Tensor, ...]:
    """Row, class and box of what survives, by torchvision's operator.

    One call, and no loop: a graph of torch has no loop over a number of images that it does not
    know.
    """
    row, label, box = torch.nonzero(scores > DEAD / 2).unbind(1)
    room = boxes.amax().double() - boxes.amin() + 1
    group = row * scores.shape[1] + label
    kept = grouped_nms(boxes[row, box], scores[row, label, box], group, room, iou)
    return row[kept], label[kept], box[kept]
