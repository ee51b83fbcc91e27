"""ATSS: an IoU threshold for each box from the statistics of its nearest priors (Zhang et al., CVPR 2020).

Shapes: B images, G boxes of one image, P priors, K candidates of a box over all levels. Boxes are
xyxy in px.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from rfla.assign.dense import chunks, squared_offsets
from rfla.assign.max_iou import overlaps
from rfla.assign.priors import PriorGrid
from rfla.assign.regions import BACKGROUND, IGNORED, covered_by, one_by_one

MIN_INSIDE = 0.01
"""px that a prior's centre must lie inside its box."""


class ATSSAssigner:
    """Give a box those of its nearest priors whose IoU reaches the mean plus the standard deviation of them all.

    Args:
        topk: Candidates of a box on each level, nearest centres first.
    """

    def __init__(self, topk: int = 9) -> None:
        self.topk = topk

    @torch.no_grad()
    def __call__(
        self,
        grid: PriorGrid,
        gt_boxes: Tensor,
        ignore_boxes: Tensor | None = None,
        image_size: tuple[int, int] | None = None,
        allowed_border: float | None = None,
    ) -> Tensor:
        """Assign the priors of one image; arguments as in `HierarchicalAssigner`.

        Returns:
            (P,) int64: index of the box, -1 background, -2 ignored. Of two boxes that claim a prior
            the one of higher IoU gets it, of equal ones the first.
        """
        gt_boxes = gt_boxes.to(torch.float32).reshape(-1, 4)
        valid = (
            None
            if image_size is None and allowed_border is None
            else grid.valid(image_size, allowed_border)
        )
        best = torch.full((len(grid),), -1, dtype=torch.int64, device=grid.device)
        last = len(gt_boxes) - 1
        for part in chunks(len(gt_boxes), len(grid) * 4 * 8):
            prior, overlap, positive = self._candidates(grid, gt_boxes[part], valid)  # each (g, K)
            index = torch.arange(part.start, part.stop, device=grid.device)[:, None]
            # one integer that orders by IoU (the bits of a non-negative float grow with it), then
            # by the earlier box
            key = (overlap.view(torch.int32).to(torch.int64) << 32) + (last - index)
            best.scatter_reduce_(
                0, prior.reshape(-1), torch.where(positive, key, -1).reshape(-1), "amax"
            )
        matched = torch.where(best >= 0, last - (best & 0xFFFFFFFF), BACKGROUND)
        if ignore_boxes is not None and len(ignore_boxes):
            matched = torch.where(
                (matched == BACKGROUND) & covered_by(grid, ignore_boxes), IGNORED, matched
            )
        return matched if valid is None else torch.where(valid, matched, IGNORED)

    def _candidates(
        self, grid: PriorGrid, gt_boxes: Tensor, valid: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Candidates (G, K) of each box: index of the prior, IoU, and whether it is positive."""
        distance = squared_offsets(gt_boxes, grid.boxes)
        iou = overlaps(gt_boxes, grid.boxes)
        if valid is not None:
            distance.masked_fill_(~valid, torch.inf)
        parts = []
        for start, count in zip(grid.level_starts, grid.level_counts, strict=False):
            nearest = (
                distance[:, start : start + count]
                .topk(min(self.topk, count), dim=1, largest=False)
                .indices
            )
            parts.append(nearest + start)
        prior = torch.cat(parts, dim=1)
        overlap, usable = iou.gather(1, prior), distance.gather(1, prior) < torch.inf
        number = usable.sum(dim=1, keepdim=True)
        mean = (overlap * usable).sum(dim=1, keepdim=True) / number.clamp(min=1)
        variance = ((overlap - mean) ** 2 * usable).sum(dim=1, keepdim=True) / (number - 1).clamp(
            min=1
        )
        centre = grid.centers[prior]  # (G, K, 2)
        inside = (
            torch.minimum(centre - gt_boxes[:, None, :2], gt_boxes[:, None, 2:] - centre).amin(
                dim=-1
            )
            > MIN_INSIDE
        )
        return prior, overlap, (overlap >= mean + variance.sqrt()) & inside & usable

    def batch(
        self,
        grid: PriorGrid,
        gt_boxes: Sequence[Tensor],
        ignore_boxes: Sequence[Tensor | None] | None = None,
        image_sizes: Sequence[tuple[int, int]] | None = None,
        allowed_border: float | None = None,
    ) -> Tensor:
        """Assign the priors of several images: (B, P) int64."""
        return one_by_one(self, grid, gt_boxes, ignore_boxes, image_sizes, allowed_border)
