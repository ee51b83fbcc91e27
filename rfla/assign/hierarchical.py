"""Hierarchical label assigner (HLA) of RFLA: each box takes its k nearest priors, twice, the second time of shrunken fields.

Shapes: B images, G boxes of one image, P priors. Boxes are xyxy in px of the network input.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from rfla.assign.dense import dense_claims
from rfla.assign.distance import Distance, get_distance
from rfla.assign.priors import PriorGrid
from rfla.assign.regions import BACKGROUND, IGNORED, covered_by
from rfla.errors import ConfigError, did_you_mean

CONFLICTS = ("last", "smallest")


class HierarchicalAssigner:
    """Assign priors to boxes by receptive field distance (RFLA, ECCV 2022, section 3.3).

    Args:
        distance: A name of `rfla.assign.DISTANCES`, or a `Distance`.
        topk: Priors for each box in the first and in the second stage.
        decay: Factor on the sides of the fields before the second stage.
        centers_inside: A positive whose centre is not strictly inside its box becomes background.
        ignore_above: A prior that no box takes, but that scores this much for some box in the second stage, is ignored;
            None: never.
        conflict: Who gets a prior that several boxes claim in one stage: `"last"`, the box of highest index, as in the
            authors' code, or `"smallest"`, the box of least area, as in the paper's text.
    """

    def __init__(
        self,
        distance: str | Distance = "kld",
        topk: Sequence[int] = (3, 1),
        decay: float = 0.9,
        centers_inside: bool = False,
        ignore_above: float | None = 0.8,
        conflict: str = "last",
    ) -> None:
        if conflict not in CONFLICTS:
            raise ConfigError(
                f"assigner.conflict: '{conflict}' is not one of {', '.join(CONFLICTS)}{did_you_mean(conflict, CONFLICTS)}"
            )
        if len(topk) != 2 or min(topk) < 1:
            raise ConfigError(f"assigner.topk: two whole numbers from 1, for the two stages, not {list(topk)}")
        self.distance = get_distance(distance)
        self.topk = (int(topk[0]), int(topk[1]))
        self.decay = float(decay)
        self.centers_inside = centers_inside
        self.ignore_above = ignore_above
        self.conflict = conflict

    @torch.no_grad()
    def __call__(
        self,
        grid: PriorGrid,
        gt_boxes: Tensor,
        ignore_boxes: Tensor | None = None,
        image_size: tuple[int, int] | None = None,
        allowed_border: float | None = None,
    ) -> Tensor:
        """Assign the priors of one image.

        Args:
            grid: The priors; moved to the device of `gt_boxes` by the caller.
            gt_boxes: (G, 4) xyxy px.
            ignore_boxes: (I, 4) xyxy px: background of which at least half lies in one of them is ignored.
            image_size: (height, width) of the image before padding; priors beyond it are ignored.
            allowed_border: Ignore priors that cross the image border by more than this, px.

        Returns:
            (P,) int64: index of the box, -1 background, -2 ignored.
        """
        gt_boxes = gt_boxes.to(torch.float32).reshape(-1, 4)
        shrunk = grid.scaled(self.decay)
        groups = grid.level_index * grid.num_shapes + torch.arange(len(grid), device=grid.device) % grid.num_shapes
        valid = None if image_size is None and allowed_border is None else grid.valid(image_size, allowed_border)
        matched = torch.full((len(grid),), BACKGROUND, dtype=torch.int64, device=grid.device)
        if len(gt_boxes):
            first, _ = dense_claims(self.distance, gt_boxes, grid.boxes, groups, valid, self.topk[0], None)
            second, band = dense_claims(
                self.distance, gt_boxes, shrunk.boxes, groups, valid, self.topk[1], self.ignore_above
            )
            rank = self._ranks(gt_boxes)
            order = rank.argsort()
            matched[band] = IGNORED
            for claims in (second, first):
                winner = torch.full_like(matched, -1)
                winner.scatter_reduce_(0, claims.prior, rank[claims.box], "amax")
                matched = torch.where(winner >= 0, order[winner.clamp(min=0)], matched)
            if self.centers_inside:
                box, centre = gt_boxes[matched.clamp(min=0)], grid.centers
                inside = ((centre > box[:, :2]) & (centre < box[:, 2:])).all(dim=1)
                matched = torch.where((matched >= 0) & ~inside, BACKGROUND, matched)
        if ignore_boxes is not None and len(ignore_boxes):
            matched = torch.where((matched == BACKGROUND) & covered_by(grid.boxes, ignore_boxes), IGNORED, matched)
        return matched if valid is None else torch.where(valid, matched, IGNORED)

    def _ranks(self, gt_boxes: Tensor) -> Tensor:
        """(G,) int64: the box of higher rank wins a conflict."""
        index = torch.arange(len(gt_boxes), device=gt_boxes.device)
        if self.conflict == "last":
            return index
        area = (gt_boxes[:, 2] - gt_boxes[:, 0]) * (gt_boxes[:, 3] - gt_boxes[:, 1])
        order = area.sort(descending=True, stable=True).indices
        return torch.empty_like(index).scatter_(0, order, index)

    def batch(
        self,
        grid: PriorGrid,
        gt_boxes: Sequence[Tensor],
        ignore_boxes: Sequence[Tensor | None] | None = None,
        image_sizes: Sequence[tuple[int, int]] | None = None,
        allowed_border: float | None = None,
    ) -> Tensor:
        """Assign the priors of several images at once; arguments as for one image, one entry each.

        Returns:
            (B, P) int64.
        """
        ignore = ignore_boxes or [None] * len(gt_boxes)
        sizes = image_sizes or [None] * len(gt_boxes)
        rows = [self(grid, *one, allowed_border) for one in zip(gt_boxes, ignore, sizes, strict=True)]
        return torch.stack(rows)
