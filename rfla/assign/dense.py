"""The dense path of the assigner: every box against every prior, a bounded number of boxes at a time.

It serves distances whose best priors need not lie near the box centre (IoU and its kin), windows
that would cover most of the grid anyway, plain boxes without a grid, and the rare box that a window
cannot decide.

Shapes: G boxes, P priors, k of one stage. The whole (G, P) matrix never exists.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rfla.assign.distance import Distance, pairwise

PLATEAU = 16
"""More priors than this tied at the k-th best score, in one level and shape, are a plateau."""
BUDGET = 48 * 2**20
"""Bytes that the matrices of one chunk may take together."""
MATRICES = 20
"""4-byte matrices of a chunk alive at once, at most."""


@dataclass(frozen=True, eq=False)
class Claims:
    """Candidates that matter: a list of M, or all C of N boxes as (C, N).

    Attributes:
        stage: 0 or 1, (M,) or one for all.
        box: Index of the box, (M,) or (N,).
        prior: Index of the prior in the image of the box.
        claimed: The box takes the prior.
        band: The prior reaches `ignore_above` for some box of the image.
    """

    stage: Tensor | int
    box: Tensor
    prior: Tensor
    claimed: Tensor
    band: Tensor

    def moved(self, stage: int, box: int) -> "Claims":
        """The same with stages and boxes counted from these."""
        return replace(self, stage=self.stage + stage, box=self.box + box) if stage or box else self

    def of(self, boxes: Tensor) -> "Claims":
        """The same with each `box` looked up in a list of boxes."""
        return replace(self, box=boxes[self.box])


def chunks(total: int, row_bytes: int, budget: int = BUDGET) -> Iterator[slice]:
    """Slices of `range(total)` that keep `row_bytes * length` within the budget, at least one row each."""
    size = max(1, budget // max(1, row_bytes))
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


def claim_rows(scores: Tensor, gt_boxes: Tensor, priors: Tensor, groups: Tensor, k: int) -> Tensor:
    """Which priors each box claims.

    All priors that reach the k-th best score, as in the authors' code; but where more than 16 of
    one group tie at that score, k in all: the better ones, then of the tied ones the nearest, then
    those of lowest index.

    Args:
        scores: (G, P); -inf where a prior is not valid.
        gt_boxes: (G, 4) the boxes.
        priors: (P, 4) the priors.
        groups: (P,) int64 number of the level and shape of a prior.
        k: Priors wanted for each box.

    Returns:
        (G, P) bool.
    """
    k = min(k, scores.shape[1])
    kth = scores.topk(k, dim=1).values[:, -1:]  # (G, 1)
    valid = scores > -torch.inf
    claimed = (scores >= kth) & valid
    tied = (scores == kth) & valid
    flat = (tied.sum(dim=1) > PLATEAU).nonzero().squeeze(1)  # boxes that may be on a plateau
    for box in flat.tolist():
        ties = tied[box].nonzero().squeeze(1)
        if torch.bincount(groups[ties]).max() <= PLATEAU:
            continue
        better = claimed[box] & ~tied[box]
        order = squared_offsets(gt_boxes[box, None], priors[ties])[0].sort(stable=True).indices
        better[ties[order[: k - int(better.sum())]]] = True
        claimed[box] = better
    return claimed


def squared_offsets(gt_boxes: Tensor, priors: Tensor) -> Tensor:
    """(G, P) squared distance between centres, px^2."""
    gt_centers, centers = (
        (gt_boxes[:, :2] + gt_boxes[:, 2:]) / 2,
        (priors[:, :2] + priors[:, 2:]) / 2,
    )
    x, y = (gt_centers[:, None, axis] - centers[None, :, axis] for axis in (0, 1))
    return x.square_().add_(y.square_())


def dense_claims(
    stage: int,
    distance: Distance,
    gt_boxes: Tensor,
    priors: Tensor,
    groups: Tensor,
    valid: Tensor | None,
    k: int,
    ignore_above: float | None,
) -> Iterator[Claims]:
    """One stage for the boxes of one image, chunk by chunk.

    Args:
        stage: Its number, for the claims.
        distance: How to score.
        gt_boxes: (G, 4) float32.
        priors: (P, 4) float32, fields at the size of this stage.
        groups: (P,) int64, see `claim_rows`.
        valid: (P,) bool or None for all.
        k: Priors for each box.
        ignore_above: Score from which a prior is too near a box to be background, or None.

    Yields:
        Claims, with `box` counted among these boxes.
    """
    for part in chunks(len(gt_boxes), len(priors) * 4 * MATRICES):
        scores = pairwise(distance, gt_boxes[part], priors)
        if valid is not None:
            scores.masked_fill_(~valid, -torch.inf)
        box, prior = claim_rows(scores, gt_boxes[part], priors, groups, k).nonzero(as_tuple=True)
        claimed = torch.ones_like(box, dtype=torch.bool)
        if ignore_above is not None:
            band = (scores >= ignore_above).any(dim=0).nonzero().squeeze(1)
            box = torch.cat((box, torch.zeros_like(band)))
            prior, claimed = (
                torch.cat((prior, band)),
                torch.cat((claimed, torch.zeros_like(band, dtype=torch.bool))),
            )
        yield Claims(stage, box + part.start, prior, claimed, ~claimed)
