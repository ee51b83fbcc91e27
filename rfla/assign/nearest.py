"""The k best priors of each box, whether or not another box wants them too.

For rules that look at the predictions first (TOOD, DCFL): they choose among these candidates
themselves. The candidates are found in the same windows and by the same scores as the assigner's.

Shapes: B images, N boxes of all images, P priors, C candidates of a box. Boxes are xyxy in px of
the network input.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from rfla.assign.candidates import nearest_ties
from rfla.assign.chunks import chunks
from rfla.assign.dense import MATRICES, squared_offsets
from rfla.assign.distance import Distance, get_distance, pairwise
from rfla.assign.images import Images, pack, score_in_chunks
from rfla.assign.prior_grid import PriorGrid
from rfla.assign.windows import (
    INVALID_SCORE,
    OPEN_EDGE,
    TIE_TOLERANCE,
    Windows,
    window_radius,
    windows_are_cheaper,
)


@dataclass(frozen=True, eq=False)
class NearestPriors:
    """The k best priors of N boxes, best first.

    Attributes:
        prior: (N, k) int64 index of the prior in the image of the box; -1 where the image has fewer
            than k valid ones.
        score: (N, k) float32; -inf there.
    """

    prior: Tensor
    score: Tensor


@torch.no_grad()
def nearest_priors(
    grid: PriorGrid,
    gt_boxes: Sequence[Tensor],
    k: int,
    distance: str | Distance = "kld",
    image_sizes: Sequence[tuple[int, int]] | None = None,
    allowed_border: float | None = None,
) -> NearestPriors:
    """Find the k priors of highest score of each box.

    Of equal scores the nearest centre comes first, then the lowest index; so exactly k are found,
    where the assigner takes all that tie with the k-th. On a GPU nothing is waited for, and the
    result may differ from the CPU's for a box thinner than about a hundredth of a pixel.

    Args:
        grid: Of all images, on the device of the boxes.
        gt_boxes: (G, 4) for each image.
        k: How many priors.
        distance: A name of `rfla.assign.DISTANCES`, or a `Distance`.
        image_sizes: (height, width) of each image before padding; priors beyond it are left out.
        allowed_border: Px by which a prior may cross the border of its image; None: any number.

    Returns:
        Those of all boxes, image by image.

    Raises:
        ValueError: k is less than 1, or an allowed border comes without the sizes of the images.
        ConfigError: No distance has this name.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    images, distance = pack(grid, gt_boxes, image_sizes, allowed_border), get_distance(distance)
    radius = window_radius(grid, distance, k, None)
    total, device = len(images.boxes), images.boxes.device
    if not windows_are_cheaper(grid, radius):
        return _from_rows(images, grid, distance, k, torch.arange(total, device=device))

    parts, undecided = [], []
    valid = images.valid_cells(grid)
    for part, windows in score_in_chunks(images, [grid], distance, int(radius), valid):
        parts.append(_from_windows(windows, k))
        if device.type == "cpu":
            undecided.append(_undecided(windows, k) + part.start)
    found = _join(parts, k, device)
    for boxes in undecided:
        if len(boxes):
            by_rows = _from_rows(images, grid, distance, k, boxes)
            found.prior[boxes], found.score[boxes] = by_rows.prior, by_rows.score
    return found


def _from_windows(windows: Windows, k: int) -> NearestPriors:
    """The k best cells of each window."""
    scores = windows.scores[0].flatten(0, 3)  # (C, N)
    kth_best = windows.kth_best(0, min(k, len(scores)))  # (N,)
    scores, kth_best = (
        each.masked_fill(each == INVALID_SCORE, -torch.inf) for each in (scores, kth_best)
    )
    prior = _cells(windows).bitwise_and_(OPEN_EDGE - 1)
    return _best(scores, kth_best, windows.squared_distance(0), prior, k)


def _undecided(windows: Windows, k: int) -> Tensor:
    """(U,) boxes whose k-th best a cell at an open edge of the window reaches, to rounding."""
    scores = windows.scores[0].flatten(0, 3)  # (C, N)
    kth_best = windows.kth_best(0, min(k, len(scores)))
    limit = (kth_best * (1 - TIE_TOLERANCE)).clamp(min=0)
    at_open_edge = (_cells(windows) >= OPEN_EDGE) & (scores >= limit)
    return at_open_edge.any(dim=0).nonzero().squeeze(1)


def _cells(windows: Windows) -> Tensor:
    """(C, N) index of each prior, plus `OPEN_EDGE` at an open edge."""
    return (windows.index[0, :, None] + windows.index[1, None]).flatten(0, 3)


def _from_rows(
    images: Images, grid: PriorGrid, distance: Distance, k: int, chosen: Tensor
) -> NearestPriors:
    """The k best of the `chosen` (U,) boxes, by their scores against all priors."""
    parts = []
    index = torch.arange(len(grid), device=images.boxes.device)[:, None]
    for part in chunks(len(chosen), len(grid) * 4 * MATRICES):
        rows = chosen[part]
        boxes = images.boxes[rows]
        scores = pairwise(distance, boxes, grid.boxes)  # (u, P)
        for image in range(len(images.counts)):
            valid = images.valid(image)
            if valid is not None:
                own = (images.image[rows] == image)[:, None]
                scores.masked_fill_(own & ~valid, -torch.inf)
        kth_best = scores.topk(min(k, len(grid)), dim=1).values[:, -1]
        offsets = squared_offsets(boxes, grid.boxes)
        priors = index.expand(-1, len(rows))
        parts.append(_best(scores.t(), kth_best, offsets.t(), priors, k))
    return _join(parts, k, images.boxes.device)


def _best(
    scores: Tensor, kth_best: Tensor, distance: Tensor, prior: Tensor, k: int
) -> NearestPriors:
    """Order candidates by score, then by nearness, then by index, and keep the first k.

    Args:
        scores: (C, N), -inf where a candidate is not valid.
        kth_best: (N,) k-th best of them, or the last.
        distance: (C, N) squared distance of the centres, px^2.
        prior: (C, N) index of the prior.
        k: How many; fewer candidates are filled up.
    """
    taken = min(k, len(scores))
    tied, better = scores == kth_best, scores > kth_best
    missing = taken - better.sum(dim=0, keepdim=True)  # (1, N)
    chosen = better | (tied & nearest_ties(distance, prior, tied, taken, missing))
    # No more than these have a score now, so that it does not matter which of equal ones are taken.
    score, place = scores.masked_fill(~chosen, -torch.inf).topk(taken, dim=0)  # (k, N)
    prior, distance = prior.gather(0, place), distance.gather(0, place)

    # Stable sorts by the least criterion first.
    order = prior.argsort(dim=0)
    order = order.gather(0, distance.gather(0, order).argsort(dim=0, stable=True))
    falling = score.gather(0, order).argsort(dim=0, descending=True, stable=True)
    order = order.gather(0, falling)
    score, prior = score.gather(0, order).t(), prior.gather(0, order).t()  # (N, k)
    prior = torch.where(score == -torch.inf, -1, prior)
    room = (0, k - taken)
    return NearestPriors(pad(prior, room, value=-1), pad(score, room, value=-torch.inf))


def _join(parts: Sequence[NearestPriors], k: int, device: torch.device) -> NearestPriors:
    """The boxes of all parts; none without a part."""
    prior = torch.zeros((0, k), dtype=torch.int64, device=device)
    score = torch.zeros((0, k), device=device)
    return NearestPriors(
        torch.cat([prior, *(part.prior for part in parts)]),
        torch.cat([score, *(part.score for part in parts)]),
    )
