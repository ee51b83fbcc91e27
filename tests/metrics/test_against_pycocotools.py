"""Our engine against pycocotools and faster-coco-eval on random scenes full of ties and crowds."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfla.metrics import PROTOCOLS, Detections, GroundTruth, find_protocol
from rfla.metrics.accumulate import accumulate
from rfla.metrics.matches import match_detections
from rfla.metrics.reference import reference_curves

EDGES = np.array(
    [0, 1, 64, 144, 256, 400, 1024, 9216, 1e10]
)  # px², where the size ranges of the protocols meet


def scene(
    seed, images=4, boxes=12, dets=25, classes=3, side=60, whole_px=True, crowd=0.1, texts=False
):
    """Boxes on whole px with few scores: equal IoUs, IoUs of exactly a threshold, tied scores.

    A third of the scenes have areas of their own, many of them exactly on the edge of a size range
    or one ulp beside.
    """
    rng = np.random.default_rng(seed)

    def draw(count):
        corner, sides = rng.uniform(-5, side, (count, 2)), rng.uniform(0, 14, (count, 2))
        if whole_px:
            corner, sides = corner.round(), sides.round()
        return np.concatenate([corner, corner + sides], axis=1)

    gt_boxes, dt_boxes = draw(boxes), draw(dets)
    near = rng.random(dets) < 0.7
    if boxes:
        shift = rng.integers(-2, 3, (dets, 2)).repeat(2, axis=0).reshape(dets, 4)
        copied = gt_boxes[rng.integers(0, boxes, dets)] + shift * (rng.random((dets, 1)) < 0.7)
        dt_boxes = np.where(near[:, None], copied, dt_boxes)
        dt_boxes[:, 2:] = np.maximum(dt_boxes[:, 2:], dt_boxes[:, :2])
    ids = tuple(int(i) for i in rng.permutation(np.arange(1, images + 1) * 7))
    edges = rng.choice(EDGES, boxes)
    area = np.where(
        rng.random(boxes) < 0.5, edges, np.nextafter(edges, rng.choice([0.0, np.inf], boxes))
    )
    gt = GroundTruth(
        image_ids=tuple(f"{i}.png" for i in ids) if texts else ids,
        image_index=rng.integers(0, images, boxes),
        boxes=gt_boxes,
        labels=rng.integers(0, classes, boxes),
        area=np.where(rng.random(boxes) < 0.5, area, rng.uniform(0, 400, boxes))
        if seed % 3 == 0
        else None,
        ignore=rng.random(boxes) < 0.3,  # to be without effect here
        crowd=rng.random(boxes) < crowd,
        names=tuple("abcdefgh"[:classes]),
        category_ids=tuple(int(c) for c in rng.permutation(100)[:classes]),
    )
    scores = rng.integers(1, 6, dets) / 8
    return gt, Detections(
        rng.integers(0, images, dets), dt_boxes, scores, rng.integers(0, classes, dets)
    )


def assert_same(gt, dets, protocol, engine="pycocotools", use_categories=True):
    curves = accumulate(match_detections(gt, dets, protocol, use_categories))
    reference = reference_curves(gt, dets, protocol, engine, use_categories)
    np.testing.assert_allclose(curves.precision, reference.precision, rtol=0, atol=1e-12)
    np.testing.assert_allclose(curves.recall, reference.recall, rtol=0, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    images=st.integers(1, 4),
    boxes=st.sampled_from([0, 1, 12, 40]),
    dets=st.sampled_from([0, 1, 25, 80]),
    classes=st.sampled_from([1, 3]),
    name=st.sampled_from(sorted(PROTOCOLS)),
    texts=st.booleans(),
    max_dets=st.sampled_from([None, (1, 2, 3), (1, 5, 100)]),
    use_categories=st.booleans(),
    whole_px=st.booleans(),
)
def test_same_as_pycocotools(
    seed, images, boxes, dets, classes, name, texts, max_dets, use_categories, whole_px
):
    """The ranges, IoU thresholds and limits of every protocol.

    Crowds alone are ignored, as pycocotools can.
    """
    gt, found = scene(seed, images, boxes, dets, classes, whole_px=whole_px, texts=texts)
    protocol = replace(find_protocol(name, max_dets=max_dets), ignoring="crowd")
    assert_same(gt, found, protocol, use_categories=use_categories)


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_every_edge_of_every_range(name):
    """A box on each edge, and one on either side of it, each found: both ends belong to a range."""
    areas = np.concatenate([EDGES, np.nextafter(EDGES, np.inf), np.nextafter(EDGES, 0)])
    count = len(areas)
    boxes = np.arange(count)[:, None] * 20.0 + np.array([0, 0, 10, 10])
    zeros = np.zeros(count, np.int64)
    gt = GroundTruth((1,), zeros, boxes, zeros, area=areas, names=("a",))
    found = Detections(zeros, boxes, np.arange(count) / count, zeros)
    assert_same(gt, found, replace(find_protocol(name), ignoring="crowd"))


def test_images_of_one_side_alone():
    """Images with true boxes and no detections, the reverse, and with neither.

    Classes that one side alone has.
    """
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [0, 0, 10, 10]], np.float64)
    gt = GroundTruth(
        (5, 3, 9, 1), [0, 0, 1], boxes, [0, 1, 0], names=("a", "b", "c"), category_ids=(7, 4, 99)
    )
    found = Detections([1, 2, 2, 1], boxes[[2, 0, 1, 0]], [0.5, 0.9, 0.8, 0.5], [0, 0, 2, 2])
    for use_categories in (True, False):
        assert_same(gt, found, find_protocol("aitod"), use_categories=use_categories)


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
@pytest.mark.parametrize("seed", range(3))
def test_same_as_faster_coco_eval(seed, name):
    gt, found = scene(seed, images=3, boxes=30, dets=60)
    for max_dets in (None, (2, 5, 1500)):
        protocol = replace(find_protocol(name, max_dets=max_dets), ignoring="crowd")
        assert_same(gt, found, protocol, engine="faster-coco-eval")


def test_own_size_ranges_as_pycocotools():
    gt, found = scene(5, boxes=40, dets=80)
    sizes = {"needle": (0, 4), "pin": (4, 9.5), "rest": (9.5, None)}
    assert_same(gt, found, find_protocol("aitod", sizes=sizes))


def test_more_thresholds_and_sizes_than_bits_of_a_word():
    """20 thresholds in 7 size ranges: 140 bits."""
    sizes = {f"s{n}": (4.0 * n, 4.0 * n + 4) for n in range(6)}
    protocol = replace(
        find_protocol("coco", sizes=sizes), ious=tuple(np.linspace(0.3, 0.96, 20).tolist())
    )
    assert_same(*scene(5, crowd=0.1), protocol)


def test_a_heap_of_detections_on_few_boxes():
    """300 detections of the same three overlapping boxes: a queue longer than ROUNDS."""
    rng = np.random.default_rng(0)
    boxes = np.array([[10, 10, 30, 30], [12, 10, 32, 30], [10, 14, 30, 34]], np.float64)
    dets = boxes[rng.integers(0, 3, 300)] + rng.normal(0, 1, (300, 1))
    gt = GroundTruth((1,), np.zeros(3, np.int64), boxes, np.zeros(3, np.int64), names=("a",))
    found = Detections(
        np.zeros(300, np.int64), dets, rng.integers(0, 4, 300) / 4, np.zeros(300, np.int64)
    )
    assert_same(gt, found, find_protocol("aitod"))
    assert_same(gt, found, find_protocol("aitod", max_dets=(1, 20, 150)))


def test_boxes_far_out_and_very_different_sides():
    """Coordinates of 1e6 px and needles beside giants do not lose a pair in the search."""
    rng = np.random.default_rng(1)
    corner = rng.uniform(0, 30, (40, 2)) + np.array([1e6, -1e6])
    sides = np.exp(rng.uniform(-3, 6, (40, 2)))
    boxes = np.concatenate([corner, corner + sides], axis=1)
    gt = GroundTruth((1, 2), rng.integers(0, 2, 40), boxes, np.zeros(40, np.int64), names=("a",))
    moved = boxes[rng.integers(0, 40, 200)] + rng.normal(0, 0.1, (200, 4)) * sides[:1].mean()
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2])
    found = Detections(rng.integers(0, 2, 200), moved, rng.random(200), np.zeros(200, np.int64))
    assert_same(gt, found, find_protocol("aitod"))
