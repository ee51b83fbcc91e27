"""Box geometry of point-based detectors.

Shapes: B images, P points over all levels, G boxes of one image. Boxes are xyxy in px of the
network input.
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor


def distance_to_boxes(points: Tensor, distances: Tensor) -> Tensor:
    """Boxes from points and their distances to the four sides.

    Args:
        points: (..., 2) x, y.
        distances: (..., 4) left, top, right, bottom, in the unit of `points`.

    Returns:
        (..., 4) xyxy.
    """
    return torch.cat((points - distances[..., :2], points + distances[..., 2:]), dim=-1)


def boxes_to_distance(points: Tensor, boxes: Tensor) -> Tensor:
    """Distances (..., 4) from points (..., 2) to the sides of boxes (..., 4).

    They are in the order left, top, right, bottom; one is negative where the point lies
    outside that side.
    """
    return torch.cat((points - boxes[..., :2], boxes[..., 2:] - points), dim=-1)


def clip_boxes(boxes: Tensor, image_sizes: Tensor) -> Tensor:
    """Boxes (B, K, 4) moved into images of (height, width) px, (B, 2)."""
    limits = image_sizes.to(boxes).flip(-1).repeat(1, 2)  # width, height, width, height
    return torch.minimum(boxes.clamp(min=0), limits[:, None])


def reach_into(boxes: Tensor, height: Tensor | float, width: Tensor | float) -> Tensor:
    """Tell which boxes (..., 4) have something of an image of (height, width) px under them.

    What a network finds in the padding beside an image, a clip presses into boxes without area on
    its border. No NMS removes those: their IoU with any other box is 0.

    Returns:
        (...) bool.
    """
    x1, y1, x2, y2 = boxes.unbind(-1)
    return (x1 < width) & (y1 < height) & (x2 > 0) & (y2 > 0)


def starts_of(counts: Sequence[int]) -> list[int]:
    """Where the boxes of each image start among those of all images, from how many each has."""
    return list(accumulate(counts, initial=0))[: len(counts)]


def pad_boxes(
    boxes_per_image: list[Tensor], labels_per_image: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """Stack the boxes of a batch, so that one gather serves all images.

    Args:
        boxes_per_image: B tensors (G, 4).
        labels_per_image: B tensors (G,) int64.

    Returns:
        (B, max(G, 1), 4) float32 and (B, max(G, 1)) int64; padding is zero.
    """
    longest = max([len(boxes) for boxes in boxes_per_image] + [1])
    first = boxes_per_image[0]
    boxes = first.new_zeros((len(boxes_per_image), longest, 4), dtype=torch.float32)
    labels = torch.zeros((len(boxes_per_image), longest), dtype=torch.int64, device=first.device)
    for image, (image_boxes, image_labels) in enumerate(
        zip(boxes_per_image, labels_per_image, strict=True)
    ):
        boxes[image, : len(image_boxes)] = image_boxes.reshape(-1, 4)  # (0,) holds no box either
        labels[image, : len(image_labels)] = image_labels
    return boxes, labels


def flatten_levels(levels: list[Tensor], width: int) -> Tensor:
    """Join the maps of all levels in the order of a prior grid.

    That is level, row, column, prior of the cell.

    Args:
        levels: (B, priors * width, H, W) each.
        width: values of one prior.

    Returns:
        (B, P, width), P over all levels.
    """
    flat = [level.permute(0, 2, 3, 1).reshape(level.shape[0], -1, width) for level in levels]
    return torch.cat(flat, dim=1)
