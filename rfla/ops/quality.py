"""How well a predicted box, or a point in a box, sits, as a target of the network.

Shapes: N pairs of a predicted and a true box. Boxes are xyxy px.
"""

import torch
from torch import Tensor

from rfla.names import Quality
from rfla.ops.coding import MIN_SIDE

SHARPNESS = 2.0
"""Of the Gaussian similarity. At 2 a shift by a tenth, a quarter, a half of the side gives 0.82,
0.61, 0.37, as IoU does (0.82, 0.60, 0.33); beyond one side, where IoU is 0, a slope remains."""


def centerness(distances: Tensor, floor: float = 0.0) -> Tensor:
    """How central a point is in its box, 0 to 1 (FCOS, arXiv 1904.01355, equation 3).

    Args:
        distances: (..., 4) left, top, right, bottom.
        floor: least distance to the nearer side, in the same unit: a point outside its box, whose
            distance is negative, still gets a small centerness.

    Returns:
        (...).
    """
    left_right, top_bottom = distances[..., 0::2], distances[..., 1::2]
    sides = torch.stack((left_right, top_bottom), dim=-2)  # (..., 2 axes, 2 sides)
    nearest = sides.amin(dim=-1).clamp(min=floor)
    farthest = sides.amax(dim=-1).clamp(min=1e-6)
    return (nearest / farthest).prod(dim=-1).clamp(0, 1).sqrt()


@torch.no_grad()
def localization_quality(pred: Tensor, gt: Tensor, kind: Quality = "max") -> Tensor:
    """Score each predicted box against its true one.

    Args:
        pred: (N, 4).
        gt: (N, 4).
        kind: `iou`; `gaussian`, exp(-2 W / sqrt(w h)) with the Wasserstein distance W of the boxes
            as Gaussians (arXiv 2110.13389, equation 6) and the true sides w and h; `max`, the
            larger of the two; `kl`, 1 / (1 + KL), as RFLA scores a field (section 3.2 of the
            paper), with the Kullback-Leibler divergence of the predicted box from the true one.

    Returns:
        (N,) float32 from 0 to 1, without a gradient.
    """
    pred, gt = pred.float(), gt.float()
    if kind == "max":
        return torch.maximum(_paired_iou(pred, gt), _gaussian_similarity(pred, gt))
    return _MEASURES[kind](pred, gt)


def _paired_iou(pred: Tensor, gt: Tensor) -> Tensor:
    """(N,) IoU of each pair; 0 where both are points."""
    low = torch.maximum(pred[:, :2], gt[:, :2])
    high = torch.minimum(pred[:, 2:], gt[:, 2:])
    overlap = (high - low).clamp(min=0).prod(dim=1)
    union = (pred[:, 2:] - pred[:, :2]).prod(dim=1) + (gt[:, 2:] - gt[:, :2]).prod(dim=1) - overlap
    return overlap / union.clamp(min=1e-6)


def _gaussian_similarity(pred: Tensor, gt: Tensor) -> Tensor:
    """(N,) similarity of the boxes as Gaussians: mean the centre, sigma half the side."""
    shift, pred_size, gt_size = _shift_and_sizes(pred, gt)
    squared = shift.square().sum(dim=1) + (pred_size - gt_size).square().sum(dim=1) / 4
    side = gt_size.prod(dim=1).clamp(min=1e-6).sqrt()
    return torch.exp(-SHARPNESS * squared.sqrt() / side)


def _kl_similarity(pred: Tensor, gt: Tensor) -> Tensor:
    """(N,) 1 / (1 + KL) of the same Gaussians.

    It falls slowly: a shift by a tenth, a quarter, a half, one side gives 0.98, 0.89, 0.67, 0.33.
    """
    shift, pred_size, gt_size = _shift_and_sizes(pred, gt)
    pred_size, gt_size = pred_size.clamp(min=MIN_SIDE), gt_size.clamp(min=MIN_SIDE)
    spread = (pred_size / gt_size).square()
    divergence = (spread - 1 - spread.log() + 4 * (shift / gt_size).square()).sum(dim=1) / 2
    return 1 / (1 + divergence)


def _shift_and_sizes(pred: Tensor, gt: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(N, 2) each: offset of the centres, sides of the predicted and of the true boxes."""
    shift = (pred[:, :2] + pred[:, 2:] - gt[:, :2] - gt[:, 2:]) / 2
    return shift, pred[:, 2:] - pred[:, :2], gt[:, 2:] - gt[:, :2]


_MEASURES = {"iou": _paired_iou, "gaussian": _gaussian_similarity, "kl": _kl_similarity}
