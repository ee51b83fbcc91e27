"""What every assigner returns, and the parts they share: ignore regions, plain boxes or a grid, images one by one.

Shapes: B images, G boxes of one image, P priors, I ignore boxes. Boxes are xyxy in px of the network input.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rfla.assign.priors import PriorGrid

BACKGROUND = -1
IGNORED = -2
IGNORE_OVERLAP = 0.5
"""Share of a prior inside one ignore box from which a background prior is ignored."""


def intersection_over_prior(priors: Tensor, boxes: Tensor) -> Tensor:
    """(I, P) share of each prior that lies in each box."""
    low = torch.maximum(boxes[:, None, :2], priors[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], priors[None, :, 2:])
    sides = (high - low).clamp_(min=0)
    area = (priors[:, 2] - priors[:, 0]) * (priors[:, 3] - priors[:, 1])
    return sides[..., 0] * sides[..., 1] / area.clamp(min=1e-6)


def covered_by(priors: Tensor, ignore_boxes: Tensor, threshold: float = IGNORE_OVERLAP) -> Tensor:
    """(P,) bool: at least `threshold` of the prior lies in one ignore box."""
    covered = torch.zeros(len(priors), dtype=torch.bool, device=priors.device)
    boxes = ignore_boxes.to(priors.dtype).reshape(-1, 4)
    step = max(1, 2**21 // max(1, len(priors)))
    for start in range(0, len(boxes), step):
        covered |= (intersection_over_prior(priors, boxes[start : start + step]) >= threshold).any(dim=0)
    return covered


def prior_boxes(priors: PriorGrid | Tensor) -> Tensor:
    """(P, 4) float32 xyxy of a grid or of plain boxes."""
    return priors.boxes if isinstance(priors, PriorGrid) else priors.to(torch.float32).reshape(-1, 4)


def valid_priors(
    priors: PriorGrid | Tensor, image_size: tuple[int, int] | None, allowed_border: float | None
) -> Tensor | None:
    """(P,) bool, or None where all are valid; plain boxes have no cells, so only the border counts for them."""
    if image_size is None and allowed_border is None:
        return None
    if isinstance(priors, PriorGrid):
        return priors.valid(image_size, allowed_border)
    if image_size is None:
        raise ValueError("allowed_border needs image_size")
    if allowed_border is None:
        return None
    height, width = image_size
    limit = priors.new_tensor((width + allowed_border, height + allowed_border))
    return ((priors[:, :2] >= -allowed_border) & (priors[:, 2:] < limit)).all(dim=1)


OneImage = Callable[
    [PriorGrid | Tensor, Tensor, Tensor | None, tuple[int, int] | None, float | None],
    Tensor,
]


def one_by_one(
    assign: OneImage,
    priors: PriorGrid | Sequence[Tensor],
    gt_boxes: Sequence[Tensor],
    ignore_boxes: Sequence[Tensor | None] | None,
    image_sizes: Sequence[tuple[int, int]] | None,
    allowed_border: float | None,
) -> Tensor:
    """Run a one-image rule over a batch: (B, P). Plain boxes come as one (P, 4) tensor for each image."""
    count = len(gt_boxes)
    grids: Sequence[PriorGrid | Tensor] = [priors] * count if isinstance(priors, PriorGrid) else priors
    ignore = [None] * count if ignore_boxes is None else ignore_boxes
    sizes = [None] * count if image_sizes is None else image_sizes
    rows = [
        assign(grid, boxes, regions, size, allowed_border)
        for grid, boxes, regions, size in zip(grids, gt_boxes, ignore, sizes, strict=True)
    ]
    return torch.stack(rows)
