"""Ignore regions: a prior that lies in one learns nothing.

Background of which half or more lies in an ignore box is ignored, positives are not. MaxIoU alone
ignores any prior of which more than half does, as MMDetection's does.

Shapes: P priors, I ignore boxes. Boxes are xyxy in px of the network input.
"""

from functools import reduce

import torch
from torch import Tensor

from rfla.assign.arguments import BACKGROUND, IGNORED, box_rows, pairwise_intersection
from rfla.assign.chunks import chunks
from rfla.assign.prior_grid import PriorGrid

IGNORE_OVERLAP = 0.5
"""Share of a prior inside one ignore box from which a background prior is ignored."""
MIN_AREA = 1e-6
"""px^2; a smaller prior counts as this large."""


def intersection_over_prior(priors: Tensor, boxes: Tensor) -> Tensor:
    """(I, P) share of each prior that lies in each box."""
    area = (priors[:, 2] - priors[:, 0]) * (priors[:, 3] - priors[:, 1])
    return pairwise_intersection(boxes, priors) / area.clamp(min=MIN_AREA)


def ignore_background(
    matched: Tensor, priors: PriorGrid | Tensor, ignore_boxes: Tensor | None, valid: Tensor | None
) -> None:
    """Mark as ignored, in place, background in an ignore box and all that is not valid.

    Args:
        matched: (P,) int64 from an assigner.
        priors: That were assigned.
        ignore_boxes: (I, 4), or None.
        valid: (P,) bool, or None where all priors are.
    """
    if ignore_boxes is not None and len(ignore_boxes):
        covered = covered_by(priors, ignore_boxes)
        matched.masked_fill_((matched == BACKGROUND) & covered, IGNORED)
    if valid is not None:
        matched.masked_fill_(~valid, IGNORED)


def covered_by(priors: PriorGrid | Tensor, ignore_boxes: Tensor) -> Tensor:
    """(P,) bool: at least `IGNORE_OVERLAP` of the prior lies in one ignore box."""
    return greatest_share(priors, ignore_boxes) >= IGNORE_OVERLAP


def greatest_share(priors: PriorGrid | Tensor, ignore_boxes: Tensor) -> Tensor:
    """(P,) the largest share of each prior that lies in one ignore box; 0 without any."""
    boxes = box_rows(ignore_boxes, "ignore_boxes")
    greatest = []
    for part in chunks(len(boxes), len(priors) * 4 * 8):
        if isinstance(priors, PriorGrid):
            shares = _grid_shares(priors, boxes[part])  # (i, P)
        else:
            shares = intersection_over_prior(priors, boxes[part])
        greatest.append(shares.amax(dim=0))
    return reduce(torch.maximum, greatest) if greatest else boxes.new_zeros(len(priors))


def _grid_shares(grid: PriorGrid, boxes: Tensor) -> Tensor:
    """(I, P) as `intersection_over_prior`, from overlaps along rows and columns."""
    parts = []
    for level in range(len(grid.strides)):
        overlaps, sides = [], []
        for axis, edges in zip((1, 0), grid.level_edges(level), strict=True):  # y of rows, x
            low = torch.maximum(boxes[:, axis, None, None], edges[0])  # (I, cells, S)
            high = torch.minimum(boxes[:, axis + 2, None, None], edges[1])
            overlaps.append((high - low).clamp_(min=0))
            sides.append(edges[1] - edges[0])  # (cells, S)
        (height, width), (along_y, along_x) = sides, overlaps
        area = (width[None] * height[:, None]).clamp_(min=MIN_AREA)  # (H, W, S)
        intersection = along_x[:, None] * along_y[:, :, None]  # (I, H, W, S)
        parts.append(intersection.div_(area).flatten(1))
    return torch.cat(parts, dim=1)
