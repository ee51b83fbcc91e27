"""ATSS: an IoU threshold for each box, from the statistics of its nearest priors.

Zhang et al., CVPR 2020. Shapes: B images, G boxes of one image, P priors, K candidates of a box
over all levels. Boxes are xyxy in px.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rfla.assign.arguments import BACKGROUND, OneImageAssigner, box_rows, valid_priors
from rfla.assign.chunks import chunks
from rfla.assign.dense import squared_offsets
from rfla.assign.ignore_regions import ignore_background
from rfla.assign.max_iou import pairwise_iou
from rfla.assign.prior_grid import PriorGrid

MIN_INSIDE = 0.01
"""px that a prior's centre must lie inside its box."""


@dataclass(eq=False)
class ATSSAssigner(OneImageAssigner):
    """Give a box those of its nearest priors that overlap it more than most of them do.

    The IoU must reach the mean plus the standard deviation over all of them, and the centre of the
    prior must lie in the box: a box that holds none gets none.

    Attributes:
        topk: Candidates of a box on each level, nearest centres first.
    """

    topk: int = 9

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
        gt_boxes = box_rows(gt_boxes)
        valid = valid_priors(grid, image_size, allowed_border)
        best = torch.full((len(grid),), -1, dtype=torch.int64, device=grid.device)
        last = len(gt_boxes) - 1
        for part in chunks(len(gt_boxes), len(grid) * 4 * 8):
            prior, overlap, positive = self._candidates(grid, gt_boxes[part], valid)  # each (g, K)
            index = torch.arange(part.start, part.stop, device=grid.device)[:, None]
            # One integer orders by IoU (the bits of a non-negative float grow with it), then by
            # the earlier box, so that one scatter settles all conflicts.
            key = (overlap.view(torch.int32).to(torch.int64) << 32) + (last - index)
            key = torch.where(positive, key, -1)
            best.scatter_reduce_(0, prior.reshape(-1), key.reshape(-1), "amax")

        matched = torch.where(best >= 0, last - (best & 0xFFFFFFFF), BACKGROUND)
        ignore_background(matched, grid, ignore_boxes, valid)
        return matched

    def _candidates(
        self, grid: PriorGrid, gt_boxes: Tensor, valid: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Candidates (G, K) of each box: index of the prior, IoU, and whether it is positive."""
        distance = squared_offsets(gt_boxes, grid.boxes)  # (G, P)
        iou = pairwise_iou(gt_boxes, grid.boxes)  # (G, P)
        if valid is not None:
            distance.masked_fill_(~valid, torch.inf)
        parts = []
        for start, count in zip(grid.level_starts, grid.level_counts, strict=False):
            of_level = distance[:, start : start + count]
            nearest = of_level.topk(min(self.topk, count), dim=1, largest=False).indices
            parts.append(nearest + start)
        prior = torch.cat(parts, dim=1)  # (G, K)
        overlap = iou.gather(1, prior)

        # Candidates that are not valid stay out of the statistics.
        usable = distance.gather(1, prior) < torch.inf  # (G, K)
        number = usable.sum(dim=1, keepdim=True)  # (G, 1)
        mean = (overlap * usable).sum(dim=1, keepdim=True) / number.clamp(min=1)
        squares = ((overlap - mean) ** 2 * usable).sum(dim=1, keepdim=True)
        variance = squares / (number - 1).clamp(min=1)

        center = grid.centers[prior]  # (G, K, 2)
        to_sides = torch.minimum(center - gt_boxes[:, None, :2], gt_boxes[:, None, 2:] - center)
        inside = to_sides.amin(dim=-1) > MIN_INSIDE
        return prior, overlap, (overlap >= mean + variance.sqrt()) & inside & usable
