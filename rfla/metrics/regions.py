"""Regions of an image that are out of the game for every class (VisDrone's ignored regions).

Shapes: D boxes of all images (true or detected), R regions and n boxes of one image.
"""

import numpy as np

from rfla.metrics.arrays import REGION, BoolArray, FloatArray, GroundTruth, IntArray

MOST = 0.5
"""A box with at least this share of its area inside regions is dropped, as in the VisDrone toolkit."""


def inside_regions(gt: GroundTruth, image_index: IntArray, boxes: FloatArray) -> BoolArray:
    """Return (D,) True for boxes (D, 4) xyxy px that lie for the most part inside regions of their image (D,)."""
    dropped = np.zeros(len(boxes), np.bool_)
    regions = np.flatnonzero(gt.labels == REGION)
    if not len(regions):
        return dropped
    order = np.argsort(image_index, kind="stable")
    images = image_index[order]
    for image in np.unique(gt.image_index[regions]):
        rows = order[np.searchsorted(images, image, "left") : np.searchsorted(images, image, "right")]
        of_image = gt.boxes[regions[gt.image_index[regions] == image]]
        dropped[rows] = covered_share(boxes[rows], of_image) >= MOST
    return dropped


def covered_share(boxes: FloatArray, regions: FloatArray) -> FloatArray:
    """Return (n,) the share of each box (n, 4) xyxy that the union of the regions (R, 4) covers; 0 for empty boxes."""
    xs, ys = np.unique(regions[:, [0, 2]]), np.unique(regions[:, [1, 3]])
    inside_x = (regions[:, :1] <= xs[:-1]) & (xs[1:] <= regions[:, 2:3])  # (R, X) cells between the edges
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
