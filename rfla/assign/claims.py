"""From scored windows to claims: which prior each box takes, listed (CPU) or as one fixed-shape scatter (GPU).

Shapes as in `windows.py`: N boxes of all images, C = w w L S candidates of a box, M listed candidates.
"""

import torch
from torch import Tensor

from rfla.assign.dense import PLATEAU, Claims
from rfla.assign.windows import NEAR_TIE, Windows

LARGEST = 2**63 - 1


def list_claims(windows: Windows, k: int, ignore_above: float | None) -> tuple[Claims, Tensor]:
    """List the candidates that a box claims or that reach `ignore_above`. Reads sizes from the device: for the CPU.

    Returns:
        The candidates, and the (U,) indices of boxes that this window cannot decide: a near tie at an open edge, or
        more than 16 tied at the k-th score in one level and shape. They claim nothing here.
    """
    num_boxes = len(windows.gt_boxes)
    candidates = windows.scores.flatten(0, 3)  # (C, N)
    kth = windows.kth(min(k, len(candidates)))
    loose = (kth - NEAR_TIE * kth.abs()).clamp_(min=0)
    floor = loose if ignore_above is None else loose.clamp(max=ignore_above)
    at = (candidates >= floor).view(-1).nonzero().squeeze(1)  # (M,)
    cell, box = at.div(num_boxes, rounding_mode="floor"), at % num_boxes
    value = candidates.view(-1)[at]
    shapes = windows.scores.shape[2] * windows.scores.shape[3]
    group, position = cell % shapes, cell.div(shapes, rounding_mode="floor")
    side = windows.scores.shape[0]
    row, column = position.div(side, rounding_mode="floor"), position % side
    prior = _take(windows.rows.index, row, group, box) + _take(windows.columns.index, column, group, box)

    edge = torch.zeros_like(box, dtype=torch.bool)
    for span, place in ((windows.rows, row), (windows.columns, column)):
        before, behind = (flag.flatten(0, 1)[group, box] for flag in span.open_ends)
        edge |= ((place == 0) & before) | ((place == side - 1) & behind)
    unsure = torch.zeros(num_boxes, dtype=torch.bool, device=box.device)
    unsure[box[edge & (value >= loose[box])]] = True
    tied = (group * num_boxes + box)[value == kth[box]]
    unsure |= (torch.bincount(tied, minlength=shapes * num_boxes).view(shapes, num_boxes) > PLATEAU).any(dim=0)

    claimed = (value >= kth[box]) & ~unsure[box]
    band = torch.zeros_like(claimed) if ignore_above is None else value >= ignore_above
    return Claims(box, prior, claimed, band), unsure.nonzero().squeeze(1)


def _take(index: Tensor, place: Tensor, group: Tensor, box: Tensor) -> Tensor:
    """Pick from a (w, L, S, N) tensor."""
    return index.flatten(1, 2)[place, group, box]


def scatter_claims(windows: Windows, k: int, ignore_above: float | None) -> Claims:
    """All C x N candidates with flags, without reading a size from the device: for the GPU.

    A box with more than 16 tied, or with ties at an open edge of its window, keeps the k nearest here. That differs
    from `list_claims` only where 16 or fewer are tied and some of them lie beyond the window: for a box thinner than
    about a hundredth of a pixel, or so unlike every field that its scores round to the same value.
    """
    num_boxes = len(windows.gt_boxes)
    candidates = windows.scores.flatten(0, 3)  # (C, N)
    k = min(k, len(candidates))
    kth = windows.kth(k)
    tied = (candidates == kth) & (candidates >= 0)
    better = candidates > kth
    prior = (windows.rows.index.unsqueeze(1) + windows.columns.index.unsqueeze(0)).expand_as(windows.scores)
    prior = prior.flatten(0, 3)
    unsure = _unsure(windows, kth, tied)

    x, y = windows.axes()
    offset = (x.offset**2 + y.offset**2).flatten(0, 3)  # (C, N), never negative: its bits order as integers
    key = (offset.view(torch.int32).to(torch.int64) << 32) + prior
    key = key.masked_fill_(~tied, LARGEST)
    nearest = key.topk(k, dim=0, largest=False).values  # (k, N) ascending
    last = (k - 1 - better.sum(dim=0, keepdim=True)).clamp_(min=0)
    kept = tied & (key <= nearest.gather(0, last))
    claimed = better | torch.where(unsure, kept, tied)
    band = torch.zeros_like(claimed) if ignore_above is None else candidates >= ignore_above
    box = torch.arange(num_boxes, device=prior.device).expand_as(prior)
    return Claims(box.reshape(-1), prior.reshape(-1), claimed.view(-1), band.view(-1))


def _unsure(windows: Windows, kth: Tensor, tied: Tensor) -> Tensor:
    """(N,) bool: boxes with a tie at an open edge or a plateau."""
    scores = windows.scores  # (w, w, L, S, N)
    counts = tied.view(scores.shape).sum(dim=(0, 1))  # (L, S, N)
    unsure = (counts > PLATEAU).flatten(0, 1).any(dim=0)
    rows, columns = windows.rows.open_ends, windows.columns.open_ends
    edges = ((scores[0], rows[0]), (scores[-1], rows[1]), (scores[:, 0], columns[0]), (scores[:, -1], columns[1]))
    for edge, is_open in edges:
        unsure = unsure | ((edge == kth) & is_open).flatten(0, 2).any(dim=0)
    return unsure
