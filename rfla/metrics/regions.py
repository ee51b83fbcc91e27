"""Regions of an image that are out of the game for every class (VisDrone's ignored regions).

Shapes: D boxes of all images (true or detected), R regions and n boxes of one image.
"""

import numpy as np

from rfla.metrics.arrays import REGION, BoolArray, FloatArray, GroundTruth, IntArray

MOST = 0.5
"""A box with at least this share of its area inside regions is dropped, as in the VisDrone toolkit."""


def region_flags(gt: GroundTruth) -> BoolArray:
    """Return (G,) True for regions: boxes of no class, and boxes both `crowd` and `ignore`.

    The second form is how COCO files hold a region: once for each class that it is to be ignored
    for.
    """
    assert gt.crowd is not None and gt.ignore is not None
    return np.asarray((gt.labels == REGION) | (gt.crowd & gt.ignore))


def inside_regions(
    gt: GroundTruth, image_index: IntArray, boxes: FloatArray, labels: IntArray
) -> BoolArray:
    """Return (D,) True for boxes that lie for the most part inside regions of their image and class.

    Args:
        gt: holds the regions; one without class is of every class.
        image_index: (D,) image of each box.
        boxes: (D, 4) xyxy px.
        labels: (D,).
    """
    dropped = np.zeros(len(boxes), np.bool_)
    classes = len(gt.names)
    flags = region_flags(gt)
    general, of_class = (
        np.flatnonzero(flags & (gt.labels == REGION)),
        np.flatnonzero(flags & (gt.labels != REGION)),
    )
    rows = np.concatenate([np.repeat(general, classes), of_class])
    label = np.concatenate([np.tile(np.arange(classes), len(general)), gt.labels[of_class]])
    region_group = gt.image_index[rows] * classes + label
    regions = np.argsort(region_group, kind="stable")
    group = image_index * classes + labels
    order = np.argsort(group, kind="stable")
    ordered = group[order]
    for one in np.split(regions, np.flatnonzero(np.diff(region_group[regions])) + 1):
        if not len(one):
            continue
        key = region_group[one[0]]
        inside = order[
            np.searchsorted(ordered, key, "left") : np.searchsorted(ordered, key, "right")
        ]
        dropped[inside] = covered_share(boxes[inside], gt.boxes[rows[one]]) >= MOST
    return dropped


def covered_share(boxes: FloatArray, regions: FloatArray) -> FloatArray:
    """Return (n,) the share of each box (n, 4) xyxy that the union of the regions (R, 4) covers.

    0 for empty boxes.
    """
    xs, ys = np.unique(regions[:, [0, 2]]), np.unique(regions[:, [1, 3]])
    inside_x = (regions[:, :1] <= xs[:-1]) & (
        xs[1:] <= regions[:, 2:3]
    )  # (R, X) cells between the edges
    inside_y = (regions[:, 1:2] <= ys[:-1]) & (ys[1:] <= regions[:, 3:4])
    union = (inside_x[:, :, None] & inside_y[:, None, :]).any(axis=0).astype(np.float64)  # (X, Y)
    wide = _lengths(boxes[:, 0], boxes[:, 2], xs)  # (n, X)
    high = _lengths(boxes[:, 1], boxes[:, 3], ys)
    covered: FloatArray = ((wide @ union) * high).sum(axis=1)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    share: FloatArray = np.divide(covered, area, out=np.zeros_like(area), where=area > 0)
    return share


def _lengths(low: FloatArray, high: FloatArray, edges: FloatArray) -> FloatArray:
    """Return (n, E - 1) how much of each interval lies between neighbouring edges."""
    cut = np.minimum(high[:, None], edges[1:]) - np.maximum(low[:, None], edges[:-1])
    return np.asarray(np.maximum(cut, 0.0))
