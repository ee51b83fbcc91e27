"""FCOS points: a point belongs to the smallest box around it whose size suits its level.

Tian et al., FCOS, ICCV 2019, with the centre sampling of MMDetection 2.x.
Shapes: B images, L levels, G boxes of one image, P points. Boxes are xyxy in px of the network
input.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rfla.assign.arguments import BACKGROUND, OneImageAssigner, box_rows, valid_priors
from rfla.assign.chunks import chunks
from rfla.assign.ignore_regions import ignore_background
from rfla.assign.prior_grid import PriorGrid

LARGEST_AREA = 1e8
"""px^2; a box from this area on has no points, as in the original."""


@dataclass(eq=False)
class PointsAssigner(OneImageAssigner):
    """Give each point the smallest box that contains it; a box that holds no point gets none.

    Attributes:
        regress_ranges: For each level, bounds in px on the greatest distance of a point to the
            sides of its box.
        center_radius: Only points within so many strides of the box centre count, and within the
            box; 0: the whole box.
    """

    regress_ranges: Sequence[tuple[float, float]]
    center_radius: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        self.regress_ranges = tuple(self.regress_ranges)

    @torch.no_grad()
    def __call__(
        self,
        grid: PriorGrid,
        gt_boxes: Tensor,
        ignore_boxes: Tensor | None = None,
        image_size: tuple[int, int] | None = None,
        allowed_border: float | None = None,
    ) -> Tensor:
        """Assign the points of one image; arguments as in `HierarchicalAssigner`.

        Returns:
            (P,) int64: index of the box, -1 background, -2 ignored.

        Raises:
            ValueError: Not one regress range for each level.
        """
        if len(self.regress_ranges) != len(grid.strides):
            raise ValueError(
                f"{len(self.regress_ranges)} regress ranges for {len(grid.strides)} levels"
            )
        gt_boxes = box_rows(gt_boxes)
        points, level = grid.centers, grid.level_index
        # to the device without a wait: a training step has none
        ranges = torch.tensor(self.regress_ranges).to(points, non_blocking=True)[level]  # (P, 2)
        radii = torch.tensor([stride * self.center_radius for stride in grid.strides])
        radius = radii.to(points, non_blocking=True)[level]  # (P,)

        smallest = torch.full((len(grid),), LARGEST_AREA, device=points.device)
        matched = torch.full((len(grid),), BACKGROUND, dtype=torch.int64, device=points.device)
        area = (gt_boxes[:, 2] - gt_boxes[:, 0]) * (gt_boxes[:, 3] - gt_boxes[:, 1])
        for part in chunks(len(gt_boxes), len(grid) * 4 * 16):
            candidate = self._candidates(points, gt_boxes[part], ranges, radius)  # (g, P)
            areas = torch.where(candidate, area[part, None], LARGEST_AREA)
            least, owner = areas.min(dim=0)
            smaller = least < smallest  # of equal areas the first box keeps the point
            smallest = torch.where(smaller, least, smallest)
            matched = torch.where(smaller, owner + part.start, matched)
        ignore_background(
            matched, grid, ignore_boxes, valid_priors(grid, image_size, allowed_border)
        )
        return matched

    def _candidates(
        self, points: Tensor, gt_boxes: Tensor, ranges: Tensor, radius: Tensor
    ) -> Tensor:
        """(G, P) bool: the point is in the box (or its centre) and the box suits the level.

        Args:
            points: (P, 2).
            gt_boxes: (G, 4).
            ranges: (P, 2) bounds on the greatest distance of a point to the sides of its box.
            radius: (P,) px, half the side of the centre region.
        """
        top_left, bottom_right = gt_boxes[:, None, :2], gt_boxes[:, None, 2:]  # (G, 1, 2)
        low = points[None] - top_left  # (G, P, 2) distances to the left and the top
        high = bottom_right - points[None]  # (G, P, 2) to the right and the bottom
        greatest = torch.maximum(low, high).amax(dim=-1)  # (G, P)
        suits_level = (greatest >= ranges[:, 0]) & (greatest <= ranges[:, 1])
        if self.center_radius > 0:
            # The centre region ends where the box ends.
            center = ((gt_boxes[:, :2] + gt_boxes[:, 2:]) / 2)[:, None]  # (G, 1, 2)
            low = points - torch.maximum(center - radius[:, None], top_left)
            high = torch.minimum(center + radius[:, None], bottom_right) - points
        inside = torch.minimum(low, high).amin(dim=-1) > 0
        return inside & suits_level
