"""Suppression by class: by hand, against the records, and where a class offset would decide."""

import pytest
import torch

from rfla.ops import nms as nms_file
from rfla.ops.nms import (
    Candidates,
    DetectionLimits,
    class_nms,
    select_batch,
    select_detections,
)


def test_by_hand():
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 3], [0, 0, 4, 4], [9, 9, 12, 12]])
    scores = torch.tensor([0.5, 0.9, 0.7, 0.1])
    labels = torch.tensor([0, 0, 1, 0])
    # of class 0 the second beats the first (IoU 0.75); the third is of another class
    assert class_nms(boxes, scores, labels, 0.5, 10).tolist() == [1, 2, 3]
    assert class_nms(boxes, scores, labels, 0.8, 10).tolist() == [1, 2, 0, 3]
    assert class_nms(boxes, scores, labels, 0.5, 2).tolist() == [1, 2]


def test_nothing_in_nothing_out():
    none = torch.zeros(0, dtype=torch.int64)
    assert class_nms(torch.zeros(0, 4), torch.zeros(0), none, 0.5, 10).shape == (0,)
    found = select_detections(
        torch.zeros(5, 4), torch.zeros(5, 3), torch.ones(5), DetectionLimits(max_det=10)
    )
    assert found["boxes"].shape == (0, 4)


def test_equal_scores_keep_their_order():
    boxes = torch.arange(6.0)[:, None] * 10 + torch.tensor([0.0, 0, 2, 2])
    assert class_nms(
        boxes, torch.full((6,), 0.5), torch.tensor([2, 0, 1, 2, 0, 1]), 0.5, 10
    ).tolist() == [
        0,
        1,
        2,
        3,
        4,
        5,
    ]


def test_two_pixel_boxes_of_the_last_of_many_classes():
    """IoU 0.4998 at threshold 0.5: both stay, at (7000, 7000) and in class 17 too."""
    side = 2.0
    shift = side * (1 - 0.4998) / (1 + 0.4998)
    boxes = 7000 + torch.tensor([[0.0, 0, side, side], [shift, 0, side + shift, side]])
    kept = class_nms(boxes, torch.tensor([0.9, 0.8]), torch.tensor([17, 17]), 0.5, 10)
    assert len(kept) == 2


def test_the_threshold_sees_the_class_score_alone():
    found = select_detections(
        torch.tensor([[0.0, 0, 2, 2]]),
        torch.tensor([[0.5, 0.04]]),
        torch.tensor([0.01]),
        DetectionLimits(),
    )
    assert found["labels"].tolist() == [0]
    assert found["scores"].item() == pytest.approx(0.005)


def test_conf_sees_the_score_that_a_person_gets():
    """Class scores 0.9, 0.9, 0.5 times centerness 0.5, 0.3, 1: 0.45, 0.27 and 0.5 come out."""
    boxes = torch.tensor([[0.0, 0, 2, 2], [5, 5, 7, 7], [9, 9, 12, 12]])
    class_scores, centerness = torch.tensor([[0.9], [0.9], [0.5]]), torch.tensor([0.5, 0.3, 1.0])

    def scores(**limits):
        found = select_detections(boxes, class_scores, centerness, DetectionLimits(**limits))
        return found["scores"].tolist()

    assert scores() == pytest.approx([0.5, 0.45, 0.27])
    assert scores(conf=0.3) == pytest.approx([0.5, 0.45])
    assert scores(conf=0.5) == [0.5]  # a score of exactly conf is kept
    assert scores(score_thr=0.6) == pytest.approx([0.45, 0.27])
    assert scores(score_thr=0.6, conf=0.3) == pytest.approx([0.45])


def test_conf_before_suppression_keeps_what_it_would_keep_after():
    random = torch.Generator().manual_seed(0)
    corners = torch.rand(300, 2, generator=random) * 40
    boxes = torch.cat((corners, corners + 8), dim=1)
    class_scores, factors = (
        torch.rand(300, 3, generator=random),
        torch.rand(300, generator=random),
    )
    every = select_detections(boxes, class_scores, factors, DetectionLimits())
    some = select_detections(boxes, class_scores, factors, DetectionLimits(conf=0.3))
    kept = every["scores"] >= 0.3
    assert 0 < kept.sum() < len(kept)
    assert all(torch.equal(every[key][kept], some[key]) for key in every)


@pytest.mark.parametrize(
    ("name", "factors", "limit"),
    [("plain", False, 3000), ("factors", True, 3000), ("max20", False, 20)],
)
def test_recorded_multiclass_nms(parity, name, factors, limit):
    manifest, tensors = parity("components")
    case = next(case for case in manifest["cases"] if case["id"] == f"multiclass_nms_{name}")
    scores = tensors["mcnms.scores"][:, :-1]
    found = select_detections(
        tensors["nms.boxes"],
        scores,
        tensors["mcnms.factors"] if factors else None,
        DetectionLimits(case["score_thr"], case["iou_threshold"], limit),
    )
    expected = tensors[f"mcnms.{name}.dets"]
    assert found["labels"].tolist() == tensors[f"mcnms.{name}.labels"].tolist()
    torch.testing.assert_close(found["boxes"], expected[:, :4])
    torch.testing.assert_close(found["scores"], expected[:, 4])


def test_recorded_boxes_of_each_class(parity):
    """Every class with boxes of its own, as after a box head."""
    _, tensors = parity("components")
    boxes, scores = tensors["mcnms.boxes8"].view(300, 8, 4), tensors["mcnms.scores"][:, :-1]
    found = select_detections(boxes, scores, None, DetectionLimits(0.6, 0.5, 100))
    assert found["labels"].tolist() == tensors["mcnms.cb.labels"].tolist()
    torch.testing.assert_close(found["boxes"], tensors["mcnms.cb.dets"][:, :4])
    torch.testing.assert_close(found["scores"], tensors["mcnms.cb.dets"][:, 4])


@pytest.mark.parametrize("iou", [0.5, 0.7])
def test_recorded_suppression(parity, iou):
    _, tensors = parity("components")
    ids, scores = tensors["nms.ids"].long(), tensors["nms.scores"]
    kept = class_nms(tensors["nms.boxes"], scores, ids, iou, 300)
    assert kept.tolist() == tensors[f"nms.keep_{iou}"].tolist()
    torch.testing.assert_close(scores[kept], tensors[f"nms.dets_{iou}"][:, 4])


@pytest.mark.parametrize("scale", [1.0, 1000.0, 0.01])
def test_all_classes_at_once_as_on_a_gpu(scale):
    """One call in float64 with shifted classes keeps what class by class does."""
    for seed in range(20):
        random = torch.Generator().manual_seed(seed)
        corners = torch.rand(200, 2, generator=random) * 30 - 5
        sides = torch.rand(200, 2, generator=random) * 10
        boxes = torch.cat((corners, corners + sides), dim=1) * scale
        scores = (torch.rand(200, generator=random) * 50).round() / 50  # many are equal
        labels = torch.randint(0, 2000, (200,), generator=random) % 7 * 333
        first = nms_file._one_by_one(boxes, scores, labels, 0.5).sort().values
        second = nms_file._all_at_once(boxes, scores, labels, 0.5).sort().values
        assert torch.equal(first, second)
    none = torch.zeros(0)
    assert nms_file._all_at_once(none.view(0, 4), none, none.long(), 0.5).shape == (0,)


def test_all_at_once_lays_no_class_on_another():
    """Twins of class 1 where class 0 has its box: a shift of less than 2 px would let them meet."""
    boxes = torch.tensor([[0.0, 0, 2, 2]] * 3)
    scores, labels = torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 1, 1])
    assert nms_file._all_at_once(boxes, scores, labels, 0.1).tolist() == [0, 1]


def test_a_box_that_is_not_a_number_does_not_join_the_classes():
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4], [0, 0, 4, 4], [torch.nan] * 4])
    scores, labels = torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([0, 1, 1, 1])
    for suppress in (nms_file._all_at_once, nms_file._one_by_one):
        assert sorted(suppress(boxes, scores, labels, 0.5).tolist()) == [0, 1, 3]


@pytest.mark.parametrize(
    ("factors", "expected"), [(torch.tensor([[0.5], [0.25]]), [0.4, 0.2]), (None, [0.8, 0.8])]
)
def test_each_image_of_a_batch_has_its_own_factors(factors, expected):
    """One box of score 0.8 in each image, times 1 / 2 and 1 / 4."""
    boxes, scores = torch.tensor([[[0.0, 0, 4, 4]]] * 2), torch.tensor([[[0.8]]] * 2)
    found = select_batch(Candidates(boxes, scores, factors), DetectionLimits())
    assert [image["scores"].item() for image in found] == pytest.approx(expected)
