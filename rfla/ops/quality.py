"""How well a predicted box sits, as a soft classification target.

Shapes: N pairs of a predicted and a true box. Boxes are xyxy px.
"""

import torch
from torch import Tensor

from rfla.names import Quality

SHARPNESS = 2.0
"""Of the Gaussian similarity. At 2 a shift by a tenth, a quarter, a half of the side gives 0.82,
0.61, 0.37, as IoU does (0.82, 0.60, 0.33); beyond one side, where IoU is 0, a slope remains."""


@torch.no_grad()
def localization_quality(pred: Tensor, gt: Tensor, kind: Quality = "max") -> Tensor:
    """Score each predicted box against its true one.

    Args:
        pred: (N, 4).
        gt: (N, 4).
        kind: `iou`; `gaussian`, exp(-2 W / sqrt(w h)) with the Wasserstein distance W of the boxes
            as Gaussians (arXiv 2110.13389, equation 6) and the true sides w and h; or the larger
            of the two.

    Returns:
        (N,) float32 from 0 to 1, without a gradient.
    """
    pred, gt = pred.float(), gt.float()
    scores = []
    if kind != "gaussian":
        scores.append(_paired_iou(pred, gt))
    if kind != "iou":
        scores.append(_gaussian_similarity(pred, gt))
    return scores[0] if len(scores) == 1 else torch.maximum(*scores)


def _paired_iou(pred: Tensor, gt: Tensor) -> Tensor:
    """(N,) IoU of each pair; 0 where both are points."""
    low = torch.maximum(pred[:, :2], gt[:, :2])
    high = torch.minimum(pred[:, 2:], gt[:, 2:])
    overlap = (high - low).clamp(min=0).prod(dim=1)
    union = (pred[:, 2:] - pred[:, :2]).prod(dim=1) + (gt[:, 2:] - gt[:, :2]).prod(dim=1) - overlap
    return overlap / union.clamp(min=1e-6)


def _gaussian_similarity(pred: Tensor, gt: Tensor) -> Tensor:
    """(N,) similarity of the boxes as Gaussians: mean the centre, sigma half the side."""
    pred_size, gt_size = pred[:, 2:] - pred[:, :2], gt[:, 2:] - gt[:, :2]
    shift = (pred[:, :2] + pred[:, 2:] - gt[:, :2] - gt[:, 2:]) / 2
    squared = shift.square().sum(dim=1) + (pred_size - gt_size).square().sum(dim=1) / 4
    side = gt_size.prod(dim=1).clamp(min=1e-6).sqrt()
    return torch.exp(-SHARPNESS * squared.sqrt() / side)
