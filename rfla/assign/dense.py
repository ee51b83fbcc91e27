"""The dense path of the assigner: every box against every prior, some boxes at a time.

It serves distances whose best priors need not lie near the box centre (IoU and its kin), windows
that would cover most of the grid anyway, plain boxes without a grid, and the rare box that a window
cannot decide.

Shapes: G boxes, P priors, k of one stage. The whole (G, P) matrix never exists.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from rfla.assign.candidates import MAX_TIES, Candidates, Stage
from rfla.assign.chunks import chunks
from rfla.assign.distance import Distance, pairwise

MATRICES = 20
"""(G, P) float32 matrices of a chunk that are alive at once, at most."""


def topk_of_rows(
    scores: Tensor, gt_boxes: Tensor, priors: Tensor, groups: Tensor, k: int
) -> Tensor:
    """Find the priors of each box by its row of scores.

    A box takes all priors that reach its k-th best score, as in the authors' code. But where more
    than 16 of one group tie at that score, it takes k in all: the better ones, then of the tied
    ones the nearest, then those of lowest index.

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
    # All that score as the k-th best are taken at first: which of equal ones comes first must
    # not depend on the device.
    kth_best = scores.topk(k, dim=1).values[:, -1:]  # (G, 1)
    valid = scores > -torch.inf
    taken = (scores >= kth_best) & valid
    tied = (scores == kth_best) & valid

    # Few boxes tie more often than the cap, so these are gone through one by one.
    maybe_on_plateau = (tied.sum(dim=1) > MAX_TIES).nonzero().squeeze(1)
    for box in maybe_on_plateau.tolist():
        ties = tied[box].nonzero().squeeze(1)
        if torch.bincount(groups[ties]).max() <= MAX_TIES:
            continue
        better = taken[box] & ~tied[box]
        distance = squared_offsets(gt_boxes[box, None], priors[ties])[0]
        nearest_first = ties[distance.sort(stable=True).indices]
        missing = k - int(better.sum())
        better[nearest_first[:missing]] = True
        taken[box] = better
    return taken


def squared_offsets(gt_boxes: Tensor, priors: Tensor) -> Tensor:
    """(G, P) squared distance between centres, px^2."""
    gt_centers = (gt_boxes[:, :2] + gt_boxes[:, 2:]) / 2
    centers = (priors[:, :2] + priors[:, 2:]) / 2
    x, y = (gt_centers[:, None, axis] - centers[None, :, axis] for axis in (0, 1))
    return x.square_().add_(y.square_())


def dense_candidates(
    stage: Stage,
    distance: Distance,
    gt_boxes: Tensor,
    priors: Tensor,
    groups: Tensor,
    valid: Tensor | None,
) -> Iterator[Candidates]:
    """One stage for the boxes of one image, a chunk of boxes at a time.

    Args:
        stage: How many priors each box takes, and which of the others are no background.
        distance: How to score.
        gt_boxes: (G, 4) float32.
        priors: (P, 4) float32, fields of the size of this stage.
        groups: (P,) int64, see `topk_of_rows`.
        valid: (P,) bool or None for all.

    Yields:
        Candidates, with `box` counted among these boxes.
    """
    for part in chunks(len(gt_boxes), len(priors) * 4 * MATRICES):
        scores = pairwise(distance, gt_boxes[part], priors)  # (g, P)
        if valid is not None:
            scores.masked_fill_(~valid, -torch.inf)
        taken = topk_of_rows(scores, gt_boxes[part], priors, groups, stage.topk)
        box, prior = taken.nonzero(as_tuple=True)  # (M,) each
        is_positive = torch.ones_like(box, dtype=torch.bool)

        if stage.ignore_above is not None:
            # Whichever box a prior is near: only its index matters, so box 0 stands for all.
            near = (scores >= stage.ignore_above).any(dim=0).nonzero().squeeze(1)
            box = torch.cat((box, torch.zeros_like(near)))
            prior = torch.cat((prior, near))
            is_positive = torch.cat((is_positive, torch.zeros_like(near, dtype=torch.bool)))
        yield Candidates(stage.index, box + part.start, prior, is_positive, ~is_positive)
