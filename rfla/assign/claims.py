"""From scored windows to claims: which prior each box takes, listed (CPU) or as one fixed-shape scatter (GPU).

Shapes as in `windows.py`: N boxes of all images, C = w w L S candidates of a box, M listed candidates.
"""

import torch
from torch import Tensor

from rfla.assign.dense import PLATEAU, Claims
from rfla.assign.windows import NEAR_TIE, RIM, Windows

LARGEST = 2**63 - 1


def list_claims(windows: Windows, k: int, ignore_above: float | None) -> tuple[Claims, Tensor]:
    """List the candidates that a box claims or that reach `ignore_above`. Reads sizes from the device: for the CPU.

    Returns:
        The candidates, and the (U,) indices of boxes that this window cannot decide: a near tie at an open edge, or
        more than 16 tied at the k-th score in one level and shape. They claim nothing here.
    """
    num_boxes = windows.scores.shape[-1]
    kth = windows.kth(min(k, len(windows.candidates)))
    loose = (kth * (1 - NEAR_TIE)).clamp_(min=0)
    floor = loose if ignore_above is None else loose.clamp(max=ignore_above)
    row, column, rest = (windows.scores >= floor).flatten(2).nonzero(as_tuple=True)  # (M,) each
    value = windows.scores.flatten(2)[row, column, rest]
    index = windows.index.flatten(2)
    index = index[0, row, rest] + index[1, column, rest]
    prior, box = index & (RIM - 1), rest % num_boxes
    best = kth[box]
    claimed = value >= best
    band = torch.zeros_like(claimed) if ignore_above is None else value >= ignore_above

    doubtful = box[(index >= RIM) & (value >= loose[box])]
    if int(torch.bincount(box[value == best], minlength=1).max()) > PLATEAU:
        tied = torch.bincount(rest[value == best], minlength=windows.scores[0, 0].numel())
        doubtful = torch.cat((doubtful, (tied.view(-1, num_boxes) > PLATEAU).nonzero()[:, 1]))
    if len(doubtful):
        doubtful = torch.unique(doubtful)
        claimed &= ~torch.isin(box, doubtful)
    return Claims(box, prior, claimed, band), doubtful


def scatter_claims(windows: Windows, k: int, ignore_above: float | None) -> Claims:
    """All C x N candidates with flags, without reading a size from the device: for the GPU.

    A box with more than 16 tied, or with ties at an open edge of its window, keeps the k nearest here. That differs
    from `list_claims` only where 16 or fewer are tied and some of them lie beyond the window: for a box thinner than
    about a hundredth of a pixel, or so unlike every field that its scores round to the same value.
    """
    candidates = windows.candidates  # (C, N)
    k = min(k, len(candidates))
    kth = windows.kth(k)
    tied, better = (candidates == kth) & (candidates >= 0), candidates > kth
    index = (windows.index[0, :, None] + windows.index[1, None]).flatten(0, 3)  # (C, N)
    counts = tied.view(windows.scores.shape).sum(dim=(0, 1)).flatten(0, 1)  # (L S, N)
    unsure = (counts > PLATEAU).any(dim=0) | (tied & (index >= RIM)).any(dim=0)
    prior = index.bitwise_and_(RIM - 1)

    missing = (k - better.sum(dim=0, keepdim=True)).clamp_(min=1)
    claimed = tied & (~unsure | _is_among_nearest(windows, prior, tied, k, missing))
    claimed |= better
    band = torch.zeros_like(claimed) if ignore_above is None else candidates >= ignore_above
    return Claims(torch.arange(len(kth), device=prior.device), prior, claimed, band)


def _is_among_nearest(windows: Windows, prior: Tensor, tied: Tensor, k: int, wanted: Tensor) -> Tensor:
    """(C, N) bool: the `wanted` (1, N), at most k, of the `tied` candidates that are nearest, then of lowest index."""
    squared = windows.offset**2
    distance = (squared[1, None] + squared[0, :, None]).flatten(0, 3)  # never negative: its bits order as integers
    key = distance.view(torch.int32).to(torch.int64).bitwise_left_shift_(32).add_(prior).masked_fill_(~tied, LARGEST)
    nearest = key.topk(k, dim=0, largest=False).values  # (k, N) ascending
    return key <= nearest.gather(0, wanted - 1)
