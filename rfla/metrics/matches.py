"""Every detection sorted, and what it matched at each IoU threshold and size range.

Shapes: D detections kept, C of them candidates (they overlap a true box of their image and class),
G true boxes, N images, K classes, T IoU thresholds, A size ranges. A group is one image and one
class.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rfla.errors import MetricError
from rfla.metrics.arrays import (
    REGION,
    BoolArray,
    Detections,
    FloatArray,
    GroundTruth,
    IntArray,
    stable_order,
)
from rfla.metrics.matching import Bits, Matched, Matcher, is_set
from rfla.metrics.overlaps import GroupedBoxes, find_overlaps, grouped_boxes
from rfla.metrics.protocols import Protocol
from rfla.metrics.regions import inside_regions, region_flags


@dataclass(frozen=True, eq=False)
class Matches:
    """All that the figures are made from.

    Detections are sorted by image, class and descending score. Of each image and class only the
    `max_dets[-1]` best are kept.
    """

    protocol: Protocol
    num_classes: int
    det_row: IntArray  # (D,) row in the caller's Detections
    det_image: IntArray  # (D,) position of the image in the order of ids
    det_class: IntArray  # (D,) 0..K-1 in label order
    score: FloatArray  # (D,)
    score_rank: IntArray  # (D,) ascends with falling score over all images and classes
    rank_in_image: IntArray  # (D,) 0 is the best of its image and class
    in_range: BoolArray  # (A, D) the area of the detection lies in the range
    candidate: IntArray  # (C,) positions among the D
    true: Bits  # (C, A) thresholds at which it is a true positive
    ignored: Bits  # (C, A) thresholds at which it matched an ignored box
    iou: FloatArray  # (C, A) IoU with the box matched at IoU 0.5 (or the first of `ious`)
    candidate_gt: IntArray  # (C,) row in the caller's GroundTruth of that box, all sizes; -1 none
    gt_row: IntArray  # (G,) row in the caller's GroundTruth
    gt_image: IntArray  # (G,)
    gt_class: IntArray  # (G,)
    gt_ignored: BoolArray  # (G, A)

    def true_at_half(self) -> BoolArray:
        """Return (C,) True for true positives at IoU 0.5 over all sizes."""
        return is_set(self.true[:, 0], self.protocol.at)

    def ignored_at_half(self) -> BoolArray:
        """Return (C,) True for those that matched an ignored box at IoU 0.5 over all sizes."""
        return is_set(self.ignored[:, 0], self.protocol.at)


class _Truths(NamedTuple):
    """Ground truth without regions, sorted by image and class."""

    rows: IntArray  # (G,) row in the caller's GroundTruth
    boxes: GroupedBoxes
    ignored: BoolArray  # (G, A)
    crowd: BoolArray  # (G,) may be matched many times, by intersection over the detection


class _Ranking(NamedTuple):
    """Detections sorted by image, class and descending score."""

    rows: IntArray  # (D,) row in the caller's Detections
    group: IntArray  # (D,)
    score_rank: IntArray  # (D,)
    rank_in_image: IntArray  # (D,)


def match_detections(
    gt: GroundTruth, detections: Detections, protocol: Protocol, use_categories: bool = True
) -> Matches:
    """Sort and match everything.

    Args:
        gt: true boxes.
        detections: of the same images and classes.
        protocol: what counts.
        use_categories: False: all classes are one, as `useCats = 0` of the COCO API.
    """
    if not gt.names:
        raise MetricError("ground truth: no class is named; there is nothing to evaluate")
    detections.check_against(gt)
    truths = _sort_truths(gt, protocol, use_categories)
    ranking = _rank_detections(gt, detections, protocol, use_categories)
    assert detections.sides is not None  # filled by Detections
    boxes = grouped_boxes(ranking.group, detections.boxes, detections.sides, ranking.rows)
    matched = _match(boxes, truths, protocol)

    area = boxes.w * boxes.h
    in_range = [(area >= low) & (area <= high) for low, high in protocol.area_ranges]
    classes = len(gt.names) if use_categories else 1
    det_image, det_class = np.divmod(ranking.group, classes)
    candidate_gt = np.full(len(matched.gt), -1)
    candidate_gt[matched.gt >= 0] = truths.rows[matched.gt[matched.gt >= 0]]
    return Matches(
        protocol=protocol,
        num_classes=classes,
        det_row=ranking.rows,
        det_image=det_image,
        det_class=det_class,
        score=detections.scores[ranking.rows],
        score_rank=ranking.score_rank,
        rank_in_image=ranking.rank_in_image,
        in_range=np.stack(in_range),
        candidate=matched.det,
        true=matched.true,
        ignored=matched.ignored,
        iou=matched.iou,
        candidate_gt=candidate_gt,
        gt_row=truths.rows,
        gt_image=truths.boxes.group // classes,
        gt_class=truths.boxes.group % classes,
        gt_ignored=truths.ignored,
    )


def _match(boxes: GroupedBoxes, truths: _Truths, protocol: Protocol) -> Matched:
    """Match detections that are sorted by group and score."""
    thresholds = np.asarray(protocol.thresholds)
    matcher = Matcher(thresholds, truths.ignored, truths.crowd, protocol.at)
    chunks = [
        matcher.match(overlaps, boxes.group)
        for overlaps in find_overlaps(
            boxes,
            truths.boxes,
            truths.crowd,
            lowest=float(thresholds.min()),
            with_iod=protocol.ignoring == "iod",
        )
    ]
    if len(chunks) == 1:
        return chunks[0]
    if chunks:
        return Matched(*(np.concatenate(columns) for columns in zip(*chunks, strict=True)))
    nothing = np.zeros(0, np.int64)
    bits = np.zeros((0, truths.ignored.shape[1]), matcher.dtype)
    return Matched(nothing, bits, bits, np.zeros(bits.shape), nothing)


def _sort_truths(gt: GroundTruth, protocol: Protocol, use_categories: bool) -> _Truths:
    """Sort the true boxes by image and class, and say which of them are ignored."""
    assert gt.crowd is not None and gt.ignore is not None  # filled by GroundTruth
    assert gt.area is not None and gt.sides is not None
    rows = np.flatnonzero(gt.labels != REGION)
    if protocol.ignoring == "regions":
        dropped = region_flags(gt) | inside_regions(gt, gt.image_index, gt.boxes, gt.labels)
        rows = rows[~dropped[rows]]

    # without categories the boxes of an image keep the order of their category ids, which decides
    # ties in pycocotools
    image, label = gt.image_rank[gt.image_index[rows]], gt.labels[rows]
    order_in_image = label if use_categories else gt.class_rank[label]
    key = image * len(gt.names) + order_in_image
    order = np.argsort(key, kind="stable")
    rows, group = rows[order], (key if use_categories else image)[order]

    crowd = gt.crowd[rows]
    never_counts = crowd if protocol.ignoring == "crowd" else crowd | gt.ignore[rows]
    area = gt.area[rows]
    ignored = [never_counts | (area < low) | (area > high) for low, high in protocol.area_ranges]
    return _Truths(
        rows,
        grouped_boxes(group, gt.boxes, gt.sides, rows),
        np.stack(ignored, axis=1),
        never_counts if protocol.ignoring == "regions" else crowd,
    )


def _rank_detections(
    gt: GroundTruth, detections: Detections, protocol: Protocol, use_categories: bool
) -> _Ranking:
    """Sort the detections and keep the `max_dets[-1]` best of each image and class.

    Detections of equal score stay in the order of image, category id and input, as in pycocotools.
    """
    classes = len(gt.names)
    image, labels = gt.image_rank[detections.image_index], detections.labels
    key = image * classes + gt.class_rank[labels]
    if protocol.ignoring == "regions":
        dropped = inside_regions(gt, detections.image_index, detections.boxes, labels)
        rows = np.flatnonzero(~dropped)
        rows = rows[_by_falling_score(detections.scores[rows], key[rows])]
    else:
        rows = _by_falling_score(detections.scores, key)

    group = image[rows] * classes + labels[rows] if use_categories else image[rows]
    order = stable_order(group)  # the position among all scores is the score rank
    rows, group = rows[order], group[order]
    group_start = np.flatnonzero(np.diff(group, prepend=-1))
    group_size = np.diff(group_start, append=len(rows))
    rank_in_image = np.arange(len(rows)) - np.repeat(group_start, group_size)
    kept = rank_in_image < protocol.max_dets[-1]
    return _Ranking(rows[kept], group[kept], order[kept], rank_in_image[kept])


def _by_falling_score(scores: FloatArray, key: IntArray) -> IntArray:
    """Return (M,) the order of falling scores; equal scores by key, then as they stand."""
    order = np.argsort(-scores)  # not stable, but several times as fast
    falling = scores[order]
    level = np.cumsum(falling[1:] != falling[:-1])  # equal scores are one level
    if len(level) and level[-1] < len(level):  # there are ties
        by_key = stable_order(key)
        place = np.empty(len(order), np.int64)
        place[by_key] = np.arange(len(order))
        bits = len(order).bit_length()
        packed = np.sort((np.append(0, level) << bits) | place[order])
        order = by_key[packed & ((1 << bits) - 1)]
    return order
