"""Evidence gathered in parts and merged gives the figures of one run, exactly."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

from rfla.errors import MetricError
from rfla.metrics import Detections, GroundTruth, find_protocol
from rfla.metrics.accumulate import accumulate
from rfla.metrics.evidence import gather, merge

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


def part_of(gt, dets, images):
    """The boxes and detections of some images, with the list of all images."""
    truth, found = np.isin(gt.image_index, images), np.isin(dets.image_index, images)
    part = GroundTruth(
        gt.image_ids, gt.image_index[truth], gt.boxes[truth], gt.labels[truth], names=gt.names
    )
    return part, Detections(
        dets.image_index[found], dets.boxes[found], dets.scores[found], dets.labels[found]
    )


def test_merged_parts_are_exactly_one_run():
    gt, dets = scene()
    parts = [gather(*part_of(gt, dets, images), PROTOCOL) for images in ([4, 0], [2], [1, 3, 5])]
    merged, whole = accumulate(merge(parts)), accumulate(gather(gt, dets, PROTOCOL))
    for name in ("precision", "recall", "lrp", "boxes"):
        np.testing.assert_array_equal(getattr(merged, name), getattr(whole, name))


def test_parts_gathered_in_other_processes():
    gt, dets = scene()
    parts = [part_of(gt, dets, images) for images in ([4, 0, 1], [2, 3, 5])]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        gathered = list(pool.map(gather, *zip(*parts, strict=True), [PROTOCOL] * 2))
    merged, whole = accumulate(merge(gathered)), accumulate(gather(gt, dets, PROTOCOL))
    np.testing.assert_array_equal(merged.precision, whole.precision)


def test_order_of_input_between_images_does_not_matter():
    gt, dets = scene()
    order = np.argsort(-dets.image_index, kind="stable")
    turned = Detections(
        dets.image_index[order], dets.boxes[order], dets.scores[order], dets.labels[order]
    )
    first, second = accumulate(gather(gt, dets, PROTOCOL)), accumulate(gather(gt, turned, PROTOCOL))
    np.testing.assert_array_equal(first.precision, second.precision)


def test_parts_that_do_not_fit_are_refused():
    gt, dets = scene()
    evidence = gather(gt, dets, PROTOCOL)
    with pytest.raises(MetricError, match="the same image is in two parts"):
        merge([evidence, evidence])
    with pytest.raises(MetricError, match="different protocols"):
        merge([evidence, gather(gt, dets, find_protocol("coco"))])
    with pytest.raises(MetricError, match="nothing to merge"):
        merge([])


def test_weight_two_counts_an_image_twice():
    """A resampled image weighs as often as it was drawn: boxes, true and false positives alike."""
    gt, dets = scene(ties=False)
    evidence = gather(gt, dets, PROTOCOL)
    weights = np.array([2.0, 0.0, 1.0, 1.0, 0.0, 2.0])
    weighted = accumulate(evidence, weights, lrp=False)
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
        gather(
            drawn,
            Detections(place, dets.boxes[drows], dets.scores[drows], dets.labels[drows]),
            PROTOCOL,
        )
    )
    np.testing.assert_array_equal(weighted.boxes, again.boxes)
    np.testing.assert_allclose(weighted.recall, again.recall, atol=1e-12)
    np.testing.assert_allclose(weighted.precision, again.precision, atol=1e-12)
