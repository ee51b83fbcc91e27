"""The dense path of the assigner: every box against every prior, a bounded number of boxes at a time.

It serves distances whose best priors need not lie near the box centre (IoU and its kin), grids so small or fields so wide
that a window would cover them anyway, plain boxes without a grid, and boxes whose scores form a plateau.

Shapes: G boxes, P priors, k of one stage. The whole (G, P) matrix never exists.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rfla.assign.distance import Distance, pairwise

PLATEAU = 16
"""More priors than this tied at the k-th best score, in one level and shape, are a plateau."""
BUDGET = 32 * 2**20
"""Bytes that the matrices of one chunk may take together."""
MATRICES = 8
"""Matrices of a chunk alive at once, counted generously."""


@dataclass(frozen=True)
class Claims:
    """Pairs that one stage selects: `box` (M,) claims `prior` (M,); both int64."""

    box: Tensor
    prior: Tensor


def chunks(total: int, row_bytes: int, budget: int = BUDGET) -> Iterator[slice]:
    """Slices of `range(total)` that keep `row_bytes * length` within the budget, at least one row each."""
    size = max(1, budget // max(1, row_bytes))
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


def claim_rows(scores: Tensor, squared_offset: Tensor, groups: Tensor, k: int) -> Tensor:
    """Which priors each box claims.

    All priors that reach the k-th best score, as in the authors' code; but where more than 16 of one group (level and shape)
    tie at that score, k in all: the better ones, then of the tied ones the nearest, then those of lowest index.

    Args:
        scores: (G, P); -inf where a prior is not valid.
        squared_offset: (G, P) squared distance of the centres in px^2, orders the tied ones.
        groups: (P,) int64 number of the level and shape.
        k: Priors wanted for each box.

    Returns:
        (G, P) bool.
    """
    k = min(k, scores.shape[1])
    kth = scores.topk(k, dim=1).values[:, -1:]  # (G, 1)
    valid = scores > -torch.inf
    claimed = (scores >= kth) & valid
    tied = (scores == kth) & valid
    num_groups = int(groups.max()) + 1
    counts = torch.zeros(len(scores), num_groups, dtype=torch.int32, device=scores.device)
    counts.scatter_add_(1, groups.expand_as(scores), tied.to(torch.int32))
    flat = (counts > PLATEAU).any(dim=1).nonzero().squeeze(1)  # boxes on a plateau
    if len(flat):
        better = claimed[flat] & ~tied[flat]
        order = squared_offset[flat].masked_fill(~tied[flat], torch.inf).sort(dim=1, stable=True).indices
        rank = torch.empty_like(order).scatter_(
            1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
        )
        claimed[flat] = better | (tied[flat] & (rank < k - better.sum(dim=1, keepdim=True)))
    return claimed


def squared_offsets(gt_boxes: Tensor, priors: Tensor) -> Tensor:
    """(G, P) squared distance between centres, px^2."""
    gt_centers, centers = (gt_boxes[:, :2] + gt_boxes[:, 2:]) / 2, (priors[:, :2] + priors[:, 2:]) / 2
    difference = gt_centers[:, None] - centers[None]
    return difference[..., 0] ** 2 + difference[..., 1] ** 2


def dense_claims(
    distance: Distance,
    gt_boxes: Tensor,
    priors: Tensor,
    groups: Tensor,
    valid: Tensor | None,
    k: int,
    ignore_above: float | None,
) -> tuple[Claims, Tensor]:
    """One stage for the boxes of one image.

    Args:
        distance: How to score.
        gt_boxes: (G, 4) float32.
        priors: (P, 4) float32, fields at the size of this stage.
        groups: (P,) int64, see `claim_rows`.
        valid: (P,) bool or None for all.
        k: Priors for each box.
        ignore_above: Score from which a prior is too near a box to be background, or None.

    Returns:
        The claims and the (P,) bool band of priors that reach `ignore_above` for some box.
    """
    band = torch.zeros(len(priors), dtype=torch.bool, device=priors.device)
    boxes, claimed = [], []
    for part in chunks(len(gt_boxes), len(priors) * 4 * MATRICES):
        scores = pairwise(distance, gt_boxes[part], priors)
        if valid is not None:
            scores.masked_fill_(~valid, -torch.inf)
        if ignore_above is not None:
            band |= (scores >= ignore_above).any(dim=0)
        rows = claim_rows(scores, squared_offsets(gt_boxes[part], priors), groups, k)
        box, prior = rows.nonzero(as_tuple=True)
        boxes.append(box + part.start)
        claimed.append(prior)
    empty = torch.empty(0, dtype=torch.int64, device=priors.device)
    return Claims(torch.cat([empty, *boxes]), torch.cat([empty, *claimed])), band
