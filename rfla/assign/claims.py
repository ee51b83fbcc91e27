"""From scored windows to claims: which prior each box takes, listed (CPU) or as one fixed-shape scatter (GPU).

Shapes as in `windows.py`: N boxes of all images, T stages, C = w w L S candidates of a box, M
listed candidates.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from rfla.assign.dense import PLATEAU, Claims
from rfla.assign.windows import NEAR_TIE, RIM, Windows

LARGEST = 2**63 - 1


def list_claims(
    windows: Windows, topk: Sequence[int], above: Sequence[float | None]
) -> tuple[Claims, list[Tensor]]:
    """List the candidates that a box claims or that reach `above`.

    Reads sizes from the device: for the CPU.

    Args:
        windows: Of T stages.
        topk: Priors for each box in each stage.
        above: Score from which a prior is too near a box to be background, or None, in each stage.

    Returns:
        The candidates, and for each stage the (U,) indices of boxes that this window cannot decide:
        a near tie at an open edge, or more than 16 tied at the k-th score in one level and shape.
        They claim nothing here. The list is empty where all are decided, the common case.
    """
    stages, width, num_boxes = len(topk), windows.scores.shape[1], windows.scores.shape[-1]
    best = torch.stack([windows.kth(stage, k) for stage, k in enumerate(topk)])  # (T, N)
    loose = (best * (1 - NEAR_TIE)).clamp_(min=0)
    limit = torch.tensor([[math.inf if score is None else score] for score in above])  # (T, 1)
    floor = torch.minimum(loose, limit)
    # First the columns with such a candidate, a short list; then the candidates.
    columns = windows.best_of_column.view(stages, width, -1, num_boxes)
    stage, column, plane, box = (columns >= floor[:, None, None]).nonzero(as_tuple=True)
    rows = torch.arange(width).view(-1, 1)
    values = windows.scores.view(stages, width, *columns.shape[1:])[
        stage, rows, column, plane, box
    ]  # (w, columns)
    row, hit = (values >= floor.take(stage * num_boxes + box)).nonzero(as_tuple=True)  # (M,) each
    value = values[row, hit]
    stage, column, plane, box = (one.take(hit) for one in (stage, column, plane, box))
    slot = stage * num_boxes + box
    index = windows.index.view(2, *columns.shape[1:])
    index = index[0, row, plane, box] + index[1, column, plane, box]
    kth = best.take(slot)
    claimed, band = value >= kth, value >= limit.take(stage)

    doubtful = slot[(index >= RIM) & (value >= loose.take(slot))]
    tied = value == kth
    if int(torch.bincount(slot[tied], minlength=1).max()) > PLATEAU:
        planes = (plane * best.numel() + slot)[tied]
        doubtful = torch.cat(
            (doubtful, (torch.bincount(planes) > PLATEAU).nonzero().squeeze(1) % best.numel())
        )
    if len(doubtful):
        doubtful = torch.unique(doubtful)
        claimed &= ~torch.isin(slot, doubtful)
    unsure = (
        [doubtful[doubtful // num_boxes == one] % num_boxes for one in range(stages)]
        if len(doubtful)
        else []
    )
    return Claims(stage, box, index & (RIM - 1), claimed, band), unsure


def scatter_claims(windows: Windows, stage: int, k: int, ignore_above: float | None) -> Claims:
    """All C x N candidates of one stage with flags, without reading a size from the device: for the GPU.

    A box with more than 16 tied, or with ties at an open edge of its window, keeps the k nearest
    here. That differs from `list_claims` only where 16 or fewer are tied and some of them lie
    beyond the window: for a box thinner than about a hundredth of a pixel, or so unlike every field
    that its scores round to the same value.
    """
    scores = windows.scores[stage]  # (w, w, L, S, N)
    candidates = scores.flatten(0, 3)  # (C, N)
    k = min(k, len(candidates))
    kth = windows.kth(stage, k)
    tied, better = (candidates == kth) & (candidates >= 0), candidates > kth
    index = (windows.index[0, :, None] + windows.index[1, None]).flatten(0, 3)  # (C, N)
    counts = tied.view(scores.shape).sum(dim=(0, 1)).flatten(0, 1)  # (L S, N)
    unsure = (counts > PLATEAU).any(dim=0) | (tied & (index >= RIM)).any(dim=0)
    prior = index.bitwise_and_(RIM - 1)

    missing = (k - better.sum(dim=0, keepdim=True)).clamp_(min=1)
    claimed = tied & (
        ~unsure | _is_among_nearest(windows.offset[:, stage], prior, tied, k, missing)
    )
    claimed |= better
    band = torch.zeros_like(claimed) if ignore_above is None else candidates >= ignore_above
    return Claims(stage, torch.arange(len(kth), device=prior.device), prior, claimed, band)


def _is_among_nearest(
    offset: Tensor, prior: Tensor, tied: Tensor, k: int, wanted: Tensor
) -> Tensor:
    """(C, N) bool: the `wanted` (1, N), at most k, of the `tied` candidates that are nearest, then of lowest index."""
    squared = offset**2
    distance = (squared[1, None] + squared[0, :, None]).flatten(
        0, 3
    )  # never negative: its bits order as integers
    key = (
        distance.view(torch.int32)
        .to(torch.int64)
        .bitwise_left_shift_(32)
        .add_(prior)
        .masked_fill_(~tied, LARGEST)
    )
    nearest = key.topk(k, dim=0, largest=False).values  # (k, N) ascending
    return key <= nearest.gather(0, wanted - 1)
