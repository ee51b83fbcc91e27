"""What all assigners share: the values they return, ignore regions, validity, images one by one.

Shapes: B images, G boxes of one image, P priors, I ignore boxes. Boxes are xyxy in px of the
network input.
"""

from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor

from rfla.assign.chunks import chunks
from rfla.assign.priors import PriorGrid

BACKGROUND = -1
IGNORED = -2
IGNORE_OVERLAP = 0.5
"""Share of a prior inside one ignore box from which a background prior is ignored."""
MIN_AREA = 1e-6
"""px^2; a smaller prior counts as this large."""


def intersection_over_prior(priors: Tensor, boxes: Tensor) -> Tensor:
    """(I, P) share of each prior that lies in each box."""
    low = torch.maximum(boxes[:, None, :2], priors[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], priors[None, :, 2:])
    sides = (high - low).clamp_(min=0)
    area = (priors[:, 2] - priors[:, 0]) * (priors[:, 3] - priors[:, 1])
    return sides[..., 0] * sides[..., 1] / area.clamp(min=MIN_AREA)


def covered_by(
    priors: PriorGrid | Tensor, ignore_boxes: Tensor, threshold: float = IGNORE_OVERLAP
) -> Tensor:
    """(P,) bool: at least `threshold` of the prior lies in one ignore box."""
    return greatest_share(priors, ignore_boxes) >= threshold


def greatest_share(priors: PriorGrid | Tensor, ignore_boxes: Tensor) -> Tensor:
    """(P,) the largest share of each prior that lies in one ignore box; 0 without any."""
    boxes = ignore_boxes.to(torch.float32).reshape(-1, 4)
    greatest = []
    for part in chunks(len(boxes), len(priors) * 4 * 8):
        if isinstance(priors, PriorGrid):
            shares = _grid_shares(priors, boxes[part])  # (i, P)
        else:
            shares = intersection_over_prior(priors, boxes[part])
        greatest.append(shares.amax(dim=0))
    return reduce(torch.maximum, greatest) if greatest else boxes.new_zeros(len(priors))


def _grid_shares(grid: PriorGrid, boxes: Tensor) -> Tensor:
    """(I, P) as `intersection_over_prior`, from overlaps along rows and columns."""
    parts = []
    for level in range(len(grid.strides)):
        overlaps, sides = [], []
        for axis, edges in zip((1, 0), grid.level_edges(level), strict=True):  # y of rows, x
            low = torch.maximum(boxes[:, axis, None, None], edges[0])  # (I, cells, S)
            high = torch.minimum(boxes[:, axis + 2, None, None], edges[1])
            overlaps.append((high - low).clamp_(min=0))
            sides.append(edges[1] - edges[0])  # (cells, S)
        (height, width), (along_y, along_x) = sides, overlaps
        area = (width[None] * height[:, None]).clamp_(min=MIN_AREA)  # (H, W, S)
        intersection = along_x[:, None] * along_y[:, :, None]  # (I, H, W, S)
        parts.append(intersection.div_(area).flatten(1))
    return torch.cat(parts, dim=1)


def box_rows(boxes: Tensor) -> Tensor:
    """(G, 4) float32 of the true boxes of an image; any empty tensor has none.

    Raises:
        ValueError: Rows of another length, such as boxes with a score.
    """
    if boxes.numel() and (boxes.dim() != 2 or boxes.shape[1] != 4):
        raise ValueError(f"gt_boxes: (G, 4) x1, y1, x2, y2 expected, not {tuple(boxes.shape)}")
    return boxes.to(torch.float32).reshape(-1, 4)


def prior_boxes(priors: PriorGrid | Tensor) -> Tensor:
    """(P, 4) float32 xyxy of a grid or of plain boxes."""
    if isinstance(priors, PriorGrid):
        return priors.boxes
    return priors.to(torch.float32).reshape(-1, 4)


def valid_priors(
    priors: PriorGrid | Tensor, image_size: tuple[int, int] | None, allowed_border: float | None
) -> Tensor | None:
    """(P,) bool, or None where all are valid.

    Plain boxes have no cells, so only the border counts for them.

    Raises:
        ValueError: An allowed border without the size of the image.
    """
    if image_size is None and allowed_border is None:
        return None
    if isinstance(priors, PriorGrid):
        return priors.valid(image_size, allowed_border)
    if image_size is None:
        raise ValueError("allowed_border needs image_size")
    if allowed_border is None:
        return None
    height, width = image_size
    limit = priors.new_tensor((width + allowed_border, height + allowed_border))
    return ((priors[:, :2] >= -allowed_border) & (priors[:, 2:] < limit)).all(dim=1)


def one_by_one(
    assign: Callable[..., Tensor],
    priors: PriorGrid | Sequence[Tensor],
    gt_boxes: Sequence[Tensor],
    ignore_boxes: Sequence[Tensor | None] | None,
    image_sizes: Sequence[tuple[int, int]] | None,
    allowed_border: float | None,
) -> Tensor:
    """Run a one-image rule over a batch: (B, P).

    Plain boxes come as one (P, 4) tensor for each image.
    """
    count = len(gt_boxes)
    priors_of: Sequence[PriorGrid | Tensor]
    priors_of = [priors] * count if isinstance(priors, PriorGrid) else priors
    ignore = [None] * count if ignore_boxes is None else ignore_boxes
    sizes = [None] * count if image_sizes is None else image_sizes
    rows = []
    for own, boxes, regions, size in zip(priors_of, gt_boxes, ignore, sizes, strict=True):
        rows.append(assign(own, boxes, regions, size, allowed_border))
    return torch.stack(rows)
