"""From scored windows to the priors of each box: its top k, and those too near to be background.

There are two ways to the same result. On a CPU the few candidates that matter are picked out as a
list, whose length depends on the scores. On a GPU that length would have to be waited for, so all
candidates are kept, with a flag each.

Shapes as in `windows.py`: N boxes of all images, T stages, w window side, L levels, S shapes of
prior at a point, C = w w L S candidates of a box, M listed candidates.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rfla.assign.prior_grid import PriorGrid
from rfla.assign.windows import OPEN_EDGE, TIE_TOLERANCE, Windows

MAX_TIES = 16
"""More priors than this with the k-th best score, in one level and shape, are a plateau."""
LAST_KEY = 2**63 - 1


@dataclass(frozen=True)
class Stage:
    """One stage of the hierarchical assigner.

    Attributes:
        index: 0 or 1.
        topk: Priors for each box.
        scale: Factor on the sides of the fields; None: the fields as they are.
        ignore_above: A prior that scores this much for some box is no background; None: any may be.
    """

    index: int
    topk: int
    scale: float | None = None
    ignore_above: float | None = None

    def grid(self, grid: PriorGrid) -> PriorGrid:
        """The grid with the fields of this stage."""
        return grid if self.scale is None else grid.scaled(self.scale)


@dataclass(frozen=True, eq=False)
class Candidates:
    """Pairs of a box and a prior, of which some become positive and some ignored.

    A list of M pairs, or all C candidates of N boxes as (C, N).

    Attributes:
        stage: 0 or 1, (M,) int64 or one for all.
        box: (M,) or (N,) int64 index of the box.
        prior: (M,) or (C, N) int64 index of the prior in the image of the box.
        is_positive: bool like `prior`: the box takes the prior.
        is_ignored: bool like `prior`: the prior scores `ignore_above` or more for some box.
    """

    stage: Tensor | int
    box: Tensor
    prior: Tensor
    is_positive: Tensor
    is_ignored: Tensor

    def shifted(self, stage: int, box: int) -> "Candidates":
        """The same, with these numbers added to the stages and to the indices of boxes."""
        if stage == 0 and box == 0:
            return self
        return replace(self, stage=self.stage + stage, box=self.box + box)

    def of_boxes(self, boxes: Tensor) -> "Candidates":
        """The same, with each `box` taken as a position in a list of indices of boxes."""
        return replace(self, box=boxes[self.box])


def list_candidates(
    windows: Windows, topk: Sequence[int], ignore_above: Sequence[float | None]
) -> tuple[Candidates, list[Tensor]]:
    """List the positives of each box and the priors to ignore: for the CPU.

    Args:
        windows: Of T stages.
        topk: Priors for each box, in each of these stages.
        ignore_above: Score from which a prior is no background, or None, in each of these stages.

    Returns:
        The candidates, their stages counted from 0; and for each stage the (U,) indices of boxes
        that the windows cannot decide: a near tie at an open edge, or a plateau. These have no
        positives here. The list is empty where all are decided, the common case.
    """
    num_boxes = windows.scores.shape[-1]
    kth_best = torch.stack([windows.kth_best(stage, k) for stage, k in enumerate(topk)])  # (T, N)
    # Rounding could turn round scores this close, so an edge with such a score decides nothing.
    tie_limit = (kth_best * (1 - TIE_TOLERANCE)).clamp_(min=0)  # (T, N)
    ignore_limit = torch.tensor(
        [[math.inf if limit is None else limit] for limit in ignore_above],
        device=windows.scores.device,
    )  # (T, 1)

    # One list for both questions: candidates that may be positive, and those to be ignored.
    stage, box, score, index, plane = _at_least(
        windows, torch.minimum(tie_limit, ignore_limit)
    )  # (M,) each
    box_in_stage = stage * num_boxes + box  # position in a flat (T, N) tensor
    own_kth_best = kth_best.take(box_in_stage)
    is_positive = score >= own_kth_best
    is_ignored = score >= ignore_limit.take(stage)

    # A window decides nothing where a score as good as the k-th stands at an edge behind which
    # the grid goes on, or where more priors tie than the cap allows.
    at_open_edge = (index >= OPEN_EDGE) & (score >= tie_limit.take(box_in_stage))
    tied = score == own_kth_best
    plateaus = _plateaus(box_in_stage[tied], plane[tied], kth_best.numel())
    undecided = torch.cat((box_in_stage[at_open_edge], plateaus))
    undecided_per_stage = []
    if len(undecided):
        # The dense path answers for these boxes, so what their windows say must not count.
        undecided = torch.unique(undecided)
        is_positive &= ~torch.isin(box_in_stage, undecided)
        for number in range(len(topk)):
            of_stage = undecided[undecided // num_boxes == number]
            undecided_per_stage.append(of_stage % num_boxes)
    # The mark of an open edge is one high bit; without it the index remains.
    prior = index & (OPEN_EDGE - 1)
    return Candidates(stage, box, prior, is_positive, is_ignored), undecided_per_stage


def _at_least(windows: Windows, limit: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Find the candidates that score at least `limit` (T, N).

    Returns:
        (M,) each: stage, box, score, index as in `Windows`, and plane, the number of the level and
        shape.
    """
    stages, width, _, _, _, num_boxes = windows.scores.shape
    # First the columns that hold such a candidate, a short list; then the cells of these columns.
    best = windows.best_of_column.view(stages, width, -1, num_boxes)  # (T, w, L S, N)
    in_columns = (best >= limit[:, None, None]).nonzero(as_tuple=True)
    stage, column, plane, box = in_columns  # (K,) each

    rows = torch.arange(width, device=windows.scores.device).view(-1, 1)
    scores = windows.scores.view(stages, width, width, -1, num_boxes)
    scores = scores[stage, rows, column, plane, box]  # (w, K)
    row, hit = (scores >= limit.take(stage * num_boxes + box)).nonzero(as_tuple=True)  # (M,) each

    score = scores[row, hit]
    stage, column, plane, box = (part.take(hit) for part in in_columns)
    index = windows.index.view(2, width, -1, num_boxes)
    return stage, box, score, index[0, row, plane, box] + index[1, column, plane, box], plane


def _plateaus(box_in_stage: Tensor, plane: Tensor, count: int) -> Tensor:
    """Boxes of which more than 16 priors of one level and shape tie for the k-th place.

    Args:
        box_in_stage: (M,) the box of each tie, as a position in a flat (T, N) tensor.
        plane: (M,) number of its level and shape.
        count: T N.
    """
    ties_of_box = torch.bincount(box_in_stage, minlength=1)
    if int(ties_of_box.max()) <= MAX_TIES:
        return box_in_stage[:0]  # nearly always: no need to count within each plane
    ties_of_plane = torch.bincount(plane * count + box_in_stage)
    return (ties_of_plane > MAX_TIES).nonzero().squeeze(1) % count


def mask_candidates(
    windows: Windows, stage: int, topk: int, ignore_above: float | None
) -> Candidates:
    """Flag all candidates of one stage, without reading a size from the device: for the GPU.

    Where more than 16 priors tie for the k-th place, or ties stand at an open edge of the window, a
    box keeps the k nearest of its window. That differs from `list_candidates` only where 16 or
    fewer tie and some of them lie beyond the window: for a box thinner than about a hundredth of a
    pixel, or so unlike every field that all its scores round to the same value.

    Args:
        windows: Of one or more stages.
        stage: Which of them.
        topk: Priors for each box.
        ignore_above: Score from which a prior is no background, or None.
    """
    scores = windows.scores[stage]  # (w, w, L, S, N)
    candidates = scores.flatten(0, 3)  # (C, N)
    topk = min(topk, len(candidates))
    kth_best = windows.kth_best(stage, topk)  # (N,)
    # `candidates >= 0` leaves out cells that are not valid, whose score is -1.
    tied = (candidates == kth_best) & (candidates >= 0)  # (C, N)
    better = candidates > kth_best  # (C, N)

    index = (windows.index[0, :, None] + windows.index[1, None]).flatten(0, 3)  # (C, N)
    ties = tied.view(scores.shape).sum(dim=(0, 1)).flatten(0, 1)  # (L S, N)
    at_open_edge = (tied & (index >= OPEN_EDGE)).any(dim=0)  # (N,)
    undecided = (ties > MAX_TIES).any(dim=0) | at_open_edge
    prior = index.bitwise_and_(OPEN_EDGE - 1)

    # Where the ties are not all taken, only so many as the better ones leave room for.
    missing = (topk - better.sum(dim=0, keepdim=True)).clamp_(min=1)  # (1, N)
    nearest = nearest_ties(windows.squared_distance(stage), prior, tied, topk, missing)
    is_positive = tied & (~undecided | nearest)
    is_positive |= better
    if ignore_above is None:
        is_ignored = torch.zeros_like(is_positive)
    else:
        is_ignored = candidates >= ignore_above
    box = torch.arange(len(kth_best), device=prior.device)
    return Candidates(stage, box, prior, is_positive, is_ignored)


def nearest_ties(
    distance: Tensor, prior: Tensor, tied: Tensor, topk: int, wanted: Tensor
) -> Tensor:
    """(C, N) bool: of the tied candidates the nearest ones, of equally near ones the lowest index.

    Args:
        distance: (C, N) squared distance of the centres, px^2.
        prior: (C, N) index of the prior.
        tied: (C, N) bool.
        topk: At least as large as every number wanted.
        wanted: (1, N) how many for each box.
    """
    # The bits of floats that are not negative order like integers, so one integer compares the
    # distance first and then the index.
    key = distance.view(torch.int32).to(torch.int64).bitwise_left_shift_(32)
    key = key.add_(prior).masked_fill_(~tied, LAST_KEY)
    smallest = key.topk(topk, dim=0, largest=False).values  # (k, N) ascending
    return key <= smallest.gather(0, wanted - 1)
