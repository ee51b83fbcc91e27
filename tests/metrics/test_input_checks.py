"""Detections that can be read but can hardly be meant are named; good ones never are."""

import warnings

import numpy as np
import pytest

from rfla.metrics import Detections, GroundTruth, evaluate_boxes, find_protocol
from rfla.metrics.input_checks import find_doubts, limit_note
from rfla.metrics.matches import match_detections

SIDE = 400  # px of the images


def truth(images=4, boxes=20, seed=0):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, SIDE - 20, (images * boxes, 2)).round(1)
    sides = rng.uniform(6, 20, (images * boxes, 2)).round(1)
    return GroundTruth(
        image_ids=tuple(range(1, images + 1)),
        image_index=np.repeat(np.arange(images), boxes),
        boxes=np.concatenate([corner, corner + sides], axis=1),
        labels=rng.integers(0, 2, images * boxes),
        names=("car", "ship"),
        sides=sides,
    )


def stated(gt):
    """The true boxes as x, y, width, height."""
    return np.concatenate([gt.boxes[:, :2], gt.sides], axis=1)


def entries(gt, boxes, labels=None):
    labels = gt.labels if labels is None else labels
    return [
        {
            "image_id": int(gt.image_ids[image]),
            "category_id": int(label) + 1,
            "bbox": box.tolist(),
            "score": 0.5,
        }
        for image, label, box in zip(gt.image_index, labels, boxes, strict=True)
    ]


def centred(boxes):
    return np.concatenate([boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]], axis=1)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (lambda gt: stated(gt) / SIDE, "are shares of the image: no number is above 0.9"),
        (lambda gt: centred(stated(gt)) / SIDE, "are shares of the image"),
        (lambda gt: gt.boxes, r"seem to be x1, y1, x2, y2: read so, 80 of 80 lie on a true box"),
        (lambda gt: centred(stated(gt)), "seem to be the centre, width and height"),
        (
            lambda gt: stated(gt) + np.array([3000, 0, 0, 0]),
            "none of the 80 detections overlaps a true box",
        ),
    ],
    ids=["shares", "shares of centres", "corners", "centres", "elsewhere"],
)
def test_boxes_of_another_form(form, message):
    gt = truth()
    with pytest.warns(UserWarning, match=message) as caught:
        metrics = evaluate_boxes(gt, entries(gt, form(gt)))
    assert len(caught) == 1
    assert metrics.ap50 < 0.1


def test_class_ids_of_another_table():
    gt = truth()
    with pytest.warns(UserWarning, match="80 of 80 detections lie on a true box, but few on one"):
        evaluate_boxes(gt, entries(gt, stated(gt), 1 - gt.labels))


@pytest.mark.parametrize("seed", range(5))
def test_good_and_bad_detectors_are_not_doubted(seed):
    """Perfect boxes, rough ones, a weak detector with three quarters of noise, tiny images."""
    gt, rng = truth(seed=seed), np.random.default_rng(seed)
    noise = stated(gt) + rng.normal(0, 3, (80, 4))
    noise[:, 2:] = np.maximum(noise[:, 2:], 1)
    weak = stated(gt)
    weak[20:] = truth(seed=seed + 100).boxes[20:]
    weak[20:, 2:] = gt.sides[20:]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for boxes in (stated(gt), noise, weak):
            evaluate_boxes(gt, entries(gt, boxes))
        evaluate_boxes(gt, [])
        evaluate_boxes(gt, entries(gt, stated(gt))[:1])


def test_limits_of_detectors():
    """Two of four images have 300 detections: said of a known limit, and guessed of an unknown."""
    counts = (300, 120, 300, 7)
    image = np.repeat(np.arange(4), counts)
    boxes = np.tile(np.array([0.0, 0, 10, 10]), (len(image), 1))
    found = Detections(image, boxes, np.full(len(image), 0.5), np.zeros(len(image), np.int64))
    assert limit_note(found, 300) == (
        "2 images have 300 detections, the most allowed: more were cut off; raise max_det="
    )
    assert limit_note(found, 301) == ""
    gt = GroundTruth((1, 2, 3, 4), [0], [[0, 0, 10, 10]], [0], names=("car",))
    matches = match_detections(gt, found, find_protocol("aitod"))
    assert find_doubts(gt, found, matches) == [
        "2 images have exactly 300 detections and none has more: if that is the limit of the "
        "detector, boxes were cut off"
    ]


@pytest.mark.parametrize(("images", "found_in", "doubted"), [(12, 5, 7), (12, 6, 0), (9, 1, 0)])
def test_detections_of_a_part_of_the_images(images, found_in, doubted):
    """More than half of at least ten images with true boxes have no detection."""
    gt = truth(images, boxes=2)
    found = entries(gt, stated(gt))[: 2 * found_in]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        evaluate_boxes(gt, found)
    begin = f"{doubted} of the {images} images with true boxes have no detection, and all their "
    assert [str(one.message)[: len(begin)] for one in caught] == [begin] * bool(doubted)
