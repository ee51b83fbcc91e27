"""What the heads that predict from anchors share: the anchor grid, the assignment of a batch, the best candidates.

Shapes: B images, L levels, P anchors over all levels, G boxes of one image, K candidates. Boxes are xyxy px.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from rfla.assign import PriorGrid
from rfla.models.detector import ImageSizes, Target, feature_sizes

GRIDS_KEPT = 8
PAD_MULTIPLE = 32  # the authors pad images to a multiple of this, and cells of that padding count as background


class AnchorAssigner(Protocol):
    """What an anchor head asks of its assigner."""

    def batch(
        self,
        grid: PriorGrid,
        gt_boxes: Sequence[Tensor],
        ignore_boxes: Sequence[Tensor | None] | None = None,
        image_sizes: Sequence[tuple[int, int]] | None = None,
        allowed_border: float | None = None,
    ) -> Tensor:
        """(B, P) int64: index of the box, -1 background, -2 ignored."""


class Anchors(nn.Module):
    """The anchors of a pyramid and their assignment to boxes.

    Args:
        assigner: matches anchors to boxes.
        strides: px between neighbouring cells, for each level.
        sides: side (px) of the square anchor of each level before `fraction`: receptive fields, or scaled strides.
        fraction: factor on the sides.
        ratios: shapes, height / width.
        scales: further factors on the sides.
        allowed_border: px that an anchor may reach outside its image to be assigned; None is any.
    """

    def __init__(
        self,
        assigner: AnchorAssigner,
        strides: Sequence[int],
        sides: Sequence[float],
        *,
        fraction: float = 0.5,
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        scales: Sequence[float] = (1.0,),
        allowed_border: float | None = None,
    ) -> None:
        super().__init__()
        self.assigner, self.allowed_border = assigner, allowed_border
        self.strides, self.sides, self.fraction = tuple(strides), tuple(sides), fraction
        self.ratios, self.scales = tuple(ratios), tuple(scales)
        self.per_cell = len(self.ratios) * len(self.scales)
        self._grids: OrderedDict[tuple[object, ...], PriorGrid] = OrderedDict()

    def grid(self, levels: Sequence[Tensor]) -> PriorGrid:
        """Return the anchors of these feature maps, on their device; the last few grids are kept."""
        key = (feature_sizes(list(levels)), levels[0].device)
        if key not in self._grids:
            grid = PriorGrid.anchors(key[0], self.strides, self.sides, self.fraction, self.ratios, self.scales)
            self._grids[key] = grid.to(levels[0].device)
            if len(self._grids) > GRIDS_KEPT:
                self._grids.popitem(last=False)
        return self._grids[key]

    @torch.no_grad()
    def assign(self, levels: Sequence[Tensor], targets: Sequence[Target], image_sizes: ImageSizes) -> Tensor:
        """Assign the anchors of all images in one call.

        Args:
            levels: Maps (B, _, H, W) of each level; only their sizes are used.
            targets: B truths.
            image_sizes: (height, width) of each image before padding.

        Returns:
            (B, P) int64: index of the box, -1 background, -2 ignored (also beyond the image and its border).
        """
        if self.allowed_border is None:
            image_sizes = [(_round_up(height), _round_up(width)) for height, width in image_sizes]
        boxes = [target["boxes"] for target in targets]
        ignore = [target.get("ignore") for target in targets]
        return self.assigner.batch(self.grid(levels), boxes, ignore, image_sizes, self.allowed_border)


def best_candidates(scores: Tensor, counts: Sequence[int], limit: int) -> list[Tensor]:
    """Pick the best anchors of each level.

    Args:
        scores: (B, P), level by level.
        counts: Anchors of each level, summing to P.
        limit: How many to keep of each level.

    Returns:
        For each level (B, K) int64 indices into P, best first; a level with at most `limit` anchors keeps its order.
    """
    picked = []
    first = 0
    for level in torch.split(scores, list(counts), dim=1):
        count = level.shape[1]
        if count > limit:
            # A stable sort and not topk: equal scores, common near 1, keep the same order on every machine.
            order = level.sort(dim=1, descending=True, stable=True).indices[:, :limit]
        else:
            order = torch.arange(count, device=level.device).expand(len(level), -1)
        picked.append(order + first)
        first += count
    return picked


def take(values: Tensor, index: Tensor) -> Tensor:
    """Rows `index` (B, K) of `values` (B, P, D): (B, K, D)."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))


def _round_up(side: int) -> int:
    return -(-side // PAD_MULTIPLE) * PAD_MULTIPLE
