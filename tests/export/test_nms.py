"""Suppression of fixed size against hand-made numbers and against that of the detectors."""

import torch

from rfla.export.nms import DEAD, best_of_classes
from rfla.ops.nms import DetectionLimits, select_detections


def test_by_hand():
    boxes = torch.tensor([[[0.0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30]]])
    scores = torch.tensor([[[0.9, 0.2], [0.8, DEAD], [0.3, DEAD]]])
    kept, best, labels = best_of_classes(boxes, scores, iou=0.5, limit=4)
    torch.testing.assert_close(best, torch.tensor([[0.9, 0.3, 0.2, DEAD]]))
    assert labels.tolist() == [[0, 0, 1, -1]]
    assert kept.tolist() == [[[0, 0, 10, 10], [20, 20, 30, 30], [0, 0, 10, 10], [0, 0, 0, 0]]]


def test_as_the_detectors_do():
    torch.manual_seed(0)
    limits = DetectionLimits(score_thr=0.3, nms_iou=0.4, max_det=15)
    for classes_apart in (False, True):
        low = torch.rand(2, 40, 3, 2) * 30
        boxes = torch.cat((low, low + torch.rand(2, 40, 3, 2) * 20), dim=-1)
        boxes = boxes if classes_apart else boxes[:, :, 0]
        scores = torch.rand(2, 40, 3)
        cut = torch.where(scores > limits.score_thr, scores, DEAD)
        kept, best, labels = best_of_classes(boxes, cut, limits.nms_iou, limits.max_det)
        for image in range(2):
            expected = select_detections(boxes[image], scores[image], None, limits)
            assert torch.equal(kept[image], expected["boxes"])
            assert torch.equal(best[image], expected["scores"])
            assert torch.equal(labels[image], expected["labels"])
