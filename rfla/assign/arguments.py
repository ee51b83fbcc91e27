"""What all assigners share: the values they return, how they read boxes and sizes.

Shapes: B images, G boxes of one image, P priors. Boxes are xyxy in px of the network input.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rfla.assign.prior_grid import PriorGrid

BACKGROUND = -1
IGNORED = -2


def box_rows(boxes: Tensor, what: str = "gt_boxes") -> Tensor:
    """(G, 4) float32 of boxes; otherwise as `checked_rows`."""
    return checked_rows(boxes, what).to(torch.float32)


def checked_rows(boxes: Tensor, what: str, *, with_scores: bool = False) -> Tensor:
    """(G, 4) of boxes, in their type; any empty tensor has none.

    Args:
        boxes: (G, 4) xyxy.
        what: Names the argument.
        with_scores: Take (G, 5) too, and pass over the last column.

    Raises:
        ValueError: No tensor, or rows of another length.
    """
    if not isinstance(boxes, Tensor):
        raise ValueError(f"{what}: a tensor expected, not {type(boxes).__name__}")
    if not boxes.numel():
        return boxes.new_zeros((0, 4))
    if boxes.dim() != 2 or boxes.shape[1] not in ((4, 5) if with_scores else (4,)):
        raise ValueError(f"{what}: (G, 4) x1, y1, x2, y2 expected, not {tuple(boxes.shape)}")
    return boxes[:, :4] if with_scores else boxes


def prior_boxes(priors: PriorGrid | Tensor) -> Tensor:
    """(P, 4) float32 xyxy of a grid or of plain boxes."""
    if isinstance(priors, PriorGrid):
        return priors.boxes
    return box_rows(priors, "priors")


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


class OneImageAssigner:
    """A rule that assigns one image when it is called; `batch` calls it for each of several."""

    __call__: Callable[..., Tensor]

    def batch(
        self,
        priors: PriorGrid | Sequence[Tensor],
        gt_boxes: Sequence[Tensor],
        ignore_boxes: Sequence[Tensor | None] | None = None,
        image_sizes: Sequence[tuple[int, int]] | None = None,
        allowed_border: float | None = None,
    ) -> Tensor:
        """Assign the priors of several images, (B, P) int64; arguments with an entry for each.

        Plain boxes, where the rule takes them, come as one (P, 4) tensor for each image.
        """
        count = len(gt_boxes)
        priors_of: Sequence[PriorGrid | Tensor]
        priors_of = [priors] * count if isinstance(priors, PriorGrid) else priors
        ignore = [None] * count if ignore_boxes is None else ignore_boxes
        sizes = [None] * count if image_sizes is None else image_sizes
        rows = []
        for own, boxes, regions, size in zip(priors_of, gt_boxes, ignore, sizes, strict=True):
            rows.append(self(own, boxes, regions, size, allowed_border))
        return torch.stack(rows)


def require_entries(what: str, given: Sequence[object] | None, count: int) -> None:
    """Refuse an argument that does not have one entry for each image.

    Raises:
        ValueError: With its name and both numbers.
    """
    if given is not None and len(given) != count:
        raise ValueError(f"{what}: one for each of {count} images expected, not {len(given)}")


def pairwise_intersection(boxes: Tensor, priors: Tensor) -> Tensor:
    """(G, P) area that each box (G, 4) shares with each prior (P, 4), px^2."""
    low = torch.maximum(boxes[:, None, :2], priors[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], priors[None, :, 2:])
    sides = (high - low).clamp_(min=0)  # (G, P, 2)
    return sides[..., 0] * sides[..., 1]
