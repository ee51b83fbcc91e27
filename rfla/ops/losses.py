"""Losses on boxes and logits, in float32, element by element: the caller weights and sums.

None of them looks at its values on the host. torchvision's box losses index with a boolean mask,
which makes a GPU wait for the host, and its epsilon differs from the authors', so the four IoU
losses are written here.
Shapes: N elements, boxes (N, 4) xyxy.
"""

import math
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from rfla.names import BoxLoss, QualityLoss

TINY = torch.finfo(torch.float32).tiny
BELOW_ONE = 1 - torch.finfo(torch.float32).eps / 2


def box_loss(pred: Tensor, target: Tensor, kind: BoxLoss = "diou") -> Tensor:
    """Loss of each predicted box against its target.

    Args:
        pred: (N, 4) xyxy, any unit.
        target: (N, 4) xyxy, the same unit.
        kind: `iou` is -ln(IoU); `giou` (arXiv 1902.09630), `diou` and `ciou` (arXiv 1911.08287) are
            1 - score.

    Returns:
        (N,) float32.

    Raises:
        ValueError: another kind.
    """
    if kind not in get_args(BoxLoss):
        raise ValueError(f"kind: one of {', '.join(get_args(BoxLoss))} expected, not {kind!r}")
    pred, target = pred.float(), target.float()
    eps = 1e-6  # keeps the divisions finite, as in the loss classes of the authors' code
    size = _not_negative(
        torch.minimum(pred[:, 2:], target[:, 2:]) - torch.maximum(pred[:, :2], target[:, :2])
    )
    overlap = size[:, 0] * size[:, 1]
    pred_size, target_size = pred[:, 2:] - pred[:, :2], target[:, 2:] - target[:, :2]
    union = pred_size[:, 0] * pred_size[:, 1] + target_size[:, 0] * target_size[:, 1] - overlap
    if kind == "iou":
        return -(overlap / union.clamp(min=eps)).clamp(min=eps).log()
    hull = _not_negative(
        torch.maximum(pred[:, 2:], target[:, 2:]) - torch.minimum(pred[:, :2], target[:, :2])
    )
    if kind == "giou":
        union = union.clamp(min=eps)
        hull_area = (hull[:, 0] * hull[:, 1]).clamp(min=eps)
        return 1 - (overlap / union - (hull_area - union) / hull_area)
    iou = overlap / (union + eps)
    offset = (target[:, :2] + target[:, 2:]) - (pred[:, :2] + pred[:, 2:])
    penalty = (offset.square().sum(1) / 4) / (hull.square().sum(1) + eps)
    if kind == "ciou":
        penalty = penalty + _aspect_penalty(pred_size, target_size, iou, eps)
    return 1 - (iou - penalty)


def _not_negative(side: Tensor) -> Tensor:
    """Clamp to 0, with the gradient passing at 0 itself.

    A predicted box of zero width has to be able to grow. `clamp` passed it in torch 2.1 and stops
    it in torch 2.14.
    """
    return torch.where(side >= 0, side, 0.0)


def _aspect_penalty(pred_size: Tensor, target_size: Tensor, iou: Tensor, eps: float) -> Tensor:
    pred_angle = torch.atan(pred_size[:, 0] / (pred_size[:, 1] + eps))
    target_angle = torch.atan(target_size[:, 0] / (target_size[:, 1] + eps))
    aspect = 4 / math.pi**2 * (target_angle - pred_angle).square()
    return aspect.square() / (1 - iou + aspect + eps)


def focal_loss(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss of each logit (arXiv 1708.02002, equation 5).

    torchvision's `sigmoid_focal_loss` computes the same from more intermediate tensors.

    Args:
        logits: any shape.
        targets: the same shape, 0 or 1.
        alpha: weight of positives; negatives weigh 1 - alpha.
        gamma: exponent of the modulating factor.

    Returns:
        float32, the shape of `logits`.
    """
    logits, targets = logits.float(), targets.float()
    sign = 1 - 2 * targets
    wrong = torch.sigmoid(logits * sign)  # probability of the other answer, 1 - p_t
    modulation = wrong.square() if gamma == 2 else wrong**gamma
    balance = (1 - alpha) + targets * (2 * alpha - 1)
    return functional.softplus(logits * sign) * modulation * balance


def quality_loss(
    logits: Tensor, quality: Tensor, kind: QualityLoss, focal: tuple[float, float]
) -> Tensor:
    """Loss of each logit that learns how well a box sits.

    Args:
        logits: any shape.
        quality: the same shape, 0 to 1: of the box for the true class, 0 elsewhere.
        kind: `quality_focal` or `varifocal`.
        focal: alpha, of which varifocal takes 1 - alpha for the negatives, and the exponent of the
            modulating factor.

    Returns:
        float32, the shape of `logits`.
    """
    alpha, gamma = focal
    if kind == "varifocal":
        return varifocal_loss(logits, quality, 1 - alpha, gamma)
    return quality_focal_loss(logits, quality, gamma)


def quality_focal_loss(logits: Tensor, quality: Tensor, beta: float = 2.0) -> Tensor:
    """Quality focal loss of each logit (arXiv 2006.04388, equation 3): |q - p|^beta times BCE.

    Args:
        logits: any shape.
        quality: the same shape, 0 to 1: how well the box sits for the true class, 0 elsewhere.
        beta: exponent of the modulating factor.

    Returns:
        float32, the shape of `logits`.
    """
    logits, quality = logits.float(), quality.float()
    difference = (quality - logits.sigmoid()).abs()
    modulation = difference.square() if beta == 2 else difference**beta
    bce = functional.binary_cross_entropy_with_logits(logits, quality, reduction="none")
    return bce * modulation


def varifocal_loss(
    logits: Tensor, quality: Tensor, alpha: float = 0.75, gamma: float = 2.0
) -> Tensor:
    """Varifocal loss of each logit (arXiv 2008.13367, equation 2): q BCE, or alpha p^gamma BCE.

    Where the quality q is above 0 the cross-entropy weighs q, so that well-placed boxes are learned
    first; elsewhere it is weighed down as in the focal loss.

    Args:
        logits: any shape.
        quality: the same shape, 0 to 1: how well the box sits for the true class, 0 elsewhere.
        alpha: weight of the negatives.
        gamma: exponent of their modulating factor.

    Returns:
        float32, the shape of `logits`.
    """
    logits, quality = logits.float(), quality.float()
    modulation = alpha * logits.sigmoid() ** gamma
    bce = functional.binary_cross_entropy_with_logits(logits, quality, reduction="none")
    return bce * torch.where(quality > 0, quality, modulation)


def log_losses(probabilities: Tensor, target: Literal[0, 1]) -> Tensor:
    """Binary cross entropy of each probability against one target, at most 100, float32.

    torch's `binary_cross_entropy` is the same, but a NaN among its inputs ends a process on a GPU;
    here it comes out as NaN, and the step is skipped.
    """
    probabilities = probabilities.float()
    # where the answer is as wrong as can be the logarithm is cut off, and gives no gradient
    if target == 1:
        losses = -probabilities.clamp(min=TINY).log()
    else:
        losses = -torch.log1p(-probabilities.clamp(max=BELOW_ONE))
    return torch.where(probabilities == 1 - target, 100.0, losses)


def smooth_l1(pred: Tensor, target: Tensor, beta: float) -> Tensor:
    """Square below `beta`, linear above; `beta` 0 is L1. Element by element, float32."""
    return functional.smooth_l1_loss(pred.float(), target.float(), beta=beta, reduction="none")
