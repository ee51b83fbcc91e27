"""The order of the input does not matter, and images can be weighted."""

from dataclasses import replace

import numpy as np

from rfla.metrics import Detections, GroundTruth, find_protocol
from rfla.metrics.accumulate import accumulate
from rfla.metrics.matches import match_detections

PROTOCOL = find_protocol("aitod", max_dets=(2, 3, 8))


def scene(images=6, boxes=60, dets=200, ties=True):
    rng = np.random.default_rng(3)
    corner = rng.integers(0, 60, (boxes, 2))
    truth = np.concatenate([corner, corner + rng.integers(2, 14, (boxes, 2))], axis=1).astype(
        np.float64
    )
    ids = tuple(int(i) for i in rng.permutation(images) + 1)
    gt = GroundTruth(
        ids, rng.integers(0, images, boxes), truth, rng.integers(0, 2, boxes), names=("a", "b")
    )
    source = rng.integers(0, boxes, dets)
    found = truth[source] + rng.integers(-1, 2, (dets, 1))
    scores = (
        rng.integers(1, 5, dets) / 4 if ties else rng.random(dets)
    )  # ties within and between images
    return gt, Detections(gt.image_index[source], found, scores, gt.labels[source])


def test_order_of_input_between_images_does_not_matter():
    gt, dets = scene()
    order = np.argsort(-dets.image_index, kind="stable")
    turned = Detections(
        dets.image_index[order], dets.boxes[order], dets.scores[order], dets.labels[order]
    )
    first, second = (
        accumulate(match_detections(gt, dets, PROTOCOL)),
        accumulate(match_detections(gt, turned, PROTOCOL)),
    )
    np.testing.assert_array_equal(first.precision, second.precision)


def test_weight_two_counts_an_image_twice():
    """A resampled image weighs as often as it was drawn: boxes, true and false positives alike."""
    gt, dets = scene(ties=False)
    matches = match_detections(gt, dets, replace(PROTOCOL, lrp=False))
    weights = np.array([2.0, 0.0, 1.0, 1.0, 0.0, 2.0])
    weighted = accumulate(matches, weights)
    kept = np.repeat(np.arange(6), weights.astype(int))  # images by rank, as drawn
    index_of_rank = np.argsort(gt.image_rank)
    parts, images, found = [], [], []
    for new, rank in enumerate(kept):
        parts.append(np.flatnonzero(gt.image_index == index_of_rank[rank]))
        images.append(np.full(len(parts[-1]), new))
        found.append(np.flatnonzero(dets.image_index == index_of_rank[rank]))
    rows, drows = np.concatenate(parts), np.concatenate(found)
    drawn = GroundTruth(
        tuple(range(6)), np.concatenate(images), gt.boxes[rows], gt.labels[rows], names=gt.names
    )
    place = np.repeat(np.arange(6), [len(f) for f in found])
    again = accumulate(
        match_detections(
            drawn,
            Detections(place, dets.boxes[drows], dets.scores[drows], dets.labels[drows]),
            PROTOCOL,
        )
    )
    np.testing.assert_array_equal(weighted.boxes, again.boxes)
    np.testing.assert_allclose(weighted.recall, again.recall, atol=1e-12)
    np.testing.assert_allclose(weighted.precision, again.precision, atol=1e-12)


def test_a_detection_on_an_edge_is_of_both_sizes():
    """8 x 8 px is where very tiny ends and tiny begins."""
    gt = GroundTruth((1,), [0], [[50, 50, 60, 60]], [0], names=("a",))
    found = Detections([0], [[0, 0, 8, 8]], [0.5], [0])
    sizes = match_detections(gt, found, PROTOCOL).in_range[:, 0].tolist()
    assert dict(zip(PROTOCOL.size_names, sizes, strict=True)) == {
        "all": True,
        "vt": True,
        "t": True,
        "s": False,
        "m": False,
    }
