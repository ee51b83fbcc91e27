"""Points and anchors inside a graph of free size: computed from the sizes of the maps.

Shapes: L levels, (H, W) cells of a level, S priors of a cell, P priors over all levels.
Boxes are xyxy px.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from rfla.assign import PriorGrid
from rfla.models.priors import Priors


class TracedGrid:
    """What decoding needs of a `PriorGrid`, where sizes are tensors of a graph being traced.

    Args:
        cell: the first cell of each level.
        levels: maps (B, _, H, W) of each level.

    Attributes:
        boxes: (P, 4) float32.
        centers: (P, 2) float32 x, y.
        level_counts: priors of each level, tensors while a graph is traced.
    """

    def __init__(self, cell: PriorGrid, levels: Sequence[Tensor]) -> None:
        boxes, centers, self.level_counts = [], [], []
        for level, (features, stride) in enumerate(zip(levels, cell.strides, strict=True)):
            height, width = features.shape[-2:]
            y, x = (torch.arange(count, dtype=torch.float32) * stride for count in (height, width))
            rows = y[:, None].expand(height, width)
            columns = x[None].expand(height, width)
            shift = torch.stack((columns, rows), dim=-1).reshape(-1, 1, 2)  # (H * W, 1, 2)

            # (S, 4) boxes of the first cell, moved to every cell
            low, high = cell.level_edges(level)[1], cell.level_edges(level)[0]
            first = torch.stack((low[0, 0], high[0, 0], low[1, 0], high[1, 0]), dim=-1)
            boxes.append((first + shift.repeat(1, 1, 2)).reshape(-1, 4))
            points = shift + float(cell.shifts[level])
            centers.append(points.expand(-1, cell.num_shapes, 2).reshape(-1, 2))
            self.level_counts.append(height * width * cell.num_shapes)
        self.boxes, self.centers = torch.cat(boxes), torch.cat(centers)
        self.device = self.boxes.device


def trace_grids(net: nn.Module) -> None:
    """Let every point and anchor of a network be computed from its maps, and not looked up."""
    for module in net.modules():
        if isinstance(module, Priors):
            cell = module.make([(1, 1)] * len(module.strides))
            setattr(module, "grid", partial(TracedGrid, cell))  # noqa: B010  one instance's
