"""Ignored regions: parts of an image in which nothing counts, as in VisDrone.

Shapes: D boxes of all images (true or detected), R regions and n boxes of one image.
"""

import numpy as np

from rfla.metrics.arrays import REGION, BoolArray, FloatArray, GroundTruth, IntArray

FEW = 256  # regions: from more on each box is looked at alone
DROPPED_FROM = 0.5
"""Share of a box inside regions from which it is dropped, as in the VisDrone toolkit."""


def region_flags(gt: GroundTruth) -> BoolArray:
    """Return (G,) True for regions: boxes of no class, and boxes both `crowd` and `ignore`.

    The second form is how COCO files hold a region: once for each class that is ignored there.
    """
    assert gt.crowd is not None and gt.ignore is not None
    return np.asarray((gt.labels == REGION) | (gt.crowd & gt.ignore))


def inside_regions(
    gt: GroundTruth, image_index: IntArray, boxes: FloatArray, labels: IntArray
) -> BoolArray:
    """Return (D,) True for boxes of which half or more lies inside regions.

    Args:
        gt: holds the regions; one without class counts for every class.
        image_index: (D,) image of each box.
        boxes: (D, 4) xyxy px.
        labels: (D,).
    """
    dropped = np.zeros(len(boxes), np.bool_)
    classes = len(gt.names)
    flags = region_flags(gt)
    every_class = np.flatnonzero(flags & (gt.labels == REGION))
    one_class = np.flatnonzero(flags & (gt.labels != REGION))

    # a region without class is repeated for each class, so that a group is one image and one class
    rows = np.concatenate([np.repeat(every_class, classes), one_class])
    label = np.concatenate([np.tile(np.arange(classes), len(every_class)), gt.labels[one_class]])
    region_group = gt.image_index[rows] * classes + label
    region_order = np.argsort(region_group, kind="stable")
    rows, region_group = rows[region_order], region_group[region_order]

    group = image_index * classes + labels
    order = np.argsort(group, kind="stable")
    group = group[order]
    for key in np.unique(region_group):
        first, last = np.searchsorted(group, [key, key + 1])
        first_region, last_region = np.searchsorted(region_group, [key, key + 1])
        of_group = order[first:last]
        regions = gt.boxes[rows[first_region:last_region]]
        dropped[of_group] = covered_share(boxes[of_group], regions) >= DROPPED_FROM
    return dropped


def covered_share(boxes: FloatArray, regions: FloatArray) -> FloatArray:
    """Return (n,) the share of each box (n, 4) xyxy that the union of the regions (R, 4) covers.

    0 for empty boxes.
    """
    if len(regions) <= FEW:
        return _covered_share(boxes, regions)
    # The grid of many regions would not fit into memory; a box meets few of them.
    share = np.zeros(len(boxes))
    for row, box in enumerate(boxes):
        near = ((regions[:, :2] < box[2:]) & (regions[:, 2:] > box[:2])).all(axis=1)
        if near.any():
            share[row] = _covered_share(boxes[row : row + 1], regions[near])[0]
    return share


def _covered_share(boxes: FloatArray, regions: FloatArray) -> FloatArray:
    """As `covered_share`, with a grid over all regions."""
    # the edges of all regions cut the image into X * Y cells: each is covered or not
    xs, ys = np.unique(regions[:, [0, 2]]), np.unique(regions[:, [1, 3]])
    covered = np.zeros((max(len(xs) - 1, 0), max(len(ys) - 1, 0)))  # (X, Y)
    for x1, y1, x2, y2 in zip(*_cells(regions, xs, ys), strict=True):
        covered[x1:x2, y1:y2] = 1

    # the area of a box in the covered cells is a product of its lengths in columns and lines
    widths = _lengths(boxes[:, 0], boxes[:, 2], xs)  # (n, X)
    heights = _lengths(boxes[:, 1], boxes[:, 3], ys)  # (n, Y)
    covered_area = ((widths @ covered) * heights).sum(axis=1)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    share: FloatArray = np.divide(covered_area, area, out=np.zeros_like(area), where=area > 0)
    return share


def _cells(regions: FloatArray, xs: FloatArray, ys: FloatArray) -> list[list[int]]:
    """The first column and line of each region, and those behind its last: four lists of R."""
    edges = (xs, ys, xs, ys)
    return [np.searchsorted(edge, regions[:, side]).tolist() for side, edge in enumerate(edges)]


def _lengths(low: FloatArray, high: FloatArray, edges: FloatArray) -> FloatArray:
    """Return (n, E - 1) how much of each interval lies between neighbouring edges."""
    cut = np.minimum(high[:, None], edges[1:]) - np.maximum(low[:, None], edges[:-1])
    return np.asarray(np.maximum(cut, 0.0))
