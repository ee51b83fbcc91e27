"""Detections that can be read but can hardly be meant: another unit, another order, cut off.

Shapes: D detections of all images, N images.
"""

import numpy as np

from rfla.metrics.arrays import Detections, FloatArray, GroundTruth, IntArray
from rfla.metrics.matches import Matches
from rfla.metrics.overlaps import find_overlaps, grouped_boxes

FEW = 0.25
"""Share of true positives below which other readings of the boxes are tried."""

LEAST_IMAGES = 10
"""Images with true boxes from which it is asked whether detections are of all images."""

SAMPLE = 20_000
"""Detections that are tried at most."""


def find_doubts(gt: GroundTruth, detections: Detections, matches: Matches) -> list[str]:
    """Return what is likely wrong with detections of a file, one line each; [] for most files.

    Args:
        gt: the true boxes.
        detections: as they were read.
        matches: of both.
    """
    if not len(detections) or not len(matches.gt_row):
        return []
    true = int(np.count_nonzero(matches.true[:, 0]))
    doubts = [_units(gt, detections) or _another_reading(gt, detections, true)]
    if not doubts[0] and not len(matches.candidate):
        doubts = [
            f"none of the {len(detections):,} detections overlaps a true box of its image and "
            "class: check that bbox is x, y, width, height in px of the original image, and that "
            "the ids of images and categories are those of the ground truth"
        ]
    doubts += _same_count(detections, len(gt.image_ids)) + _images_without(gt, detections)
    return [doubt for doubt in doubts if doubt]


def limit_note(detections: Detections, limit: int) -> str:
    """Say how many images reached a detector's limit of detections; "" if none did."""
    reached = int(np.count_nonzero(_counts(detections) >= limit))
    if not reached:
        return ""
    images = "1 image has" if reached == 1 else f"{reached:,} images have"
    return f"{images} {limit:,} detections, the most allowed: more were cut off; raise max_det="


def _counts(detections: Detections) -> IntArray:
    """Return the number of detections of each image."""
    return np.bincount(detections.image_index)


def _units(gt: GroundTruth, detections: Detections) -> str:
    """Recognise shares of the image: no coordinate is above 1, and the true boxes are px."""
    assert detections.sides is not None
    highest = max(detections.boxes[:, :2].max(), detections.sides.max())
    reach = float(gt.boxes.max(initial=0.0))
    if highest > 1.01 or reach <= 4:
        return ""
    return (
        f"the boxes of the detections are shares of the image: no number is above {highest:.3g}, "
        f"while true boxes reach {reach:.0f} px; bbox must be x, y, width, height in px"
    )


def _another_reading(gt: GroundTruth, detections: Detections, true: int) -> str:
    """Recognise corners, centres and foreign class ids: read so, far more boxes are found."""
    if true >= FEW * min(len(detections), len(gt.labels)):
        return ""
    assert detections.sides is not None
    rows = np.linspace(0, len(detections) - 1, min(len(detections), SAMPLE)).astype(np.int64)
    corner, sides = detections.boxes[rows, :2], detections.sides[rows]
    image = detections.image_index[rows]
    as_stated = _count_on_boxes(gt, image, corner, sides)
    readings = {
        "x1, y1, x2, y2": _count_on_boxes(gt, image, corner, sides - corner),
        "the centre, width and height": _count_on_boxes(gt, image, corner - sides / 2, sides),
    }
    meant, count = max(readings.items(), key=lambda reading: reading[1])
    if count > max(2 * as_stated, len(rows) / 100):
        return (
            f"the boxes of the detections seem to be {meant}: read so, {count:,} of {len(rows):,} "
            f"lie on a true box, and {as_stated:,} as they stand; bbox must be x, y, width, height"
        )
    true_of_sample = true * len(rows) / len(detections)
    if as_stated > max(4 * true_of_sample, len(rows) / 10):
        return (
            f"{as_stated:,} of {len(rows):,} detections lie on a true box, but few on one of their "
            "class: check the category ids"
        )
    return ""


def _count_on_boxes(gt: GroundTruth, image: IntArray, corner: FloatArray, sides: FloatArray) -> int:
    """Return how many boxes reach IoU 0.5 with a true box of their image, whatever its class.

    Args:
        gt: the true boxes.
        image: (D,) position of the image of each box.
        corner: (D, 2) x1, y1 px.
        sides: (D, 2) width and height px; a box with a negative one lies on nothing.
    """
    assert gt.sides is not None
    possible = np.flatnonzero((sides > 0).all(axis=1))
    order = possible[np.argsort(image[possible], kind="stable")]
    gt_order = np.argsort(gt.image_index, kind="stable")
    dets = grouped_boxes(image[order], corner, sides, order)
    truths = grouped_boxes(gt.image_index[gt_order], gt.boxes, gt.sides, gt_order)
    chunks = find_overlaps(dets, truths, np.zeros(len(gt_order), np.bool_), 0.5)
    return sum(len(np.unique(chunk.det)) for chunk in chunks)


def _same_count(detections: Detections, images: int) -> list[str]:
    """Recognise the limit of an unknown detector: several images have the same, highest count."""
    counts = _counts(detections)
    limit = int(counts.max())
    reached = int(np.count_nonzero(counts == limit))
    if limit < 100 or reached < max(2, images / 100):
        return []
    return [
        f"{reached:,} images have exactly {limit:,} detections and none has more: if that is the "
        "limit of the detector, boxes were cut off"
    ]


def _images_without(gt: GroundTruth, detections: Detections) -> list[str]:
    """Recognise detections of a part of the images: most that hold true boxes have none."""
    with_boxes = np.unique(gt.image_index)
    missing = len(np.setdiff1d(with_boxes, detections.image_index))
    if len(with_boxes) < LEAST_IMAGES or 2 * missing <= len(with_boxes):
        return []
    return [
        f"{missing:,} of the {len(with_boxes):,} images with true boxes have no detection, and all "
        "their boxes count as missed: are these the detections of the whole split?"
    ]
