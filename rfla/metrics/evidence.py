"""From boxes to evidence: every detection sorted, and what it matched at each IoU threshold and size range.

Evidence of disjoint sets of images can be gathered in different processes and merged; the figures
made from the merged evidence are those of a single run to the last bit, because ties of scores are
ordered by image id, not by arrival.

Shapes: D detections kept, C of them candidates (they overlap a true box of their image and class),
G true boxes, N images, K classes, T IoU thresholds, A size ranges.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rfla.errors import MetricError
from rfla.metrics.arrays import REGION, BoolArray, Detections, FloatArray, GroundTruth, IntArray
from rfla.metrics.matching import Matched, match
from rfla.metrics.pairs import Side, find_pairs
from rfla.metrics.protocols import Protocol
from rfla.metrics.regions import inside_regions, region_flags


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that the figures are made from.

    Detections are sorted by image, class and descending score.
    """

    protocol: Protocol
    num_classes: int
    det_row: IntArray  # (D,) row in the caller's Detections
    det_image: IntArray  # (D,) place of the image in the order of ids
    det_class: IntArray  # (D,) 0..K-1 in label order
    score: FloatArray  # (D,)
    place: IntArray  # (D,) place in its image and class, 0 is the surest
    in_range: BoolArray  # (D, A) own area lies in the range
    candidate: IntArray  # (C,) positions among the D
    state: NDArray[np.uint8]  # (C, T, A) of `matching`
    overlap: FloatArray  # (C, A) IoU with the box taken at IoU 0.5 (or the lowest of `ious`)
    candidate_gt: IntArray  # (C,) row in the caller's GroundTruth of that box, all sizes; -1 none
    gt_row: IntArray  # (G,) row in the caller's GroundTruth
    gt_image: IntArray  # (G,)
    gt_class: IntArray  # (G,)
    gt_ignored: BoolArray  # (G, A)


class _Sorted(NamedTuple):
    """Ground truth rows that are boxes (not regions), sorted by image and class."""

    rows: IntArray
    side: Side
    ignored: BoolArray  # (G, A)
    swallows: BoolArray  # (G,)


def gather(
    gt: GroundTruth, detections: Detections, protocol: Protocol, use_categories: bool = True
) -> Evidence:
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
    rows, group, place = _sort_detections(gt, detections, protocol, use_categories)
    corner, sides = detections.boxes[rows, :2], detections.sides
    assert sides is not None  # filled by Detections
    side = Side(group, corner, sides[rows])
    thresholds = np.asarray(protocol.thresholds)
    at, lowest = protocol.threshold_index(0.5) or 0, float(thresholds.min())
    found = [
        match(pairs, thresholds, truths.ignored, truths.swallows, group, at)
        for pairs in find_pairs(
            side, truths.side, truths.swallows, lowest, inside=protocol.ignoring == "iod"
        )
    ]
    matched = _join(found, len(thresholds), truths.ignored.shape[1])
    area = side.sides[:, 0] * side.sides[:, 1]
    classes = len(gt.names) if use_categories else 1
    taken_gt = np.where(matched.gt < 0, -1, truths.rows[matched.gt] if len(truths.rows) else -1)
    return Evidence(
        protocol=protocol,
        num_classes=classes,
        det_row=rows,
        det_image=group // classes,
        det_class=group % classes,
        score=detections.scores[rows],
        place=place,
        in_range=np.stack(
            [(area >= low) & (area <= high) for low, high in protocol.area_ranges], axis=1
        ),
        candidate=matched.det,
        state=matched.state,
        overlap=matched.overlap,
        candidate_gt=taken_gt,
        gt_row=truths.rows,
        gt_image=truths.side.group // classes,
        gt_class=truths.side.group % classes,
        gt_ignored=truths.ignored,
    )


def merge(parts: Sequence[Evidence]) -> Evidence:
    """Join the evidence of disjoint sets of images, gathered under one protocol from one list of images and classes.

    Rows (`det_row`, `gt_row`, `candidate_gt`) stay those of each part's own arrays.

    Raises:
        MetricError: no parts, parts of different protocols, or an image in two parts.
    """
    if not parts:
        raise MetricError("nothing to merge: no evidence was given")
    if any((p.protocol, p.num_classes) != (parts[0].protocol, parts[0].num_classes) for p in parts):
        raise MetricError("evidence of different protocols or class lists cannot be merged")
    seen = np.concatenate([np.union1d(p.det_image, p.gt_image) for p in parts])
    if len(np.unique(seen)) < len(seen):
        raise MetricError("evidence cannot be merged: the same image is in two parts")
    offsets = np.cumsum([0, *(len(p.det_row) for p in parts)])
    joined = {f.name: [getattr(p, f.name) for p in parts] for f in fields(Evidence)[2:]}
    joined["candidate"] = [
        rows + offset for rows, offset in zip(joined["candidate"], offsets, strict=False)
    ]
    arrays = {name: np.concatenate(values) for name, values in joined.items()}
    return Evidence(protocol=parts[0].protocol, num_classes=parts[0].num_classes, **arrays)


def _sort_truths(gt: GroundTruth, protocol: Protocol, use_categories: bool) -> _Sorted:
    assert (
        gt.crowd is not None
        and gt.ignore is not None
        and gt.area is not None
        and gt.sides is not None
    )
    boxes = np.flatnonzero(gt.labels != REGION)
    if protocol.ignoring == "regions":
        dropped = region_flags(gt) | inside_regions(gt, gt.image_index, gt.boxes, gt.labels)
        boxes = boxes[~dropped[boxes]]
    image, label = gt.image_rank[gt.image_index[boxes]], gt.labels[boxes]
    group = image * len(gt.names) + (label if use_categories else gt.class_rank[label])
    order = np.argsort(group, kind="stable")
    rows, group = boxes[order], (group if use_categories else image)[order]
    crowd = gt.crowd[rows]
    flagged = crowd if protocol.ignoring == "crowd" else crowd | gt.ignore[rows]
    area = gt.area[rows]
    outside = [(area < low) | (area > high) for low, high in protocol.area_ranges]
    ignored = np.stack([flagged | out for out in outside], axis=1)
    side = Side(group, gt.boxes[rows, :2], gt.sides[rows])
    return _Sorted(rows, side, ignored, flagged if protocol.ignoring == "regions" else crowd)


def _sort_detections(
    gt: GroundTruth, detections: Detections, protocol: Protocol, use_categories: bool
) -> tuple[IntArray, IntArray, IntArray]:
    """Return (D,) rows sorted by group and descending score, their groups, and their places in the group.

    Detections of equal score stay in the order of image, category id and input, as in pycocotools,
    and only the `max_dets[-1]` surest of each image and class are kept.
    """
    count = len(gt.names)
    image = gt.image_rank[detections.image_index]
    rows = np.argsort(image * count + gt.class_rank[detections.labels], kind="stable")
    if protocol.ignoring == "regions":
        rows = rows[
            ~inside_regions(gt, detections.image_index, detections.boxes, detections.labels)[rows]
        ]
    rows = rows[np.argsort(-detections.scores[rows], kind="stable")]
    group = image[rows] * count + detections.labels[rows] if use_categories else image[rows]
    # one integer holds group and place in the order of scores: sorting it is several times faster
    # than a stable argsort
    bits = max(len(rows), 1).bit_length()
    packed = np.sort((group << bits) | np.arange(len(rows)))
    rows, group = rows[packed & ((1 << bits) - 1)], packed >> bits
    begins = np.flatnonzero(np.diff(group, prepend=-1))
    place = np.arange(len(rows)) - np.repeat(begins, np.diff(np.append(begins, len(rows))))
    keep = place < protocol.max_dets[-1]
    return rows[keep], group[keep], place[keep]


def _join(found: list[Matched], num_thresholds: int, num_ranges: int) -> Matched:
    if found:
        return Matched(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
    nothing = np.zeros(0, np.int64)
    state = np.zeros((0, num_thresholds, num_ranges), np.uint8)
    return Matched(nothing, state, np.zeros((0, num_ranges)), nothing)
